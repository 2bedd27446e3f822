"""What makes a run faster and is settled by trying, before the first batch.

The number format, the number of images per batch, whether the model can be compiled, and whether
replicas give its bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from exporter.capture import FLOAT32, Precision, held_in, in_full_float32, run_in
from exporter.engines.job import Job
from exporter.engines.replicas import with_replicas
from exporter.errors import ConfigError, ExporterError, ModelError, one_line
from exporter.explain import Computed, launch, lay_masks, load, rows, transfer_for
from exporter.guard import is_shortage
from exporter.maps import get_methods
from exporter.memory import free_memory, peak_memory
from exporter.records import Plan, PrecisionRecord, Prepared, StoredMap

_IMAGES = 4
"""First images that are explained in both formats."""

_HEADROOM = 4.0
"""By how much the gradients of other images may be larger."""

_ROUNDING = 1e-4
"""By how much float32 may differ in a compiled model, in shares of the largest value."""

_MOST = 512
"""Images per batch that are tried at most."""
_MOST_ON_CPU = 32
"""Likewise on a CPU, where larger batches are no faster (docs/speed.md)."""


@contextmanager
def tuned(job: Job, planned: Plan | None) -> Iterator[Job]:
    """Settle everything, and hold the model in its format meanwhile.

    Raises:
        ExporterError: if what is asked for does not fit the model or the device.
    """
    if job.recipe.config.compile:
        _refuse_uncompilable(job)
    with in_precision(job, planned) as lowered:
        settled = compiled(with_batch_size(lowered))
        if planned is None:
            settled = with_replicas(settled)
        yield replace(settled, transfer=transfer_for(job.device))


@contextmanager
def in_precision(job: Job, planned: Plan | None) -> Iterator[Job]:
    """Run the model in another number format from here on, and say what that changes.

    The first images are explained in float32 and in the format. In float16 gradients are scaled,
    by as much as these images allow, or as they were when the run was planned.

    Raises:
        ModelError: if the model or its maps overflow in the format.
    """
    name = job.recipe.config.precision
    if name == "float32":
        yield job
        return
    record = planned.precision if planned is not None else None
    record = record or _measured(job, name)
    plan = replace(
        job.plan,
        precision=record,
        notes=(*job.plan.notes, record.sentence),
    )
    with run_in(job.module, Precision(name, record.scale)):
        yield replace(job, plan=plan)


def _measured(job: Job, name: str) -> PrecisionRecord:
    exact = _first_rows(job)
    for precision in Precision.candidates(name):
        with run_in(job.module, precision):
            lowered = _first_rows(job)
        if _finite(lowered) or not _finite(exact):
            return compared(exact, lowered, Precision(name, max(1.0, precision.scale / _HEADROOM)))
    raise ModelError(
        f"in {name} the model's output or its maps are not numbers for the first images, and in "
        "float32 they are; give --precision bf16 or float32"
    )


def compared(exact: Computed, lowered: Computed, precision: Precision) -> PrecisionRecord:
    """Say how far rows are from those of float32."""
    changes: dict[str, float] = {}
    scores, other = 0.0, 0
    pairs = [(a, b) for a, b in zip(exact.rows, lowered.rows, strict=True) if a.predictions]
    for before, after in pairs:
        known = {each.index: each.score for each in before.predictions}
        shared = [abs(known[p.index] - p.score) for p in after.predictions if p.index in known]
        scores = max(scores, *shared, 0.0)
        other += [p.index for p in before.predictions[:1]] != [
            p.index for p in after.predictions[:1]
        ]
        there = {_name(each): each for each in after.maps}
        for stored in before.maps:
            again = there.get(_name(stored))
            spread = stored.hi - stored.lo
            if again is None or not spread > 0:
                continue  # another class is explained, or nothing is shown
            where = f"{stored.method} at {stored.layer or 'the input'}"
            change = float(np.abs(stored.array() - again.array()).mean() / spread)
            changes[where] = max(change, changes.get(where, 0.0))
    worst = max(changes, key=lambda where: changes[where], default="")
    return PrecisionRecord(
        name=precision.name,
        scale=precision.scale,
        images=len(pairs),
        median=float(np.median(list(changes.values()))) if changes else 0.0,
        largest=changes.get(worst, 0.0),
        where=worst,
        scores=scores,
        other_class=other,
    )


def _name(stored: StoredMap) -> tuple[str, str, str]:
    return stored.method, stored.layer, stored.target


def _first_rows(job: Job) -> Computed:
    entries = [entry for entry in job.plan.images if entry.error is None][:_IMAGES]
    return rows(job, launch(job, job.explainer(job.module), load(job, entries)))


def _finite(computed: Computed) -> bool:
    return all(
        row.error is None and np.isfinite([(m.lo, m.hi) for m in row.maps]).all()
        for row in computed.rows
    )


def with_batch_size(job: Job) -> Job:
    """Settle how many images go through the model together, where that is ``auto``.

    Batches of the first image are explained, twice as many each time, until they do not fit. On a
    CPU, where a process that takes too much is killed, larger batches are not tried once they would
    take half of the memory that is free, as the growth so far tells.

    Raises:
        ConfigError: if the model's output for an image depends on the others in its batch.
    """
    config, plan = job.recipe.config, job.plan
    if config.batch_size != "auto":
        return job
    if plan.depends_on_batch:
        raise ConfigError(
            "the model's output for an image depends on the others in its batch, so the batch size "
            "decides what the maps are: give --batch-size a number"
        )
    size, why = _largest(job)
    recipe = replace(job.recipe, config=config.model_copy(update={"batch_size": size}))
    settled = replace(
        plan,
        settings={**plan.settings, "batch_size": size},
        notes=(*plan.notes, f"the batch size {size} was found by trying: {why}"),
    )
    return replace(job, recipe=recipe, plan=settled)


def _largest(job: Job) -> tuple[int, str]:
    """Return the largest batch that fits, a power of two, and why there is no larger one."""
    on_cpu, explainer = job.device.type == "cpu", job.explainer(job.module)
    shard = max(stop - start for start, stop in job.plan.shards)
    most = _MOST_ON_CPU if on_cpu else _MOST
    free, before = free_memory(), peak_memory()
    image = job.image_set.load_first(job.plan.model.preprocessing)
    size, tried = 0, 1
    while True:
        try:
            explainer(*_batch_of(job, [image] * tried)).to_host()
        except Exception as error:
            if not size or not is_shortage(error):
                raise
            return size, f"{tried} do not fit into the memory of {str(job.device)!r}"
        size, tried = tried, tried * 2
        if size >= shard:
            return size, "no shard has more"
        if size >= most:
            return size, "more were not tried"
        grown = (peak_memory() or 0) - (before or 0)
        if not on_cpu:
            continue
        if free is None:
            return size, "this system does not say how much memory is free"
        if 2 * grown > free / 2:
            return (
                size,
                f"{tried} would take more than half of the {free / 1e9:.1f} GB that are free",
            )


def _batch_of(job: Job, images: Sequence[Prepared]) -> tuple[Tensor, ...]:
    """Lay out images as a batch: inputs, labels that are not known, masks if the target's count."""
    labels = torch.full((len(images),), -1, device=job.device)
    masks = (lay_masks([None] * len(images), job),) if job.masks else ()
    return job.inputs(images), labels, *masks


