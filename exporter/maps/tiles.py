"""All methods of one layer together, tile by tile.

Method by method, every one of them would walk through tensors larger than the processor's cache.
On the CPU the layer is therefore cut into tiles of images and channels that fit: every method takes
its share of a tile while it is there, and the `Terms` of a tile are computed once. On any other
device the one tile is the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from exporter.errors import MapError
from exporter.maps.registry import Method
from exporter.maps.terms import Terms

TILE_ELEMENTS = 1 << 20
"""Elements of a tile: 4 MiB of float32. Half as many were slower, twice as many no faster."""

Tile = tuple[slice, slice]
"""Which images, and which channels."""


def channel_maps(
    methods: Sequence[Method],
    activations: Tensor,
    gradients: Tensor | None = None,
    classifier: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute every method asked for at one layer.

    Contiguous and channels_last tensors are read as they lie. Half-precision tensors are computed
    in float32. Nothing waits for the device.

    Args:
        methods: from `get_methods`.
        activations: A (N, C, H, W).
        gradients: ∂S/∂A (N, C, H, W), needed by some methods.
        classifier: the target's rows of the linear layer (N, C), needed by ``cam``.

    Returns:
        Raw, signed maps (N, H, W) by method name, in the order asked for, float32 (float64 from
        float64 activations), on the activations' device.

    Raises:
        MapError: if the activations are not (N, C, H, W), or a method lacks what it needs.
    """
    _check(methods, activations, gradients, classifier)
    device = activations.device.type
    known = torch.amp.is_autocast_available(device)
    with torch.no_grad(), torch.autocast(device if known else "cpu", enabled=False):
        layer = (activations, gradients, classifier)
        maps: dict[str, Tensor] = {}
        for whole in (False, True):
            alike = [method for method in methods if method.channelwise != whole]
            maps |= _compute(alike, *layer, whole=whole) if alike else {}
    return {method.name: maps[method.name] for method in methods}


def _check(
    methods: Sequence[Method],
    activations: Tensor,
    gradients: Tensor | None,
    classifier: Tensor | None,
) -> None:
    shape = tuple(activations.shape)
    if len(shape) != 4:
        raise MapError(f"a map needs activations of shape (N, C, H, W), not {shape}")
    for method in methods:
        if method.kind == "pass":
            raise MapError(
                f"{method.name} runs the model itself; it is no function of activations alone"
            )
        for needed, tensor, right, word in (
            (method.needs.gradients, gradients, shape, "gradients"),
            (method.needs.classifier, classifier, shape[:2], "a linear classifier's rows"),
        ):
            if needed and (tensor is None or tuple(tensor.shape) != right):
                given = "none were given" if tensor is None else f"not {tuple(tensor.shape)}"
                raise MapError(f"{method.name} needs {word} of shape {right}; {given}")


def _compute(
    methods: Sequence[Method],
    activations: Tensor,
    gradients: Tensor | None,
    classifier: Tensor | None,
    *,
    whole: bool,
) -> dict[str, Tensor]:
    """Add up the maps of all tiles; with ``whole`` a tile has all channels of its images."""
    number, _, height, width = activations.shape
    dtype = torch.float64 if activations.dtype == torch.float64 else torch.float32
    summed = [method for method in methods if method.kind == "map"]
    weighted = [method for method in methods if method.kind == "weights"]
    totals = activations.new_zeros((len(summed), number, height, width), dtype=dtype)
    products = activations.new_zeros((number, len(weighted), height * width), dtype=dtype)
    for images, channels in _tiles(activations, whole):
        here = (images, channels)
        terms = Terms(
            activations[here].to(dtype),
            None if gradients is None else gradients[here].to(dtype),
            None if classifier is None else classifier[here].to(dtype),
        )
        for total, method in zip(totals, summed, strict=True):
            total[images] += method(terms)
        if weighted:
            rows = torch.stack([method(terms) for method in weighted], 1)
            products[images].baddbmm_(rows, terms.A.flatten(2))
    maps = {method.name: total for method, total in zip(summed, totals, strict=True)}
    for method, product in zip(weighted, products.unbind(1), strict=True):
        maps[method.name] = product.view(number, height, width)
    return maps


def _tiles(activations: Tensor, whole: bool) -> Iterator[Tile]:
    number, channels, height, width = activations.shape
    positions = max(1, height * width)
    depth, count = max(1, channels), max(1, number)
    if activations.device.type == "cpu":
        count = max(1, TILE_ELEMENTS // (positions * depth))
        depth = depth if whole else max(1, min(depth, TILE_ELEMENTS // positions))
    for image in range(0, number, count):
        for channel in range(0, channels, depth):
            yield slice(image, image + count), slice(channel, channel + depth)
