"""Methods that run what follows a layer again, written as loops over the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.parity.taking import Array, Shown, array


def scorecam(shown: Shown, layer: str) -> Array:
    """Wang et al. 2020, equations 6 to 9, the softmax over the logits less that of black."""
    activation = shown.activation(layer)
    scores = []
    with torch.no_grad():
        black = shown.model(torch.zeros_like(shown.image))[0, shown.target]
        for channel in activation:
            grown = functional.interpolate(
                channel[None, None], shown.image.shape[2:], mode="bilinear", align_corners=False
            )
            low, high = grown.min(), grown.max()
            mask = (grown - low) / (high - low) if high > low else torch.zeros_like(grown)
            scores.append(float(shown.model(shown.image * mask)[0, shown.target] - black))
    powers = np.exp(np.array(scores) - max(scores))
    return _weighted(powers / powers.sum(), array(activation))


def ablationcam(shown: Shown, layer: str) -> Array:
    """Ramaswamy and Desai 2020, equation 4: one channel after the other set to zero."""
    activation, rest = shown.activation(layer), shown.rest(layer)
    drops = []
    with torch.no_grad():
        whole = float(shown.model(shown.image)[0, shown.target])
        for number in range(len(activation)):
            without = activation.clone()
            without[number] = 0
            drops.append((whole - float(rest(without)[shown.target])) / whole)
    return _weighted(drops, array(activation))


def finercam(shown: Shown, layer: str, classes: int = 3) -> Array:
    """Zhang et al. 2025: the mean over the nearest classes d of the Grad-CAM of y_t − y_d."""
    start = shown.activation(layer).clone().requires_grad_()
    logits = shown.rest(layer)(start)
    values = logits.detach().double()
    order = torch.argsort((values - values[shown.target]).abs(), stable=True).tolist()
    near = [other for other in order if other != shown.target][:classes]
    activation = array(start)
    maps = []
    for other in near:
        (steep,) = torch.autograd.grad(
            logits[shown.target] - logits[other], start, retain_graph=True
        )
        maps.append(_weighted([one.mean() for one in array(steep)], activation))
    return np.asarray(np.mean(maps, axis=0))


def shapleycam(shown: Shown, layer: str) -> Array:
    """Cai 2025: the Grad-CAM of g − ½ ℋA, the product with the Hessian from torch's own function.

    The Hessian is that of the places of the plane: a ViT's other tokens are held.
    """
    activation, rest = shown.activation(layer), shown.rest(layer)

    def score(at: Tensor) -> Tensor:
        return rest(at)[shown.target]

    twice: Any = torch.autograd.functional
    with sdpa_kernel(SDPBackend.MATH), written_out():  # Fused, there is no second derivative.
        steep = twice.vjp(score, activation)[1]
        product = twice.vhp(score, activation, activation)[1]
    corrected = array(steep) - array(product) / 2
    return _weighted([one.mean() for one in corrected], array(activation))


@contextmanager
def written_out() -> Iterator[None]:
    """Write hardsigmoid as a clamp: torch has no second derivative of it."""
    torch_functions: Any = functional
    kept = functional.hardsigmoid
    torch_functions.hardsigmoid = lambda x, *_: (x / 6 + 0.5).clamp(0, 1)
    try:
        yield
    finally:
        torch_functions.hardsigmoid = kept


def occlusion(shown: Shown, window: int = 16, stride: int = 8) -> Array:
    """Zeiler and Fergus 2014, section 4.2: the mean fall over the windows that cover a pixel."""
    height, width = shown.image.shape[2:]
    falls, covers = np.zeros((1, height, width)), np.zeros((height, width))
    with torch.no_grad():
        whole = float(shown.model(shown.image)[0, shown.target])
        for top in range(0, height - window + 1, stride):
            for left in range(0, width - window + 1, stride):
                covered = shown.image.clone()
                covered[:, :, top : top + window, left : left + window] = 0
                fall = whole - float(shown.model(covered)[0, shown.target])
                falls[:, top : top + window, left : left + window] += fall
                covers[top : top + window, left : left + window] += 1
    return falls / covers


def rise(shown: Shown, samples: int = 9, cells: int = 3, p: float = 0.5) -> Array:
    """Petsiuk et al. 2018, equation 6; masks are drawn from seed 0, each grid before its shift."""
    chance = np.random.default_rng(0)
    sides = shown.image.shape[2:]
    steps = [-(-side // cells) for side in sides]
    total = np.zeros((1, *sides))
    for _ in range(samples):
        grid = (chance.random((cells, cells)) < p).astype(np.float64)
        shifts = [int(chance.integers(step)) for step in steps]
        rows, columns = (
            _hats(cells, (cells + 1) * step)[shift : shift + side]
            for step, shift, side in zip(steps, shifts, sides, strict=True)
        )
        mask = rows @ grid @ columns.T
        with torch.no_grad():
            score = shown.model(shown.image * torch.from_numpy(mask))[0, shown.target]
        total += float(score) * mask
    mean: Array = total / (samples * p)
    return mean


def _hats(few: int, many: int) -> Array:
    """Return how much each of few values has of each of many between them, (many, few)."""
    places = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
    return np.asarray(np.maximum(1 - np.abs(places[:, None] - np.arange(few)), 0), dtype=np.float64)


def _weighted(weights: object, activation: Array) -> Array:
    """Return Σ_c w_c A_c of weights (C,) and activations (C, h, w)."""
    total = np.zeros(activation.shape[1:])
    for weight, channel in zip(np.asarray(weights, dtype=np.float64), activation, strict=True):
        total += weight * channel
    return total


LAYERED: Mapping[str, Callable[[Shown, str], Array]] = {
    "scorecam": scorecam,
    "ablationcam": ablationcam,
    "finercam": finercam,
    "shapleycam": shapleycam,
}
"""By method, its map (h, w) at a layer."""
