"""One map of several layers: each scaled, up-sampled to the largest, then put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from exporter.errors import MapError, choices
from exporter.explain.passes import LayerMaps
from exporter.maps import Method

FUSED = "fused"
"""The layer's name under which fused maps are kept."""

FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda stacked: stacked.mean(0),
    "max": lambda stacked: stacked.amax(0),
    "product": lambda stacked: stacked.prod(0),
}
"""By name, how maps (L, N, H, W) in [0, 1] become one (N, H, W)."""


def fuse_layers(methods: Sequence[Method], maps: dict[str, LayerMaps], fusion: str) -> LayerMaps:
    """Fuse the layers' maps of each method that is fused.

    Each map is rectified where its method's definition ends in a ReLU, then scaled to [0, 1] per
    image (min-max; one that is the same everywhere becomes 0), then up-sampled bilinearly (corners
    not aligned) to the most rows and columns that any layer has; then the mean, the maximum or the
    product over the layers is taken. The maximum is LayerCAM's fusion (Jiang et al. 2021) but for
    its hyperbolic tangent at early layers.

    Methods that are only there fused leave their layers in ``maps``, and layers that nothing is
    left of go too. ``fusion`` is ``""`` where only those are fused.

    Raises:
        MapError: if there is no such fusion.
    """
    fused: LayerMaps = {}
    for method in methods:
        how = method.fuse or fusion
        layers = [here[method.name] for here in maps.values() if method.name in here]
        if how and layers:
            relu = method.record.relu or bool(method.fuse)
            columns = zip(*layers, strict=True)
            fused[method.name] = tuple(_fuse(column, how, relu) for column in columns)
        if method.fuse:
            for name, here in list(maps.items()):
                here.pop(method.name, None)
                if not here:
                    del maps[name]
    return fused


def _fuse(maps: Sequence[Tensor], how: str, relu: bool) -> Tensor:
    if how not in FUSIONS:
        raise MapError(f"maps cannot be fused by {how!r}; {choices(how, FUSIONS)}")
    size = [max(values.shape[axis] for values in maps) for axis in (-2, -1)]
    grown = [
        functional.interpolate(scaled[:, None], size, mode="bilinear").squeeze(1)
        for scaled in (_scaled(values.relu() if relu else values) for values in maps)
    ]
    return FUSIONS[how](torch.stack(grown))


def _scaled(maps: Tensor) -> Tensor:
    lowest = maps.amin((1, 2), keepdim=True)
    span = maps.amax((1, 2), keepdim=True) - lowest
    return (maps - lowest) / span.masked_fill(span == 0, 1)
