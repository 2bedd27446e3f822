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
from exporter.explain.sanity import Sanity
from exporter.explain.transfer import Transfer
from exporter.faithfulness import Metric
from exporter.guard import is_shortage, told
from exporter.images import ImageSet, normalise
from exporter.profiling import timed
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
        sanity: holds maps against those of the randomised model, where that is asked for.
        missing: by layer (or ``method at layer``), why planning saw no map or activation there.
        transfer: how batches are copied to the device and back.
    """

    plan: Plan
    image_set: ImageSet
    device: torch.device
    channels_last: bool
    dtype: torch.dtype = torch.float32
    masks: bool = False
    metrics: tuple[Metric, ...] = ()
    sanity: Sanity | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    transfer: Transfer = field(default_factory=Transfer)

    @property
    def measures(self) -> bool:
        """Whether the model is run again when a batch is explained, to measure its maps."""
        return bool(self.metrics) or self.sanity is not None

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


@timed("read and decode")
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


@dataclass(frozen=True)
class Staged:
    """The readable images of one batch side by side on the host, as they are copied to the device.

    Attributes:
        images: views, uint8 (N, h, w, C), or model-ready tensors, float32 (N, C, H, W).
        labels: int64 (N,), -1 where an image's class is not known.
        masks: uint8 (N, h, w), where the target needs them.
    """

    images: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None

    def on_device(self, work: BatchWork, some: slice) -> tuple[torch.Tensor, ...]:
        """Begin the copies of some images; return them as inputs, their labels and their masks."""
        staged = (self.images, self.labels) + (() if self.masks is None else (self.masks,))
        images, *others = (work.transfer.to_device(part[some], work.device) for part in staged)
        steps = work.plan.model.preprocessing
        return (_as_inputs(images, steps, work.channels_last, work.dtype), *others)

    def release(self, work: BatchWork) -> None:
        """Say that every copy has begun."""
        for part in (self.images, self.labels, self.masks):
            if part is not None:
                work.transfer.release(part)


@timed("lay out for the device")
def stage(work: BatchWork, loaded: Loaded) -> Staged | None:
    """Lay a batch out for its copy to the device.

    Returns:
        The batch; None where no image could be read, or memory is too short for all side by side.
    """
    prepared = [image for _, image in loaded.seen]
    if not prepared:
        return None
    transfer, masks = work.transfer, masks_of(loaded)
    try:
        return Staged(
            transfer.stage(_arrays(prepared)),
            transfer.stage([np.array(label) for label in labels_of(work, loaded.seen)]),
            transfer.stage(_given(masks, work)) if work.masks else None,
        )
    except Exception as error:
        if not is_shortage(error):
            raise
        return None


def labels_of(work: BatchWork, seen: Sequence[tuple[ImageEntry, Prepared]]) -> list[int]:
    """Return the class of each image's label, -1 where it is not known."""
    return [work.plan.label_index.get(entry.label or "", -1) for entry, _ in seen]


def masks_of(loaded: Loaded) -> list[NDArray[np.uint8] | None]:
    """Return the given masks of the images that could be read."""
    return [m for m, p in zip(loaded.masks, loaded.prepared, strict=True) if p]


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
    batch = torch.from_numpy(np.stack(_arrays(prepared))).to(device)
    return _as_inputs(batch, preprocessing, channels_last, dtype)


def lay_masks(masks: Sequence[NDArray[np.uint8] | None], work: BatchWork) -> torch.Tensor:
    """Lay given masks on the device, uint8 (N, h, w); 255 everywhere where none is given."""
    return torch.from_numpy(np.stack(_given(masks, work))).to(work.device)


def _as_inputs(
    batch: torch.Tensor, preprocessing: Preprocessing, channels_last: bool, dtype: torch.dtype
) -> torch.Tensor:
    batch = normalise(batch, preprocessing) if batch.dtype == torch.uint8 else batch
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return batch.to(dtype).contiguous(memory_format=layout)


def _arrays(prepared: Sequence[Prepared]) -> list[NDArray[Any]]:
    """Return what the device is given of each image: the model-ready tensor, or the view."""
    ready = [item.tensor for item in prepared if item.tensor is not None]
    return list(ready) if len(ready) == len(prepared) else [item.view for item in prepared]


def _given(masks: Sequence[NDArray[np.uint8] | None], work: BatchWork) -> list[NDArray[np.uint8]]:
    none = np.full(work.plan.model.preprocessing.size, 255, np.uint8)
    return [none if mask is None else mask for mask in masks]
