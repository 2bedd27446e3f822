"""How far the layers of the runs have moved: kernels, channels and dead ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.comparison.differences import layers_of
from exporter.comparison.drift import correlations, cosines, linear_cka
from exporter.comparison.joining import Joined
from exporter.comparison.records import ChannelDrift, LayerDrift
from exporter.store import Run, table_records
from exporter.store.layout import summary_file
from exporter.store.tables import read_parquet
from exporter.summaries.sums import ShardSums


class Responses(NamedTuple):
    """The spatial means of sampled images at a layer: (N,) ids and (N, C)."""

    ids: tuple[str, ...]
    means: NDArray[np.float32]


def pooled(run: Run) -> dict[str, Responses]:
    """Return what a run has of its recorded layers: at most 512 images, chosen by their hash."""
    images: dict[str, dict[str, NDArray[np.float32]]] = {}
    for number in run.shards:
        name = summary_file(number, "set")
        if not run.files.exists(name):
            continue
        for shard in table_records(read_parquet(run.files, name, ["pooled"]), ShardSums):
            for part in shard.pooled:
                images.setdefault(part.layer, {})[part.id] = np.frombuffer(part.means, "<f4")
    return {
        layer: Responses(tuple(means), np.stack(list(means.values())))
        for layer, means in images.items()
        if len({len(row) for row in means.values()}) == 1
    }


def drift(
    joined: Joined,
) -> tuple[list[LayerDrift], list[ChannelDrift], dict[str, list[list[float | None]]]]:
    """Compare the layers of every run with the baseline's.

    Returns:
        A row per run and layer, a row per run and channel, and for each stage the CKA of every two
        runs.
    """
    responses = [pooled(run) for run in joined.runs]
    base = joined.baseline
    layers: list[LayerDrift] = []
    channels: list[ChannelDrift] = []
    same_model = len({layers_of(plan) for plan in joined.plans}) == 1
    kernels = [_kernels(run) if same_model else {} for run in joined.runs]
    for run in range(len(joined.runs)):
        dead: dict[str, list[bool]] = {}
        for row in joined.runs[run].channels():
            dead.setdefault(row.layer, []).append(row.dead)
        for layer, other in _pairs(joined, run, kernels[base], same=same_model):
            cosine = response = np.empty(0)
            weights = [own[layer] for own in (kernels[base], kernels[run]) if layer in own]
            if len(weights) == 2 and weights[0].shape == weights[1].shape:
                cosine = cosines(*weights)
            first, second = _both(responses[base].get(layer), responses[run].get(other))
            if same_model and len(first) > 1 and first.shape == second.shape:
                response = correlations(first, second)
            own = dead.get(other)
            layers.append(
                LayerDrift(
                    run=run,
                    layer=layer,
                    other=other,
                    kernels=_mean(cosine),
                    channels=_mean(response),
                    cka=linear_cka(first, second) if len(first) > 1 else None,
                    images=len(first),
                    dead=sum(own) if own else None,
                    of=len(own) if own else None,
                )
            )
            if run != base:
                channels += _channel_rows(run, layer, cosine, response)
    return layers, channels, _matrices(joined, responses)


def _pairs(
    joined: Joined, run: int, kernels: Mapping[str, object], *, same: bool
) -> list[tuple[str, str]]:
    """Return the layers of the baseline that are compared, each with the run's."""
    base = joined.baseline
    if same:
        plan = joined.runs[base].plan
        order = {layer.name: at for at, layer in enumerate(plan.layers)}
        names = dict.fromkeys([*kernels, *plan.recorded])
        return [(n, n) for n in sorted(names, key=lambda name: order.get(name, len(order)))]
    return [
        (first, second)
        for stage in joined.stages
        if (first := stage.layers[base]) and (second := stage.layers[run])
    ]


def _both(
    first: Responses | None, second: Responses | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the responses of the images that both have, those that are not finite left out."""
    if first is None or second is None:
        return np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)
    place = {id: at for at, id in enumerate(second.ids)}
    pairs = [(at, place[id]) for at, id in enumerate(first.ids) if id in place]
    a, b = (r.means[[pair[k] for pair in pairs]] for k, r in enumerate((first, second)))
    good = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    return a[good], b[good]


def _matrices(
    joined: Joined, responses: Sequence[Mapping[str, Responses]]
) -> dict[str, list[list[float | None]]]:
    runs = range(len(joined.runs))
    matrices = {}
    for stage in joined.stages:
        known = [own.get(layer or "") for own, layer in zip(responses, stage.layers, strict=True)]
        if sum(own is not None for own in known) < 2:
            continue
        matrix: list[list[float | None]] = [[None for _ in runs] for _ in runs]
        for a in runs:
            for b in runs[a:]:
                first, second = _both(known[a], known[b])
                cka = linear_cka(first, second) if len(first) > 1 else None
                matrix[a][b] = matrix[b][a] = cka
        matrices[stage.name] = matrix
    return matrices


def _channel_rows(
    run: int, layer: str, cosine: NDArray[np.float64], response: NDArray[np.float64]
) -> list[ChannelDrift]:
    count = max(len(cosine), len(response))
    told = [
        [None if np.isnan(v) else float(v) for v in values] or [None] * count
        for values in (cosine, response)
    ]
    if len(told[0]) != len(told[1]):
        return []
    return [ChannelDrift(run, layer, n, *pair) for n, pair in enumerate(zip(*told, strict=True))]


def _kernels(run: Run) -> dict[str, NDArray[np.float32]]:
    return {record.name: run.kernel_values(record) for record in run.kernels()}


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
