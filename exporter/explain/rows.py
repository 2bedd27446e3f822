"""From one batch of images to its rows: read, explain, quantise, encode.

`launch` starts a batch on the device and waits for nothing; `rows` waits for that batch alone and
makes its rows, on any thread. `compute` is both, with the metrics that run the model once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch

from exporter.errors import ModelError
from exporter.explain.batches import DeviceBatch, HostBatch
from exporter.explain.explainer import Explainer
from exporter.explain.work import BatchWork, Loaded, lay_masks
from exporter.faithfulness import measure
from exporter.guard import user_code
from exporter.memory import in_halves
from exporter.records import (
    ChannelBatch,
    Faithfulness,
    ImageEntry,
    Prediction,
    Prepared,
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
class Pending:
    """A batch on the device; more than one part where its memory was short."""

    loaded: Loaded
    parts: tuple[DeviceBatch, ...]

    def equals(self, other: Pending) -> bool:
        """Say whether another batch came out the same, bit for bit."""
        pairs = zip(self.parts, other.parts, strict=True)
        return all(part.equals(its) for part, its in pairs)


@dataclass(frozen=True)
class Computed:
    """What one batch adds to its shard."""

    rows: tuple[Row, ...]
    channels: tuple[ChannelBatch, ...]
    faithfulness: tuple[Faithfulness, ...] = ()


def compute(work: BatchWork, explainer: Explainer, loaded: Loaded) -> Computed:
    """Explain one batch, make its rows and measure its maps.

    Args:
        work: what the run's batches have in common.
        explainer: built around the model or a replica of it.
        loaded: the batch.

    Returns:
        A row for each image, in order, and the channel reductions of those that were explained.

    Raises:
        ModelError: if the model fails on the batch, with what it said.
    """
    computed = rows(work, launch(work, explainer, loaded))
    if not work.metrics:
        return computed
    prepared = {entry.id: image for entry, image in loaded.seen}
    explained = [row for row in computed.rows if row.maps]
    measured = measure(
        work.plan,
        explained,
        lambda n: work.inputs([prepared[explained[n].id]]),
        explainer.probability,
        work.metrics,
    )
    with _model_on([entry for entry, _ in loaded.seen], work):
        return replace(computed, faithfulness=tuple(measured))


def launch(work: BatchWork, explainer: Explainer, loaded: Loaded) -> Pending:
    """Start one batch on the device; where its memory runs out, in halves.

    Raises:
        ModelError: if the model fails on the batch, with what it said.
    """
    seen = loaded.seen
    labels = _labels(work, seen)
    masks = [m for m, p in zip(loaded.masks, loaded.prepared, strict=True) if p]

    def explain(some: slice) -> DeviceBatch:
        batch = work.inputs([image for _, image in seen[some]])
        known = torch.tensor(labels[some], dtype=torch.int64)
        given = (lay_masks(masks[some], work),) if work.masks else ()
        return explainer(batch, known.to(work.device, non_blocking=True), *given)

    if not seen:
        return Pending(loaded, ())
    with _model_on([entry for entry, _ in seen], work):
        return Pending(loaded, tuple(in_halves(explain, len(seen))))


def rows(work: BatchWork, pending: Pending) -> Computed:
    """Wait for one batch, and for nothing else on the device, and make its rows.

    Raises:
        ModelError: if the device failed on the batch meanwhile.
    """
    loaded, seen = pending.loaded, pending.loaded.seen
    readable: Iterator[Row] = iter(())
    channels: tuple[ChannelBatch, ...] = ()
    if pending.parts:
        with _model_on([entry for entry, _ in seen], work):
            host = reduce(HostBatch.joined, [part.to_host() for part in pending.parts])
        readable = _rows(work, seen, host)
        channels = tuple(_channels(seen, host))
    every = zip(loaded.entries, loaded.errors, loaded.prepared, strict=True)
    return Computed(
        tuple(next(readable) if image else _unread(entry, error) for entry, error, image in every),
        channels,
    )


def _labels(work: BatchWork, seen: Sequence[tuple[ImageEntry, Prepared]]) -> list[int]:
    """Return the class of each image's label, -1 where it is not known."""
    return [work.plan.label_index.get(entry.label or "", -1) for entry, _ in seen]


@contextmanager
def _model_on(entries: Sequence[ImageEntry], work: BatchWork) -> Iterator[None]:
    """Say on which images the model failed, with what, and what helps."""
    which, smaller = repr(entries[0].path) if entries else "no image", ""
    if len(entries) > 1:
        which = f"a batch of {len(entries)} images, from {which} to {entries[-1].path!r}"
        smaller = "give a lower --batch-size, or "
    try:
        with user_code("the model", which, advice=f"{smaller}fix it and go on with --resume"):
            yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"not even one image of {which} fits into the memory of {str(work.device)!r}; take "
            "fewer layers or methods or another device"
        ) from error


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


def _rows(
    work: BatchWork, seen: Sequence[tuple[ImageEntry, Prepared]], host: HostBatch
) -> Iterator[Row]:
    names = work.plan.model.classes
    for n, ((entry, image), known) in enumerate(zip(seen, _labels(work, seen), strict=True)):
        label = known if known >= 0 else None
        row = replace(
            _unread(entry, None),
            label_index=label,
            width=image.geometry.width,
            height=image.geometry.height,
            crop=image.geometry.crop,
            image=encode_jpeg(image.view),
        )
        if host.nan_output[n]:
            yield replace(row, error="the model's output is not a number for this image")
            continue
        predictions = tuple(
            Prediction(int(index), names[index] if index < len(names) else str(index), float(score))
            for index, score in zip(host.top_index[n], host.top_score[n], strict=True)
            if index >= 0
        )
        # Only where one class is right is there a loss, and something to be correct about.
        judged = label is not None and not np.isnan(host.loss[n])
        yield replace(
            row,
            predictions=predictions,
            loss=float(host.loss[n]) if judged else None,
            correct=predictions[0].index == label if judged else None,
            maps=tuple(_maps(work, host, n)),
            activations=tuple(_activations(host, n)),
        )


def _maps(work: BatchWork, host: HostBatch, n: int) -> Iterable[StoredMap]:
    rectified = {record.name for record in work.plan.methods if record.relu}
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
