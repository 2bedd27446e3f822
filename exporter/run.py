"""The chain: from a model and an image set to a run folder and its writers.

This module and its head, `exporter.planning`, are the only ones that know every stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.config import RunConfig, build_config
from exporter.engines import Job, compute_shards
from exporter.engines.rows import Computed, compute, load
from exporter.errors import ImageError, LayerError, WriterError
from exporter.images import ImageSet
from exporter.layers import Kernels, choose_layers, count_layers, layer_table, run_trial
from exporter.maximise import choose, estimate_maximised, maximise_groups
from exporter.models import resolve
from exporter.planning import float_type, plan_job
from exporter.records import OUTPUT, Row, Written
from exporter.render import encode_png, kernel_sheet
from exporter.store import KernelSheet, Run, RunFolder, create_run, open_run, refuse_taken
from exporter.summaries import (
    FAITHFULNESS,
    PARTS,
    Scope,
    channel_table,
    faithfulness_table,
    merge_channels,
    merge_faithfulness,
    merge_set,
    shard_parts,
)
from exporter.watch import Silence, Watch
from exporter.writers.writing import write_all


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        run: the run folder, open for reading.
        written: what each writer made.
        failed: (writer, reason) of each that could not be written; the run itself is whole.
        seconds: wall-clock seconds a stage.
    """

    run: Run
    written: tuple[Written, ...]
    failed: tuple[tuple[str, str], ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each image that could not be read."""
        return self.run.totals.skipped if self.run.totals else ()


def export(
    model: str | nn.Module,
    images: object,
    *,
    out: str | Path,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    **settings: Any,
) -> Run:
    """Run a model over an image set and write every sink.

    Args:
        model: a model spec, or a module; a module's mode, gradients, hooks and device are left as
            found.
        images: a folder, glob, list or ``module:factory``; or a sequence of paths, or a torch
            Dataset.
        out: the run folder.
        config: a TOML file of settings; ``settings`` win over it.
        resume: go on with a run that was interrupted.
        overwrite: replace a run that is there.
        watch: told how the work goes on.
        **settings: any field of ``RunConfig``, such as ``maps``, ``layers``, ``target``,
            ``writers``, ``keep``.

    Returns:
        The run, open for reading.

    Raises:
        ExporterError: if something asked for cannot be had; one sentence.
        WriterError: if a sink could not be written; the run itself is whole.
    """
    module = model if isinstance(model, nn.Module) else None
    told = images if isinstance(images, str | Path) else None
    checked = build_config(
        config,
        model=type(model).__name__ if isinstance(model, nn.Module) else model,
        images=str(told) if told is not None else type(images).__name__,
        out=Path(out),
        **settings,
    )
    outcome = run(
        checked,
        module=module,
        source=images if told is None else None,
        resume=resume,
        overwrite=overwrite,
        watch=watch,
        command="exporter.export(…)",
    )
    if outcome.failed:
        name, reason = outcome.failed[0]
        raise WriterError(f"the writer {name!r} failed, the run in {str(out)!r} is whole: {reason}")
    return outcome.run


def run(
    config: RunConfig,
    *,
    module: nn.Module | None = None,
    source: object = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    command: str = "",
) -> Outcome:
    """Do the whole job: plan, compute every missing shard, merge, write every sink.

    Args:
        config: the settings.
        module: the model itself, where it was handed over in Python.
        source: the images themselves, where they were handed over in Python.
        resume: go on with a run that was interrupted.
        overwrite: replace a run that is there.
        watch: told how the work goes on.
        command: what the report says was run.

    Returns:
        The run and what was written.

    Raises:
        ExporterError: if something asked for cannot be had.
        KeyboardInterrupt: if interrupted; what is done stays and ``resume`` goes on from it.
    """
    watch = watch or Silence()
    refuse_taken(config.out, overwrite=overwrite, resume=resume)
    clock = _Clock()
    with plan_job(config, module=module, source=source, watch=watch, command=command) as job:
        clock.lap("plan")
        images = job.image_set
        watch.say(f"images: {len(images.entries):,} of {images.where!r} ({images.kind})")
        parts = (*PARTS, FAITHFULNESS) if job.faithfulness else PARTS
        folder = create_run(config.out, job.plan, overwrite=overwrite, resume=resume, parts=parts)
        scope = Scope.of(folder.plan)
        with folder:
            _compute(job, folder, scope, watch)
            seconds = clock.lap("compute")
            if not (folder.path / "run.json").exists():
                channels = merge_channels(folder.summaries()) if job.plan.recorded else None
                merged = merge_set(folder.summaries, scope)
                seconds += _maximise(job, folder, channels, merged.tables["classes"], watch)
                measured = {}
                if job.faithfulness:
                    measured[FAITHFULNESS] = merge_faithfulness(
                        folder.summaries(FAITHFULNESS), scope
                    )
                folder.write_set(merged.tables | measured, merged.summary)
                folder.finish(seconds, channels)
    opened = open_run(config.out)
    written, failed = write_all(opened, config, watch)
    clock.lap("write")
    return Outcome(opened, written, failed, clock.laps)


def _compute(job: Job, folder: RunFolder, scope: Scope, watch: Watch) -> None:
    missing = folder.missing()
    done = len(job.plan.images) - sum(
        stop - start for start, stop in (job.plan.shards[index] for index in missing)
    )
    if done:
        watch.say(f"resuming: {done} of {len(job.plan.images)} images are already there")
    if missing or not (folder.path / "kernels").exists():
        folder.write_kernels([_sheet(kernels) for kernels in job.kernels])
    masks = _masks(job.image_set, watch)
    watch.begin("computing maps", len(job.plan.images) - done)

    def store(index: int, parts: list[Computed]) -> None:
        channels = [batch for part in parts for batch in part.channels]
        rows = [row for part in parts for row in part.rows]
        if job.plan.recorded:
            folder.write_summary(index, channel_table(channels))
        for name, table in shard_parts(rows, channels, scope, masks).items():
            folder.write_summary(index, table, name)
        if job.faithfulness:
            measured = [one for part in parts for one in part.faithfulness]
            folder.write_summary(index, faithfulness_table(measured), FAITHFULNESS)
        folder.write_shard(index, rows)

    compute_shards(job, missing, store, watch)


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
    clock = _Clock()
    means: dict[str, dict[int, float]] = {}
    known = () if channels is None else channels.select(["layer", "channel", "mean"]).to_pylist()
    for row in known:
        means.setdefault(row["layer"], {})[row["channel"]] = row["mean"]
    counts = zip(*(classes[name].to_pylist() for name in ("index", "predicted")), strict=True)
    predicted = {index: count for index, count in counts if count}
    groups = choose(job.maximised, means, predicted)
    if not predicted and any(one.strongest and one.layer == OUTPUT for one in job.maximised):
        watch.say("no class is predicted here, so none of the strongest of the output is maximised")
    missing = folder.missing_maximised(len(groups))
    maximise_groups(job, groups, missing, folder.write_maximised, watch)
    return clock.lap("maximise")


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


def _sheet(kernels: Kernels) -> KernelSheet:
    picture, shown = kernel_sheet(kernels.values)
    return KernelSheet(kernels.name, kernels.type, kernels.values, encode_png(picture), shown)


@dataclass(frozen=True)
class Estimate:
    """What a run would cost, from one batch.

    Attributes:
        images: images in the set.
        batch: images in the trial batch.
        seconds: seconds the computing would take, without the writers.
        store_bytes: bytes the shards would take.
        maximise_seconds: seconds the maximised pictures would take; 0 where none is asked for.
    """

    images: int
    batch: int
    seconds: float
    store_bytes: int
    maximise_seconds: float = 0.0


def estimate(job: Job) -> Estimate:
    """Compute one batch twice, the second time against the clock, and write nothing.

    Of each request for maximised pictures, a few steps are made.

    Raises:
        ExporterError: if the model or a method fails on the batch.
    """
    entries = job.plan.images[: job.batch_size]
    explainer = job.explainer(job.module)
    compute(job, explainer, load(job, entries))
    start = time.perf_counter()
    computed = compute(job, explainer, load(job, entries))
    seconds = time.perf_counter() - start
    size = sum(
        len(row.image or b"")
        + sum(len(stored.values) for stored in row.maps)
        + sum(len(stored.values) for stored in row.activations)
        for row in computed.rows
    )
    share = len(job.plan.images) / len(entries)
    return Estimate(
        images=len(job.plan.images),
        batch=len(entries),
        seconds=seconds * share,
        store_bytes=int(size * share),
        maximise_seconds=estimate_maximised(job),
    )


def describe_layers(
    spec: str, *, weights: str = "none", checkpoint: Path | None = None
) -> dict[str, Any]:
    """Describe a model's layers without running a job.

    Args:
        spec: the model spec.
        weights: name of the weights; shapes and counts need none.
        checkpoint: weights to lay over it.

    Returns:
        JSON values: ``model``, ``layers`` (a dict a layer, in the model's order), ``counts``,
        ``explained`` (the layers explained by default) and ``reason``.

    Raises:
        ModelError: if the model cannot be resolved.
    """
    resolved = resolve(spec, weights=weights, checkpoint=checkpoint)
    preprocessing = resolved.record.preprocessing
    example = torch.zeros(
        1, preprocessing.channels, *preprocessing.size, dtype=float_type(resolved.module)
    )
    trial = run_trial(resolved.module, example)
    table = layer_table(trial)
    try:
        chosen = choose_layers(trial, ("auto",))
        explained, reason = chosen.names, chosen.reason
    except LayerError as error:
        explained, reason = (), str(error)
    return {
        "model": resolved.record.name,
        "layers": [asdict(layer) for layer in table],
        "counts": dict(count_layers(table)),
        "explained": list(explained),
        "reason": reason,
    }


class _Clock:
    """Wall-clock seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> float:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
        return self.laps[name]