def compiled(job: Job) -> Job:
    """Compile the shared pass, where that is asked for, and hold it against the plain one.

    Raises:
        ConfigError: if torch.compile cannot compile the model, or makes another one of it.
    """
    if not job.recipe.config.compile:
        return job
    size = job.batch_size
    quick = cache(lambda module: job.explainer(module).compiled(size))
    plain, image = job.explainer(job.module), job.image_set.load_first(job.plan.model.preprocessing)
    batch = _batch_of(job, [image] * min(2, size))  # a short one, as the last may be
    as_it_is = plain.explain(*batch).captured
    with held_in(job.module, FLOAT32), in_full_float32():
        exact = plain.explain(*batch).captured
    try:
        again = quick(job.module).explain(*batch).captured
    except ExporterError:
        raise
    except Exception as error:
        if is_shortage(error):
            raise
        raise ConfigError(
            f"the model cannot be compiled: {one_line(error)}; leave out --compile"
        ) from error
    for part in ("activations", "gradients"):
        if not _as_near(*(getattr(captured, part) for captured in (again, as_it_is, exact))):
            raise ConfigError(
                f"the compiled model has {part} that differ from the model's own; leave out "
                "--compile"
            )
    return replace(job, explainer=quick)


def _as_near(
    tensors: Mapping[str, Tensor], others: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> bool:
    """Say whether tensors are as near to float32 as others: fused operations round otherwise."""
    if not tensors.keys() == others.keys() == exact.keys():
        return False
    for name, values in exact.items():
        near, far = ((each[name].float() - values).abs().max() for each in (tensors, others))
        if not near <= 2 * far + _ROUNDING * values.abs().max():
            return False
    return True


def _refuse_uncompilable(job: Job) -> None:
    """Refuse what no compiler is needed to see, before anything is tried.

    Raises:
        ConfigError: if a method runs the model itself, or an image's numbers are not its own.
    """
    findings = job.plan.findings
    own = [method.name for method in get_methods(job.recipe.config.maps) if method.kind == "pass"]
    if own:
        raise ConfigError(
            f"{', '.join(own)} {'run' if own[1:] else 'runs'} the model in a way that a compiled "
            "model does not support; leave out these maps, or --compile"
        )
    if job.plan.depends_on_batch or (findings and not findings.steady):
        raise ConfigError(
            "the model draws random numbers, or its output for an image depends on the others in "
            "its batch, so a compiled model would give other maps; leave out --compile"
        )
