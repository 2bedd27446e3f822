"""From one batch of images to its rows: read, explain, quantise, encode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from exporter.engines.job import Job
from exporter.errors import ImageError
from exporter.explain import Explainer, HostBatch
from exporter.images import normalise
from exporter.records import (
    ChannelBatch,
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


@dataclass(frozen=True)
class Loaded:
    """The images of one batch as they were read: one of ``prepared`` and ``errors`` an entry."""

    entries: tuple[ImageEntry, ...]
    prepared: tuple[Prepared | None, ...]
    errors: tuple[str | None, ...]


@dataclass(frozen=True)
class Computed:
    """What one batch adds to its shard."""

    rows: tuple[Row, ...]
    channels: tuple[ChannelBatch, ...]


def load(job: Job, entries: Sequence[ImageEntry]) -> Loaded:
    """Read and preprocess the images of one batch; one that cannot be read keeps its reason."""
    prepared: list[Prepared | None] = []
    errors: list[str | None] = []
    for entry in entries:
        try:
            prepared.append(job.image_set.load(entry, job.plan.model.preprocessing))
            errors.append(None)
        except ImageError as error:
            prepared.append(None)
            errors.append(str(error))
    return Loaded(tuple(entries), tuple(prepared), tuple(errors))


def compute(job: Job, explainer: Explainer, loaded: Loaded) -> Computed:
    """Explain one batch and make its rows.

    Args:
        job: the work.
        explainer: built around the model or a replica of it.
        loaded: the batch.

    Returns:
        A row an image, in order, and the channel reductions of those that were explained.
    """
    seen = [
        (entry, item) for entry, item in zip(loaded.entries, loaded.prepared, strict=True) if item
    ]
    if not seen:
        return Computed(tuple(_unread(e, r) for e, r in _pairs(loaded)), ())
    labels = [job.plan.label_index.get(entry.label or "", -1) for entry, _ in seen]
    host = _explain(job, explainer, [item for _, item in seen], labels)
    explained = iter(_rows(job, seen, labels, host))
    rows = tuple(
        next(explained) if item is not None else _unread(entry, error)
        for (entry, error), item in zip(_pairs(loaded), loaded.prepared, strict=True)
    )
    return Computed(rows, tuple(_channels(seen, host)))


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
    job: Job, explainer: Explainer, prepared: Sequence[Prepared], labels: Sequence[int]
) -> HostBatch:
    """Explain a batch; where the device runs out of memory, halve it and try again."""
    try:
        batch = inputs(prepared, job.plan.model.preprocessing, job.device, job.channels_last)
        return explainer(batch, _on_device(labels, job.device)).to_host()
    except torch.OutOfMemoryError:
        if len(prepared) == 1:
            raise
    torch.cuda.empty_cache()
    middle = len(prepared) // 2
    return HostBatch.joined(
        _explain(job, explainer, prepared[:middle], labels[:middle]),
        _explain(job, explainer, prepared[middle:], labels[middle:]),
    )


def _on_device(labels: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.int64).to(device, non_blocking=True)


def inputs(
    prepared: Sequence[Prepared],
    preprocessing: Preprocessing,
    device: torch.device,
    channels_last: bool,
) -> torch.Tensor:
    """Lay prepared images out as a model's input (N, C, H, W) on a device, normalised there."""
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
    return batch.contiguous(memory_format=layout)


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
        )
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
            loss=None if label is None else float(host.loss[n]),
            correct=None if label is None else predictions[0].index == label,
            image=jpeg,
            maps=tuple(_maps(job, host, n)),
            activations=tuple(_activations(host, n)),
            boxes=entry.boxes,
            mask=entry.mask,
        )


def _maps(job: Job, host: HostBatch, n: int) -> Iterable[StoredMap]:
    valued = job.plan.target == "value"
    rectified = {record.name for record in job.plan.methods if record.relu}
    for method, layer, t, levels, lo, hi, flags in host.maps:
        negative = not flags[n] and hi[n] <= 0 and method in rectified
        yield StoredMap(
            method=method,
            layer=layer,
            target="value" if valued else f"class:{int(host.targets[n, t])}",
            height=levels.shape[1],
            width=levels.shape[2],
            lo=float(lo[n]),
            hi=float(hi[n]),
            values=levels[n].tobytes(),
            flags="negative" if negative else _FLAGS[int(flags[n])],
        )


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
