"""From one batch of images to its rows: read, explain, quantise, encode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.engines.job import Job
from exporter.errors import ImageError, ModelError
from exporter.explain import Explainer, HostBatch
from exporter.faithfulness.measure import measure
from exporter.images import normalise
from exporter.records import (
    ChannelBatch,
    Faithfulness,
    ImageEntry,
    Prediction,
    Prepared,
    Preprocessing,
    Row,
    StoredActivation,
    StoredMap,
)
from exporter.render import encode_jpeg

_FLAGS = tuple(
    ",".join(name for bit, name in enumerate(("zero", "constant", "nan")) if bits >> bit & 1)
    for bits in range(8)
)

_NO_MASK = 255


@dataclass(frozen=True)
class Loaded:
    """The images of one batch as they were read: one of ``prepared`` and ``errors`` an entry.

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


@dataclass(frozen=True)
class Computed:
    """What one batch adds to its shard."""

    rows: tuple[Row, ...]
    channels: tuple[ChannelBatch, ...]
    faithfulness: tuple[Faithfulness, ...] = ()


def load(job: Job, entries: Sequence[ImageEntry]) -> Loaded:
    """Read and preprocess the images of one batch; one that cannot be read keeps its reason."""
    prepared: list[Prepared | None] = []
    errors: list[str | None] = []
    masks: list[NDArray[np.uint8] | None] = []
    steps = job.plan.model.preprocessing
    for entry in entries:
        image, mask, error = None, None, None
        try:
            image = job.image_set.load(entry, steps)
            mask = job.image_set.load_mask(entry, steps) if job.masks else None
        except ImageError as failure:
            image, error = None, str(failure)
        prepared.append(image)
        masks.append(mask)
        errors.append(error)
    return Loaded(tuple(entries), tuple(prepared), tuple(errors), tuple(masks))


def compute(job: Job, explainer: Explainer, loaded: Loaded) -> Computed:
    """Explain one batch and make its rows.

    Args:
        job: the work.
        explainer: built around the model or a replica of it.
        loaded: the batch.

    Returns:
        A row an image, in order, and the channel reductions of those that were explained.

    Raises:
        ModelError: if the model fails on the batch, with what it said.
    """
    seen = [
        (entry, item) for entry, item in zip(loaded.entries, loaded.prepared, strict=True) if item
    ]
    if not seen:
        return Computed(tuple(_unread(e, r) for e, r in _pairs(loaded)), ())
    labels = [job.plan.label_index.get(entry.label or "", -1) for entry, _ in seen]
    masks = None
    if job.masks:
        masks = [m for m, item in zip(loaded.masks, loaded.prepared, strict=True) if item]
    try:
        host = _explain(job, explainer, [item for _, item in seen], labels, masks)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(_failed([entry for entry, _ in seen], error, job)) from error
    made = tuple(_rows(job, seen, labels, host))
    explained = iter(made)
    rows = tuple(
        next(explained) if item is not None else _unread(entry, error)
        for (entry, error), item in zip(_pairs(loaded), loaded.prepared, strict=True)
    )
    measured = _faithfulness(job, explainer, seen, made, host) if job.faithfulness else ()
    return Computed(rows, tuple(_channels(seen, host)), tuple(measured))


def _faithfulness(
    job: Job,
    explainer: Explainer,
    seen: Sequence[tuple[ImageEntry, Prepared]],
    rows: Sequence[Row],
    host: HostBatch,
) -> Iterable[Faithfulness]:
    steps = job.plan.model.preprocessing
    return measure(
        job,
        explainer,
        rows,
        host,
        lambda n: inputs([seen[n][1]], steps, job.device, job.channels_last, job.dtype),
    )


def _failed(entries: Sequence[ImageEntry], error: Exception, job: Job) -> str:
    """Say on which images the model failed, with what, and what helps."""
    which = repr(entries[0].path)
    if len(entries) > 1:
        which = f"a batch of {len(entries)} images, from {which} to {entries[-1].path!r}"
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"not even one image of {which} fits into the memory of {str(job.device)!r}; take "
            "fewer layers or methods or another device"
        )
    said = (str(error).strip().splitlines() or [""])[0]
    smaller = "give a lower --batch-size, or " if len(entries) > 1 else ""
    return (
        f"the model failed on {which}: {type(error).__name__}: {said}; {smaller}mend it and go on "
        "with --resume"
    )


def _pairs(loaded: Loaded) -> Iterable[tuple[ImageEntry, str | None]]:
    return zip(loaded.entries, loaded.errors, strict=True)


def _unread(entry: ImageEntry, error: str | None) -> Row:
    return Row(
        id=entry.id,
        key=entry.key,
        path=entry.path,
        label=entry.label,
        boxes=entry.boxes,
        mask=entry.mask,
        error=error,
    )


