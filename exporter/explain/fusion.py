"""One map of several layers: each scaled, up-sampled to the largest, then put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from exporter.errors import MapError, choices

FUSED = "fused"
"""The layer's name under which fused maps are kept."""

FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda stacked: stacked.mean(0),
    "max": lambda stacked: stacked.amax(0),
    "product": lambda stacked: stacked.prod(0),
}
"""By name, how maps (L, N, H, W) in [0, 1] become one (N, H, W)."""


def fuse(maps: Sequence[Tensor], how: str, *, relu: bool) -> Tensor:
    """Fuse one method's maps of several layers.

    Each map is rectified where its method's definition ends in a ReLU, then scaled to [0, 1] an
    image (min-max; one that is the same everywhere becomes 0), then up-sampled bilinearly (corners
    not aligned) to the most rows and columns that any layer has; then the mean, the maximum or the
    product over the layers is taken. The maximum is LayerCAM's fusion (Jiang et al. 2021) but for
    its hyperbolic tangent at early layers.

    Args:
        maps: raw maps (N, h, w), one a layer.
        how: ``mean``, ``max`` or ``product``.
        relu: whether the method's definition ends in a ReLU.

    Returns:
        The fused map (N, H, W), within [0, 1].

    Raises:
        MapError: if there is no such fusion.

    Examples:
        >>> coarse, fine = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0, 5.0, 1.0, 5.0]]])
        >>> fuse([coarse, fine], "product", relu=False)
        tensor([[[0.0000, 0.2500, 0.0000, 1.0000]]])
    """
    if how not in FUSIONS:
        raise MapError(f"maps cannot be fused by {how!r}; {choices(how, FUSIONS)}")
    size = [max(values.shape[axis] for values in maps) for axis in (-2, -1)]
    grown = [
        functional.interpolate(
            _scaled(values.relu() if relu else values).unsqueeze(1),
            size=size,
            mode="bilinear",
            align_corners=False,
        ).squeeze(1)
        for values in maps
    ]
    return FUSIONS[how](torch.stack(grown))


def _scaled(maps: Tensor) -> Tensor:
    lowest = maps.amin((1, 2), keepdim=True)
    span = maps.amax((1, 2), keepdim=True) - lowest
    return (maps - lowest) / span.masked_fill(span == 0, 1)
