"""What goes into a run folder: kernels, shards, and what only the whole set shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.engines import Computed, Job, Store
from exporter.errors import ImageError
from exporter.images import ImageSet
from exporter.layers import Kernels
from exporter.maximise import choose, maximise_groups
from exporter.profiling import timed
from exporter.records import OUTPUT, Faithfulness, ImageStage, Region, Row, SanityStep
from exporter.render import encode_png, kernel_sheet
from exporter.store import KernelSheet, RunFolder, records_table, schema_of
from exporter.summaries import (
    FAITHFULNESS,
    SANITY,
    Scope,
    candidates,
    channel_table,
    given_region,
    merge_channels,
    merge_faithfulness,
    merge_sanity,
    merge_set,
    shard_parts,
)
from exporter.watch import Watch


def shard_store(job: Job, folder: RunFolder, watch: Watch) -> Store:
    """Return what writes a shard into a run folder, with all that it adds to the set."""
    scope = Scope.of(folder.plan)
    masks, view = _masks(job.image_set, watch), job.plan.model.preprocessing.size
    config = job.recipe.config
    chosen = StageChoice(config.keep, config.seed, partial(folder.summary, part="images"))

    @timed("measure and store a shard")
    def store(index: int, batches: list[Computed]) -> None:
        rows = [row for batch in batches for row in batch.rows]
        channels = [reduced for batch in batches for reduced in batch.channels]
        given: dict[str, Region] = {}

        def read(row: Row) -> NDArray[np.bool_] | None:
            mask = masks(row)
            region = None if mask is None else given_region(row, mask, view)
            if region is not None:
                given[row.id] = region
            return mask

        parts = shard_parts(rows, channels, scope, read)
        rows = [
            replace(row, regions=(*row.regions, given[row.id])) if row.id in given else row
            for row in rows
        ]
        if job.plan.recorded:
            parts = {"": channel_table(channels), **parts}
        if job.metrics:
            measured = [scores for batch in batches for scores in batch.faithfulness]
            parts[FAITHFULNESS] = records_table(measured, schema_of(Faithfulness))
        if job.sanity is not None:
            steps = [step for batch in batches for step in batch.sanity]
            parts[SANITY] = records_table(steps, schema_of(SanityStep))
        if folder.plan.head and folder.plan.head.layer:
            stages = [stage for batch in batches for stage in batch.stages]
            kept = chosen(index, parts["images"])
            stages = [stage for stage in stages if stage.id in kept]
            parts["stage"] = records_table(stages, schema_of(ImageStage))
        folder.write_shard(index, rows, parts)

    return store


class StageChoice:
    """Which images of each shard carry the layer that the head reads: those that may be kept.

    They are those that may be kept of the shards before it, as far as they are there, and its own.
    """

    def __init__(
        self, keep: int | Literal["all"], seed: int, stored: Callable[[int], pa.Table | None]
    ) -> None:
        self._keep, self._seed, self._stored = keep, seed, stored
        self._pool: dict[str, NDArray[Any]] = {}
        self._known: set[int] = set()
        self._turn = Lock()

    def __call__(self, index: int, images: pa.Table) -> set[str]:
        """Return their ids, given a shard and its table of images."""
        with self._turn:
            for before in sorted({*range(index)} - self._known):
                table = self._stored(before)
                if table is not None:
                    self._take(before, table)
            fresh = self._take(index, images)
            return fresh & set(self._pool["id"])

    def _take(self, shard: int, images: pa.Table) -> set[str]:
        self._known.add(shard)
        seen = images.filter(images["read"])
        columns: dict[str, NDArray[Any]] = {
            name: np.array(seen[name].to_pylist(), object if name == "id" else float)
            for name in ("id", "predicted", "confidence", "correct", "agreement")
        }
        fresh = set(columns["id"])
        if self._pool:
            columns = {
                name: np.concatenate([self._pool[name], values]) for name, values in columns.items()
            }
        places = candidates(columns, self._keep, self._seed)
        self._pool = {name: values[places] for name, values in columns.items()}
        return fresh


def merge_shards(folder: RunFolder, job: Job | None, seconds: float, watch: Watch) -> None:
    """Write what only the whole set shows, and ``run.json``; a job makes its maximised pictures.

    Raises:
        RunError: if a shard is missing.
    """
    folder.refuse_missing()
    watch.begin("merging the shards")
    plan, scope = folder.plan, Scope.of(folder.plan)
    channels = merge_channels(folder.summaries()) if plan.recorded else None
    merged = merge_set(folder.summaries, scope)
    tables = dict(merged.tables)
    if job is not None:
        seconds += _maximise(job, folder, channels, tables["classes"], watch)
    if plan.settings.get("faithfulness", plan.settings.get("quality")):
        tables[FAITHFULNESS] = merge_faithfulness(folder.summaries(FAITHFULNESS), scope)
    if plan.settings.get("sanity"):
        tables[SANITY] = merge_sanity(folder.summaries(SANITY), scope)
    folder.finish(seconds, tables, merged.summary, channels)


def _maximise(
    job: Job,
    folder: RunFolder,
    channels: pa.Table | None,
    classes: pa.Table,
    watch: Watch,
) -> float:
    """Make the pictures that are asked for and not there, and return the seconds it took."""
    if not job.maximised:
        return 0.0
    begun = time.perf_counter()
    means: dict[str, dict[int, float]] = {}
    columns = ["layer", "channel", "mean"]
    for row in [] if channels is None else channels.select(columns).to_pylist():
        means.setdefault(row["layer"], {})[row["channel"]] = row["mean"]
    counts = zip(*(classes[name].to_pylist() for name in ("index", "predicted")), strict=True)
    predicted = {index: count for index, count in counts if count}
    groups = choose(job.maximised, means, predicted)
    if not predicted and any(asked.strongest and asked.layer == OUTPUT for asked in job.maximised):
        watch.say("no class is predicted in this set, so there is no strongest one to maximise")
    missing = folder.missing_maximised(len(groups))
    maximise_groups(job.make_pictures, groups, missing, folder.write_maximised, watch)
    return time.perf_counter() - begun


def _masks(image_set: ImageSet, watch: Watch) -> Callable[[Row], NDArray[np.bool_] | None]:
    """Return what reads an image's mask, and says which cannot be read."""

    def read(row: Row) -> NDArray[np.bool_] | None:
        if row.mask is None:
            return None
        try:
            return image_set.read_mask(row.mask)
        except ImageError as error:
            watch.say(f"the mask {row.mask!r} of {row.path!r} is left out: {error}")
            return None

    return read


def sheet(kernels: Kernels) -> KernelSheet:
    """Draw the kernels of a layer for the run folder."""
    picture, shown = kernel_sheet(kernels.values)
    return KernelSheet(kernels.name, kernels.type, kernels.values, encode_png(picture), shown)
