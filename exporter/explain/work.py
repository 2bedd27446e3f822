"""What every batch of a run has in common, and the images of one as the model takes them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.errors import ImageError, ImageSetError
from exporter.faithfulness import Metric
from exporter.guard import is_shortage, told
from exporter.images import ImageSet, normalise
from exporter.records import ImageEntry, Plan, Prepared, Preprocessing

_ALONE = threading.Lock()
"""Held by the one thread that reads an image again, for which memory was short."""


@dataclass(frozen=True, kw_only=True)
class BatchWork:
    """What every batch of a run has in common, besides its explainer.

    Attributes:
        plan: the run's plan.
        image_set: where the images are read from.
        device: where the model is.
        channels_last: whether inputs are laid out channels last.
        dtype: type of the model's numbers, which its inputs take.
        masks: whether the target needs each image's given mask.
        metrics: how the maps' faithfulness is measured; empty for not at all.
        missing: by layer (or ``method at layer``), why planning saw no map or activation there.
    """

    plan: Plan
    image_set: ImageSet
    device: torch.device
    channels_last: bool
    dtype: torch.dtype = torch.float32
    masks: bool = False
    metrics: tuple[Metric, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def inputs(self, prepared: Sequence[Prepared]) -> torch.Tensor:
        """Lay prepared images out as the model's input, (N, C, H, W), on its device."""
        preprocessing = self.plan.model.preprocessing
        return inputs(prepared, preprocessing, self.device, self.channels_last, self.dtype)


@dataclass(frozen=True)
class Loaded:
    """The images of one batch as they were read: one of ``prepared`` and ``errors`` per entry.

    Attributes:
        entries: the images.
        prepared: what the model sees, None where the image cannot be read.
        errors: why it cannot, else None.
        masks: given masks, uint8 (h, w), where there is one and the target needs it.
    """

    entries: tuple[ImageEntry, ...]
    prepared: tuple[Prepared | None, ...]
    errors: tuple[str | None, ...]
    masks: tuple[NDArray[np.uint8] | None, ...]

    @property
    def seen(self) -> list[tuple[ImageEntry, Prepared]]:
        """The images that could be read."""
        return [(e, p) for e, p in zip(self.entries, self.prepared, strict=True) if p]


def load(work: BatchWork, entries: Sequence[ImageEntry]) -> Loaded:
    """Read and preprocess the images of one batch; one that cannot be read keeps its reason.

    Raises:
        ImageSetError: if there is too little memory for an image, which is no fault of the image.
    """
    columns = zip(*(_read(work, entry) for entry in entries), strict=True)
    return Loaded(tuple(entries), *columns) if entries else Loaded((), (), (), ())


def _read(
    work: BatchWork, entry: ImageEntry, *, again: bool = True
) -> tuple[Prepared | None, str | None, NDArray[np.uint8] | None]:
    steps = work.plan.model.preprocessing
    try:
        image = work.image_set.load(entry, steps)
        return image, None, work.image_set.load_mask(entry, steps) if work.masks else None
    except ImageError as failure:
        return None, str(failure), None
    except Exception as error:
        if not is_shortage(error):
            raise
        if not again:
            raise ImageSetError(
                f"there is not enough memory to read {entry.path!r}: {told(error)}; free memory, "
                "or give fewer --workers, and go on with --resume"
            ) from error
    gc.collect()
    with _ALONE:  # other threads may have taken the memory that is missing
        return _read(work, entry, again=False)


def inputs(
    prepared: Sequence[Prepared],
    preprocessing: Preprocessing,
    device: torch.device,
    channels_last: bool,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Lay prepared images out as a model's input (N, C, H, W) on a device, normalised there.

    They are normalised in float32 and then take the model's own type.
    """
    ready = [item.tensor for item in prepared if item.tensor is not None]
    if len(ready) == len(prepared):
        batch = _move(np.stack(ready), device)
    else:
        batch = normalise(_move(np.stack([p.view for p in prepared]), device), preprocessing)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return batch.to(dtype).contiguous(memory_format=layout)


def _move(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    batch = torch.from_numpy(values)
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def lay_masks(masks: Sequence[NDArray[np.uint8] | None], work: BatchWork) -> torch.Tensor:
    """Lay given masks on the device, uint8 (N, h, w); 255 everywhere where none is given."""
    none = np.full(work.plan.model.preprocessing.size, 255, np.uint8)
    return _move(np.stack([none if m is None else m for m in masks]), work.device)
