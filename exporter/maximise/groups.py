"""Make the pictures that excite channels, once the pass over the set is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from exporter.errors import ModelError
from exporter.guard import user_code
from exporter.layers.layout import Reshape
from exporter.maximise.ascent import TOGETHER, AscentSettings, maximise
from exporter.maximise.objectives import Group, Wanted
from exporter.records import OUTPUT, MaximisedPicture, ModelRecord
from exporter.render import encode_png
from exporter.watch import Watch

_TRIED_STEPS = 4
"""Steps that are made to say how long all would take."""


Make = Callable[[Group], list[MaximisedPicture]]
"""Makes the pictures of one group: `make_pictures` with everything but the group."""


def maximise_groups(
    make: Make,
    groups: Sequence[Group],
    missing: Sequence[int],
    write: Callable[[int, list[MaximisedPicture]], None],
    watch: Watch,
) -> None:
    """Make the pictures of the groups that are missing and hand each group, whole, to ``write``."""
    watch.begin("maximising channels", sum(len(groups[index].channels) for index in missing))
    for index in missing:
        write(index, make(groups[index]))
        watch.advance(len(groups[index].channels))


def estimate_maximised(make: Make, wanted: Sequence[Wanted]) -> float:
    """Return the seconds that all pictures asked for would take, from a few steps of each request.

    Which channels are the strongest is not known before the pass; the first ones are timed.
    """
    seconds = 0.0
    for objective in dict.fromkeys(wanted):
        count = objective.strongest or len(objective.channels)
        tried = (objective.channels or tuple(range(count)))[:TOGETHER]
        steps = min(_TRIED_STEPS, objective.settings.steps)
        start = time.perf_counter()
        make(Group(objective.layer, tried, replace(objective.settings, steps=steps)))
        taken = time.perf_counter() - start
        seconds += taken * objective.settings.steps / steps * count / len(tried)
    return seconds


def make_pictures(
    module: nn.Module,
    model: ModelRecord,
    group: Group,
    *,
    together: int = TOGETHER,
    output: str | None = None,
    reshape: Reshape | None = None,
) -> list[MaximisedPicture]:
    """Make the pictures of one group, as they are stored.

    Args:
        module: the model.
        model: what is known of it.
        group: the channels, and how their pictures are made.
        together: most pictures that are made at the same time.
        output: path of the logits inside the model's output.
        reshape: from the layer's output to (N, C, H, W).

    Raises:
        ModelError: if the model fails on the pictures.
    """
    preprocessing, classes = model.preprocessing, model.classes
    pictures, advice = f"the pictures made for {group.layer!r}", "fix it and go on with --resume"
    try:
        with user_code("the model", pictures, advice=advice):
            maximised = maximise(
                module,
                group.layer,
                group.channels,
                settings=group.settings,
                together=min(together, TOGETHER),
                view=preprocessing.size,
                mean=preprocessing.mean,
                std=preprocessing.std,
                output=output,
                reshape=reshape,
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"not even one picture for {group.layer!r} fits into the device's memory; give a "
            "smaller size to --maximise, or take another device"
        ) from error
    height, width = maximised.pictures.shape[1:3]
    return [
        MaximisedPicture(
            layer=group.layer,
            channel=channel,
            name=classes[channel] if group.layer == OUTPUT and channel < len(classes) else "",
            before=float(maximised.before[n]),
            after=float(maximised.after[n]),
            peak=float(maximised.peak[n]),
            prior=group.settings.prior,
            settings=describe(group.settings),
            height=height,
            width=width,
            picture=encode_png(maximised.pictures[n]),
        )
        for n, channel in enumerate(group.channels)
    ]


def describe_wanted(wanted: Wanted) -> str:
    """Say what is wanted of one layer.

    >>> describe_wanted(Wanted("layer4", (), 8, AscentSettings()))
    'layer4: 8 strongest channels, fourier prior, 128 steps of 0.05, shifted anywhere, zoomed up \
to 15 %, seed 0'
    """
    count = wanted.strongest or len(wanted.channels)
    channels = f"{count}{' strongest' if wanted.strongest else ''} channel{'s' * (count != 1)}"
    prior = "no" if wanted.settings.prior == "none" else wanted.settings.prior
    return f"{wanted.layer}: {channels}, {prior} prior, {describe(wanted.settings)}"


def describe(settings: AscentSettings) -> str:
    """Say how pictures are made, besides their prior.

    >>> describe(AscentSettings())
    '128 steps of 0.05, shifted anywhere, zoomed up to 15 %, seed 0'
    """
    shift = "anywhere" if settings.jitter is None else f"up to {settings.jitter} pixels"
    parts = [f"{settings.steps} steps of {settings.rate:g}", f"shifted {shift}"]
    parts.append(f"zoomed up to {100 * settings.zoom:g} %")
    if settings.prior == "total-variation":
        parts.append(f"weight {settings.weight:g}")
    return ", ".join([*parts, f"seed {settings.seed}"])
