"""From one batch of images to its rows: read, explain, quantise, encode.

`launch` starts a batch on the device and waits for nothing; `rows` waits for that batch alone and
makes its rows, on any thread. `compute` is both, with the metrics that run the model once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch

from exporter.errors import LayerError, MapError, TargetError
from exporter.explain.batches import FLAGS, DeviceBatch, activations_of, channels_of, stage_of
from exporter.explain.explainer import Explainer
from exporter.explain.places import HostBatch, boxes_of, predictions_of, regions_of, target_of
from exporter.explain.work import BatchWork, Loaded, Staged, labels_of, lay_masks, masks_of
from exporter.faithfulness import measure
from exporter.guard import is_shortage, user_code
from exporter.memory import in_halves
from exporter.profiling import timed
from exporter.records import (
    ChannelBatch,
    Faithfulness,
    ImageEntry,
    ImageStage,
    Prepared,
    Row,
    SanityStep,
    StoredMap,
)
from exporter.render import encode_jpeg

Part = TypeVar("Part")


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
    """What one batch adds to its shard.

    Attributes:
        fit: images that went through the model together at most, where memory was short.
    """

    rows: tuple[Row, ...]
    channels: tuple[ChannelBatch, ...]
    faithfulness: tuple[Faithfulness, ...] = ()
    sanity: tuple[SanityStep, ...] = ()
    stages: tuple[ImageStage, ...] = ()
    fit: int | None = None


def compute(work: BatchWork, explainer: Explainer, loaded: Loaded) -> Computed:
    """Explain one batch, make its rows and measure its maps.

    Returns:
        A row for each image, in order, and the channel reductions of those that were explained.

    Raises:
        ModelError: if the model fails on the batch, with what it said.
    """
    computed = rows(work, launch(work, explainer, loaded))
    if not work.measures:
        return computed
    prepared = {entry.id: image for entry, image in loaded.seen}
    explained = [row for row in computed.rows if row.maps]
    measured = timed("measure faithfulness")(measure)(
        work.plan,
        explained,
        lambda n: work.inputs([prepared[explained[n].id]]),
        explainer.probability,
        work.metrics,
    )
    with _model_on(work, loaded):
        return replace(
            computed,
            faithfulness=tuple(measured) if work.metrics else (),
            sanity=tuple(_sanity(work, loaded, computed.rows)),
        )


def _sanity(work: BatchWork, loaded: Loaded, rows: Sequence[Row]) -> Iterator[SanityStep]:
    """Hold a batch's maps against those of the randomised model, where that is asked for."""
    sanity = work.sanity
    if sanity is None or not loaded.seen:
        return
    seen = [row for row, image in zip(rows, loaded.prepared, strict=True) if image]

    def compared(some: slice) -> list[SanityStep]:
        return list(sanity(seen[some], *_given(work, loaded, some)))

    for part in _parts(work, compared, len(seen)):
        yield from part


def _given(work: BatchWork, loaded: Loaded, some: slice) -> tuple[torch.Tensor, ...]:
    """Lay some images out on the device, with their labels and, where needed, their masks."""
    here = loaded.seen[some]
    labels = torch.tensor(labels_of(work, here), dtype=torch.int64).to(work.device)
    masks = (lay_masks(masks_of(loaded)[some], work),) if work.masks else ()
    return (work.inputs([image for _, image in here]), labels, *masks)


def _parts(work: BatchWork, compute: Callable[[slice], Part], count: int) -> list[Part]:
    """Compute a batch; where memory runs out in halves, unless half of it would be another one."""
    if work.plan.depends_on_batch:
        return [compute(slice(0, count))]
    return in_halves(compute, count)


@timed("model and maps")
def launch(
    work: BatchWork, explainer: Explainer, loaded: Loaded, staged: Staged | None = None
) -> Pending:
    """Start one batch on the device, and its copy back; where its memory runs out, in halves.

    Another thread may have ``staged`` it: laid it out as it is copied to the device.

    Raises:
        ModelError: if the model fails on the batch, with what it said.
    """
    seen = loaded.seen

    def explain(some: slice) -> DeviceBatch:
        given = _given(work, loaded, some) if staged is None else staged.on_device(work, some)
        launched = explainer(*given)
        return launched._replace(read=work.transfer.begin(launched.packed))

    with _model_on(work, loaded):
        parts = _parts(work, explain, len(seen)) if seen else []
        if staged is not None:
            staged.release(work)
        for part in parts:
            _refuse_missing(work, part.outline.missing)
        return Pending(loaded, tuple(parts))


def _refuse_missing(work: BatchWork, missing: Mapping[str, str]) -> None:
    """Raise where a batch lacks what planning saw: rows without a map would say nothing of it."""
    for name in sorted(missing.keys() - work.missing.keys()):
        raise LayerError(
            f"the model gives nothing at {name!r}, where it did for the first image "
            f"({missing[name]}); leave it out, or let the model run it for every image"
        )


