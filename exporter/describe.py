"""What a run would cost, and what layers a model has; nothing is written."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from exporter.engines import Job
from exporter.errors import LayerError
from exporter.explain import compute, load
from exporter.layers import choose_layers, count_layers, layer_table, run_trial
from exporter.maximise import estimate_maximised
from exporter.models import float_type, resolve


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
        maximise_seconds=estimate_maximised(job.make_pictures, job.maximised),
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
        JSON values: ``model``, ``layers`` (a dict per layer, in the model's order), ``counts``,
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
