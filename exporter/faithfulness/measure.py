"""How faithful maps are to the model, by running it on variants of each image.

An image is measured alone, its variants in batches of one size, and its noise is drawn from the
run's seed and its contents: so a value does not depend on the images that came with it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporter.faithfulness.metrics import STEPS
from exporter.faithfulness.registry import Metric, RankedImage
from exporter.guard import user_code
from exporter.memory import in_halves
from exporter.records import Faithfulness, OtherMetric, Plan, Row, parse_target

_VARIANTS_PER_PASS = STEPS + 1

_BUILT_IN = ("deletion", "insertion", "road")


Probability = Callable[[Tensor, int], Tensor]
"""From inputs (V, C, H, W) and a class to its probability (V,)."""


def measure(
    plan: Plan,
    rows: Sequence[Row],
    inputs: Callable[[int], Tensor],
    probability: Probability,
    metrics: Sequence[Metric],
) -> Iterator[Faithfulness]:
    """Measure the maps of a batch at the deepest explained layer, of each image's first target.

    Args:
        plan: the run's plan.
        rows: the images that were explained, with their maps.
        inputs: gives the input of row n, (1, C, H, W), on the device.
        probability: of a class, by the model; called where the plan says that it gives some.
        metrics: what is measured (see `load_metrics`).

    Yields:
        One for each image and method; without values where the output has no probabilities of
        classes, or the map ranks no pixels (it has one value everywhere, or one that is no number).

    Raises:
        ModelError: if the model or a metric fails on an image.
    """
    rectified = {method.name for method in plan.methods if method.relu}
    layer = plan.deepest or None
    probable = plan.model.scores == "probability" and plan.model.outputs > 1
    for n, row in enumerate(rows):
        target = row.maps[0].target
        stored = [m for m in row.maps if m.layer == layer and m.target == target]
        unranked = None
        if stored and probable and target.startswith("class:"):
            unranked = _image(plan, row, inputs(n), probability)
        for each in stored:
            values = each.array()
            values = np.maximum(values, 0) if each.method in rectified else values
            scores: dict[str, float | None] = {metric.name: None for metric in metrics}
            if unranked is not None and np.isfinite(values).all() and values.min() < values.max():
                ranked = rank(unranked, values)
                scores = {metric.name: _value(metric, ranked, row) for metric in metrics}
            others = (m for m in metrics if m.name not in _BUILT_IN)
            yield Faithfulness(
                row.id,
                each.method,
                each.layer,
                scores.get("deletion"),
                scores.get("insertion"),
                scores.get("road"),
                tuple(OtherMetric(m.name, m.about, scores[m.name]) for m in others),
            )


def _image(plan: Plan, row: Row, inputs: Tensor, probability: Probability) -> RankedImage:
    """Return an image that no map has ranked yet."""
    index = parse_target(row.maps[0].target, ()).index or 0
    channels_last = inputs.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def of_variants(variants: Tensor) -> Tensor:
        def of_some(some: slice) -> Tensor:
            # A copy: a model may write into its input. The host, for not every device has float64.
            given = variants[some].to(inputs.dtype, memory_format=layout, copy=True)
            return probability(given, index).cpu().double()

        starts = range(0, len(variants), _VARIANTS_PER_PASS)
        sizes = (min(_VARIANTS_PER_PASS, len(variants) - start) for start in starts)
        cut = zip(sizes, starts, strict=True)
        return torch.cat([part for size, start in cut for part in in_halves(of_some, size, start)])

    # In half precision sums over an image overflow.
    image = inputs[0] if inputs.dtype == torch.float64 else inputs[0].float()
    plane = torch.zeros(image.shape[1:], device=image.device)
    name = f"{plan.settings['seed']} {row.key}".encode()
    seed = int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "little")
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(image)
    return RankedImage(image, plane, plane.long(), noise, of_variants)


def rank(image: RankedImage, values: NDArray[np.float32]) -> RankedImage:
    """Return an image with its pixels ranked by a map (h, w)."""
    height, width = image.image.shape[-2:]
    saliency = torch.from_numpy(enlarge(values, height, width)).to(image.image.device)
    return replace(image, saliency=saliency, ranks=ranks(saliency))


def _value(metric: Metric, ranked: RankedImage, row: Row) -> float | None:
    """Return what a metric comes to; None where that is no finite number."""
    advice = "fix it, or leave out --faithfulness"
    memory = (
        f"not even one variant of {row.path!r} fits into the memory of "
        f"{str(ranked.image.device)!r}: free memory and go on with --resume, or leave out "
        "--faithfulness"
    )
    with user_code(f"the metric {metric.name!r}", repr(row.path), advice=advice, memory=memory):
        value = float(metric.compute(ranked))
    return value if math.isfinite(value) else None


def enlarge(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Sample a map bilinearly at pixels (half-pixel centres, edges repeated), (height, width).

    It is computed in float64 and rounded once, so that values which are equal stay equal.
    """
    rows, columns = _weights(values.shape[0], height), _weights(values.shape[1], width)
    return np.asarray(rows @ values.astype(np.float64) @ columns.T, dtype=np.float32)


def _weights(cells: int, pixels: int) -> NDArray[np.float64]:
    centres = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(centres[:, None] - np.arange(cells)))
    return weights


def ranks(values: Tensor) -> Tensor:
    """Return each pixel's rank (H, W), 0 the largest; of equals the first, row by row, leads."""
    order = values.flatten().sort(descending=True, stable=True).indices
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order), device=order.device)
    return numbers.view(values.shape)
