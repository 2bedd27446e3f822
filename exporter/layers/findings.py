"""What planning finds out about a model by running it, besides what a trial shows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.capture import all_close, close, guest, in_full_float32, watch_changes
from exporter.containers import tensors
from exporter.errors import TargetError
from exporter.guard import FAILURES, is_shortage
from exporter.layers.trial import Trial
from exporter.records import Findings
from exporter.targets import is_detections, locate_output


def find_out(trial: Trial) -> Findings:
    """Run the model of a trial again: its image between two others, and where that differs, alone.

    Between two, because a model may hold an image against the first or the last of its batch.
    """
    model, image = trial.module, trial.example[:1]
    changes = trial.changes
    with guest(model), torch.no_grad(), in_full_float32():
        # The trial's guest put the random states back: these forwards would draw what it drew.
        _ = torch.rand(1), torch.rand(1, device=image.device), np.random.rand(), random.random()
        with watch_changes(model) as more:
            repeats, alone, untold = _run_again(trial, image)
    both = (changes, more)
    return Findings(
        repeats=repeats,
        alone=alone,
        random=tuple(dict.fromkeys(name for each in both for name in each.random)),
        writes_input=any(each.wrote_input for each in both),
        writes_input_unseen=changes.wrote_unseen,
        writes_buffers=tuple(dict.fromkeys(name for each in both for name in each.buffers)),
        writes_parameters=tuple(dict.fromkeys(name for each in both for name in each.parameters)),
        untold=untold,
    )


def _run_again(trial: Trial, image: Tensor) -> tuple[bool, bool | None, str]:
    """Say if an image gives the same again, if it does in a batch, and why that is not known.

    Two images are tried where three take more memory than there is.
    """
    batch, several, untold = _between_others(image), None, ""
    for number in (3, 2):
        try:
            several = trial.module(batch[:number])
        except FAILURES as error:  # a model that takes one image at a time may fail in any way
            untold = f"it failed with {type(error).__name__}"  # what it says may name a path
            if is_shortage(error):
                untold = f"there was not enough memory for {number} images"
                continue
        break
    if several is None:
        return _agree(trial, trial.module(image), 0), None, untold
    if _agree(trial, several, 1):
        return True, True, ""
    repeats = _agree(trial, trial.module(image), 0)
    return repeats, False if repeats else None, ""


def _between_others(image: Tensor) -> Tensor:
    """Return a batch of three, of which the second is the image."""
    ramp = torch.linspace(-1, 1, image.shape[-1], dtype=image.dtype, device=image.device)
    batch = torch.cat((image.flip(-1) / 2 + ramp, image, image.flip(-2) - ramp / 2))
    channels_last = image.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return batch.contiguous(memory_format=layout)


def _agree(trial: Trial, output: Any, row: int) -> bool:
    """Say whether one row of an output is what the trial's image gave, to rounding."""
    if trial.path is None and is_detections(output):
        scores = trial.output[0]["scores"], output[row]["scores"]
        # Of boxes near the threshold rounding decides whether they are there.
        common = min(map(len, scores))
        return close(scores[0][:common], scores[1][:common])
    return all_close(_explained(trial, trial.output, 0), _explained(trial, output, row))


def _explained(trial: Trial, output: Any, row: int) -> dict[str, Tensor]:
    """Return what an output says of one image."""
    try:
        explained, path = locate_output(output, trial.path)
        held = {path: explained}
    except TargetError:
        held = tensors(output)
    return {
        path: values[row]
        for path, values in held.items()
        if values.ndim and values.is_floating_point() and len(values) > row
    }
