"""What a run would cost, and what layers a model has; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from exporter.console import duration, size
from exporter.engines import Job
from exporter.errors import LayerError
from exporter.explain import compute, launch, load
from exporter.layers import choose_layers, count_layers, layer_table, try_images
from exporter.maps import Method, count_forwards, lightest
from exporter.maximise import describe_wanted, estimate_maximised
from exporter.models import float_type, resolve
from exporter.records import ImageEntry, Row
from exporter.writers.wandb.artifacts import fetch_checkpoint, is_artifact

TOGETHER = 4
"""Images of the batch that is timed at most."""


def describe_run(job: Job) -> Iterator[tuple[str, str]]:
    """Say what a run does and what it costs, a line each: what it is about, and the rest.

    A batch of a few images is computed a few times, with few of the passes that a method runs by
    itself, which are then counted; of each request for maximised pictures a few steps are made.

    Raises:
        ExporterError: if the model or a method fails on the batch.
    """
    plan, config = job.plan, job.recipe.config
    broken = sum(entry.error is not None for entry in plan.images)
    unread = f", {broken} cannot be read" if broken else ""
    yield "images", f"{len(plan.images)} of {plan.image_set} ({job.image_set.kind}){unread}"
    cut = f"{len(plan.shards)} of up to {config.shard_size}"
    yield "shards", f"{cut}, batches of {job.batch_size}"
    yield "model", f"{plan.model.title}, {plan.model.parameters:,} parameters, on {job.device}"
    yield "layers", f"{', '.join(plan.explained)} ({plan.layer_reason})"
    for number, sentence in enumerate(job.explainer(job.module).passes, 1):
        yield f"pass {number}", sentence
    for wanted in job.maximised:
        yield "maximise", describe_wanted(wanted)
    if job.sanity is not None:
        yield "sanity", f"all methods again after randomising {', then '.join(job.sanity.stages)}"
    # Faithfulness takes dozens of forward passes per image and method.
    together = 1 if job.metrics else min(job.batch_size, TOGETHER)
    entries = [entry for entry in plan.images if entry.error is None][:together]
    share = len(plan.images) / max(1, len(entries))
    seconds, rows = _timed(replace(job, sanity=None), entries)
    # The methods run once more on the trained model, and after each step.
    seconds *= share * (1 if job.sanity is None else 2 + len(job.sanity.stages))
    yield "time", f"about {duration(seconds)} to compute, estimated from a batch of {len(entries)}"
    if job.maximised:
        seconds = estimate_maximised(job.make_pictures, job.maximised)
        yield "", f"and about {duration(seconds)} to maximise, estimated from a few steps"
    stored = 0
    for row in rows:
        kept = (*(m.values for m in row.maps), *(a.values for a in row.activations))
        stored += len(row.image or b"") + sum(map(len, kept))
    yield "disk", f"about {size(int(stored * share))} for the shards"
    if plan.label_match:
        yield "labels", plan.label_match
    for note in plan.notes:
        yield "note", note


def _timed(job: Job, entries: Sequence[ImageEntry]) -> tuple[float, Sequence[Row]]:
    """Return how many seconds a batch takes, and its rows; of what is repeated, a part is timed."""
    loaded = load(job, entries)
    light = tuple(map(lightest, job.methods))
    for _ in range(2):  # the first is slower than those that follow
        begun = time.perf_counter()
        rows = compute(job, job.build_explainer(job.module, methods=light), loaded).rows
        seconds = time.perf_counter() - begun

    def alone(*methods: Method) -> float:
        explainer, times = job.build_explainer(job.module, methods=methods), []
        for _ in range(2):
            begun = time.perf_counter()
            for part in launch(job, explainer, loaded).parts:
                part.to_host()
            times.append(time.perf_counter() - begun)
        return min(times)

    layouts, view = job.plan.layouts, job.plan.model.preprocessing.size
    channels = [layouts[name].channels for name in job.plan.layers_of_the_model if name in layouts]
    repeated = [(m, few) for m, few in zip(job.methods, light, strict=True) if few is not m]
    plain = alone() if repeated else 0.0
    for method, few in repeated:
        whole, part = (count_forwards(each, channels, view) for each in (method, few))
        seconds += max(0.0, alone(few) - plain) * (whole / max(1, part) - 1)
    return seconds, rows


def describe_layers(
    spec: str, *, weights: str = "none", checkpoint: Path | None = None
) -> dict[str, Any]:
    """Describe a model's layers without running a job.

    Returns:
        JSON values: ``model``, ``layers`` (a dict per layer, in the model's order), ``counts``,
        ``explained`` (the layers explained by default) and ``reason``.

    Raises:
        ModelError: if the model cannot be resolved.
    """
    if is_artifact(checkpoint):
        _, checkpoint = fetch_checkpoint(str(checkpoint))
    resolved = resolve(spec, weights=weights, checkpoint=checkpoint)
    preprocessing = resolved.record.preprocessing
    shape = (1, preprocessing.channels, *preprocessing.size)
    dtype, chance = float_type(resolved.module), torch.Generator().manual_seed(0)
    # Of an image of zeros no gradient comes back through a ReLU.
    noise = (torch.randn(shape, generator=chance).to(dtype) for _ in count())
    trial = try_images(resolved.module, noise, ("auto",))
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