@timed("make rows")
def rows(work: BatchWork, pending: Pending) -> Computed:
    """Wait for one batch, and for nothing else on the device, and make its rows.

    Raises:
        ModelError: if the device failed on the batch meanwhile.
    """
    loaded = pending.loaded
    with _model_on(work, loaded):
        parts = [part.to_host() for part in pending.parts]
    explained: list[Row] = []
    channels: list[ChannelBatch] = []
    stages: list[ImageStage] = []
    for part in parts:
        seen = loaded.seen[len(explained) : len(explained) + len(part.loss)]
        explained += _rows(work, seen, part)
        channels += channels_of([entry.id for entry, _ in seen], part)
        stages += (
            ImageStage(entry.id, stage)
            for n, (entry, _) in enumerate(seen)
            if not part.nan_output[n] and (stage := stage_of(part, n)) is not None
        )
    readable = iter(explained)
    every = zip(loaded.entries, loaded.errors, loaded.prepared, strict=True)
    return Computed(
        tuple(next(readable) if image else _unread(entry, error) for entry, error, image in every),
        tuple(channels),
        stages=tuple(stages),
        fit=max(len(part.loss) for part in parts) if len(parts) > 1 else None,
    )


@contextmanager
def _model_on(work: BatchWork, loaded: Loaded) -> Iterator[None]:
    """Say on which images the model failed, with what, and what helps."""
    entries = [entry for entry, _ in loaded.seen]
    which, smaller = repr(entries[0].path) if entries else "no image", ""
    if len(entries) > 1:
        which = f"a batch of {len(entries)} images, from {which} to {entries[-1].path!r}"
        smaller = "give a lower --batch-size, or "
    advice = f"{smaller}fix it and go on with --resume"
    memory = (
        f"not even one image of {which} fits into the memory of {str(work.device)!r}: take fewer "
        "layers or methods, or free memory, and go on with --resume"
    )
    if work.plan.depends_on_batch and len(entries) > 1:
        memory = (
            f"they do not fit into the memory of {str(work.device)!r}, and as the model's "
            "output depends on the batch, it cannot be divided: start again with a lower "
            f"--batch-size, such as {len(entries) // 2}, and --overwrite"
        )
    with user_code("the model", which, advice=advice, memory=memory):
        try:
            yield
        except (LayerError, MapError, TargetError) as error:
            if error.who or is_shortage(error):
                raise
            raise type(error)(f"{which} cannot be explained: {error}") from error


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
    rectified = {record.name for record in work.plan.methods if record.relu}
    for n, ((entry, image), known) in enumerate(zip(seen, labels_of(work, seen), strict=True)):
        label = known if known >= 0 else None
        told: dict[str, Any] = {"error": "the model's output is not a number for this image"}
        if not host.nan_output[n]:
            predictions = predictions_of(host, n, work.plan.model.classes)
            # Only where one class is right is there a loss, and something to be correct about.
            judged = label is not None and not np.isnan(host.loss[n])
            told = {
                "predictions": predictions,
                "predicted_boxes": boxes_of(host, n, image),
                "regions": tuple(regions_of(host, n)),
                "loss": float(host.loss[n]) if judged else None,
                "correct": predictions[0].index == label if judged else None,
                "maps": tuple(_maps(host, n, rectified)),
                "activations": tuple(activations_of(host, n)),
            }
        yield replace(
            _unread(entry, None),
            key=image.key or entry.key,
            label_index=label,
            width=image.geometry.width,
            height=image.geometry.height,
            crop=image.geometry.crop,
            image=encode_jpeg(image.view),
            **told,
        )


def _maps(host: HostBatch, n: int, rectified: Set[str]) -> Iterable[StoredMap]:
    targets = [target_of(host, n, t) for t in range(host.targets.shape[1])]
    stored: set[tuple[str, str, str]] = set()
    for layer in host.maps:
        columns = (part[:, n].tolist() for part in (layer.lo, layer.hi, layer.flags))
        for (method, t), lo, hi, flag, levels in zip(
            layer.names, *columns, layer.levels[:, n], strict=True
        ):
            target = targets[t]
            # A box that the image does not have; a label that is the predicted class, beside it.
            if target is None or (method, layer.layer, target) in stored:
                continue
            stored.add((method, layer.layer, target))
            yield StoredMap(
                method=method,
                layer=layer.layer,
                target=target,
                height=levels.shape[0],
                width=levels.shape[1],
                lo=lo,
                hi=hi,
                values=levels.tobytes(),
                flags=FLAGS[flag] or ("negative" if hi <= 0 and method in rectified else ""),
            )