def _explain(
    job: Job,
    explainer: Explainer,
    prepared: Sequence[Prepared],
    labels: Sequence[int],
    masks: Sequence[NDArray[np.uint8] | None] | None,
) -> HostBatch:
    """Explain a batch; where the device runs out of memory, halve it and try again."""
    try:
        batch = inputs(
            prepared, job.plan.model.preprocessing, job.device, job.channels_last, job.dtype
        )
        given = () if masks is None else (_masks(masks, job),)
        return explainer(batch, _on_device(labels, job.device), *given).to_host()
    except torch.OutOfMemoryError:
        if len(prepared) == 1:
            raise
    torch.cuda.empty_cache()
    middle = len(prepared) // 2
    return HostBatch.joined(
        _explain(job, explainer, prepared[:middle], labels[:middle], masks and masks[:middle]),
        _explain(job, explainer, prepared[middle:], labels[middle:], masks and masks[middle:]),
    )


def _masks(masks: Sequence[NDArray[np.uint8] | None], job: Job) -> torch.Tensor:
    """Lay given masks on the device, uint8 (N, h, w); 255 everywhere where none is given."""
    none = np.full(job.plan.model.preprocessing.size, _NO_MASK, np.uint8)
    return _move(torch.from_numpy(np.stack([none if m is None else m for m in masks])), job.device)


def _on_device(labels: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.int64).to(device, non_blocking=True)


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
    if all(item.tensor is not None for item in prepared):
        batch = torch.from_numpy(
            np.stack([item.tensor for item in prepared if item.tensor is not None])
        )
        batch = _move(batch, device)
    else:
        batch = normalise(
            _move(torch.from_numpy(np.stack([p.view for p in prepared])), device), preprocessing
        )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return batch.to(dtype).contiguous(memory_format=layout)


def _move(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def _rows(
    job: Job, seen: Sequence[tuple[ImageEntry, Prepared]], labels: Sequence[int], host: HostBatch
) -> Iterable[Row]:
    names = job.plan.model.classes
    for n, (entry, item) in enumerate(seen):
        jpeg = encode_jpeg(item.view)
        label = labels[n] if labels[n] >= 0 else None
        base = Row(
            id=entry.id,
            key=entry.key,
            path=entry.path,
            label=entry.label,
            label_index=label,
            width=item.geometry.width,
            height=item.geometry.height,
            crop=item.geometry.crop,
            image=jpeg,
            boxes=entry.boxes,
            mask=entry.mask,
            error="the model's output is not a number for this image",
        )
        if host.nan_output[n]:
            yield base
            continue
        predictions = tuple(
            Prediction(int(index), names[index] if index < len(names) else str(index), float(score))
            for index, score in zip(host.top_index[n], host.top_score[n], strict=True)
            if index >= 0
        )
        # Only where one class is right is there a loss, and something to be correct about.
        judged = label is not None and not np.isnan(host.loss[n])
        yield Row(
            id=base.id,
            key=base.key,
            path=base.path,
            label=base.label,
            label_index=label,
            width=base.width,
            height=base.height,
            crop=base.crop,
            predictions=predictions,
            loss=float(host.loss[n]) if judged else None,
            correct=predictions[0].index == label if judged else None,
            image=jpeg,
            maps=tuple(_maps(job, host, n)),
            activations=tuple(_activations(host, n)),
            boxes=entry.boxes,
            mask=entry.mask,
        )


def _maps(job: Job, host: HostBatch, n: int) -> Iterable[StoredMap]:
    rectified = {record.name for record in job.plan.methods if record.relu}
    stored: set[tuple[str, str, str]] = set()
    for method, layer, t, levels, lo, hi, flags in host.maps:
        target = _target(host, n, t)
        # A box that the image does not have; a label that is the predicted class, beside it.
        if target is None or (method, layer, target) in stored:
            continue
        stored.add((method, layer, target))
        negative = not flags[n] and hi[n] <= 0 and method in rectified
        yield StoredMap(
            method=method,
            layer=layer,
            target=target,
            height=levels.shape[1],
            width=levels.shape[2],
            lo=float(lo[n]),
            hi=float(hi[n]),
            values=levels[n].tobytes(),
            flags="negative" if negative else _FLAGS[int(flags[n])],
        )


def _target(host: HostBatch, n: int, t: int) -> str | None:
    """Return how a target is stored, None where the image has none such."""
    index, other = int(host.targets[n, t]), int(host.against[n, t])
    if index < 0:
        return None
    if host.named not in ("class", "box"):
        return host.named
    return f"{host.named}:{index}" if other < 0 else f"{host.named}:{index}-{other}"


def _activations(host: HostBatch, n: int) -> Iterable[StoredActivation]:
    for layer, channels, lo, hi, levels in host.activations:
        yield StoredActivation(
            layer=layer,
            channels=tuple(channels[n].tolist()),
            height=levels.shape[2],
            width=levels.shape[3],
            lo=tuple(lo[n].tolist()),
            hi=tuple(hi[n].tolist()),
            values=levels[n].tobytes(),
        )


def _channels(
    seen: Sequence[tuple[ImageEntry, Prepared]], host: HostBatch
) -> Iterable[ChannelBatch]:
    kept = ~host.nan_output
    ids = tuple(entry.id for (entry, _), keep in zip(seen, kept, strict=True) if keep)
    if not ids:
        return
    for statistics in host.channels:
        yield ChannelBatch(
            layer=statistics.layer,
            ids=ids,
            mean=statistics.mean[kept],
            maximum=statistics.maximum[kept],
            zeros=statistics.zeros[kept],
            place=statistics.place[kept],
            height=statistics.height,
            width=statistics.width,
        )
