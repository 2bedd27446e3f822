"""All methods of one layer together: each slice of the activations is read once, in the cache.

Method by method, every one of them walks through tensors larger than the cache and leaves behind a
temporary of their size. Here the layer is cut into slices of images and channels that fit, every
method takes its share of a slice while it is there, terms that several methods need are computed
once, in buffers used again for the next slice, and all weighted maps are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from exporter.errors import MapError
from exporter.maps.gradient_weighted import finite_reciprocal
from exporter.maps.registry import Method

SLICE_ELEMENTS = 1 << 19
"""Elements of a slice: 2 MiB of float32. Half and twice as many were no faster (docs/maps.md)."""


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
        return _compute(methods, activations, gradients, classifier)


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
) -> dict[str, Tensor]:
    number, _, height, width = activations.shape
    dtype = torch.float64 if activations.dtype == torch.float64 else torch.float32
    maps: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for method in methods:
        if not method.channelwise or method.needs.classifier:
            other = gradients if method.needs.gradients else None
            other = classifier if method.needs.classifier else other
            target = weights if method.kind == "weights" else maps
            target[method.name] = method.compute(activations, other).to(dtype)
    weighted = [method for method in methods if method.kind == "weights"]
    summed = [method for method in methods if method.kind == "map" and method.name not in maps]
    totals = activations.new_zeros((len(summed), number, height, width), dtype=dtype)
    products = activations.new_zeros((number, len(weighted), height * width), dtype=dtype)
    for part in _slices(activations, gradients, dtype) if weighted or summed else ():
        for total, method in zip(totals, summed, strict=True):
            total[part.images] += part.compute(method)
        if weighted:
            rows = [
                weights[method.name][part.images, part.channels]
                if method.name in weights
                else part.compute(method)
                for method in weighted
            ]
            products[part.images].baddbmm_(torch.stack(rows, 1), part.activations.flatten(2))
    maps |= {method.name: total for method, total in zip(summed, totals, strict=True)}
    for index, method in enumerate(weighted):
        maps[method.name] = products[:, index].view(number, height, width)
    return {method.name: maps[method.name] for method in methods}


class _Slice:
    """Some images and channels of a layer, with the terms that methods share, each computed once.

    Attributes:
        images: which images.
        channels: which channels.
        activations: A (n, c, H, W).
        gradients: ∂S/∂A (n, c, H, W); the activations where no method needs any.
    """

    def __init__(
        self,
        images: slice,
        channels: slice,
        activations: Tensor,
        gradients: Tensor | None,
        buffers: Sequence[Tensor],
    ) -> None:
        self.images = images
        self.channels = channels
        self.activations = activations
        self.gradients = activations if gradients is None else gradients
        self._given = gradients
        self._buffers = buffers
        self._terms: dict[str, Tensor] = {}

    def compute(self, method: Method) -> Tensor:
        """Return a method's (n, c) weights or (n, H, W) map, the short way where there is one."""
        shortcut = _SHORTCUTS.get(method.name)
        return method.compute(self.activations, self._given) if shortcut is None else shortcut(self)

    @property
    def total(self) -> Tensor:
        """Σ_xy A, (n, c)."""
        return self._once("total", lambda: self.activations.sum((2, 3)))

    @property
    def product(self) -> Tensor:
        """A ⊙ g."""
        return self._once(
            "product", lambda: torch.mul(self.activations, self.gradients, out=self._buffer(0))
        )

    @property
    def positive(self) -> Tensor:
        """max(g, 0)."""
        return self._once(
            "positive", lambda: torch.clamp_min(self.gradients, 0, out=self._buffer(1))
        )

    @property
    def spare(self) -> Tensor:
        """A buffer of the slice's shape, for one expression's use."""
        return self._buffer(2)

    def _once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        if name not in self._terms:
            self._terms[name] = compute()
        return self._terms[name]

    def _buffer(self, index: int) -> Tensor:
        number, channels, height, width = self.activations.shape
        flat = self._buffers[index][: self.activations.numel()]
        if self.activations.stride(1) == 1:  # channels_last
            return flat.view(number, height, width, channels).permute(0, 3, 1, 2)
        return flat.view(number, channels, height, width)


def _slices(activations: Tensor, gradients: Tensor | None, dtype: torch.dtype) -> Iterator[_Slice]:
    number, channels, height, width = activations.shape
    places = max(1, height * width)
    depth = max(1, min(channels, SLICE_ELEMENTS // places))
    count = max(1, SLICE_ELEMENTS // (places * max(1, channels)))
    buffers = activations.new_empty((3, min(count, number) * depth * places), dtype=dtype)
    for first in range(0, number, count):
        images = slice(first, min(first + count, number))
        for channel in range(0, channels, depth):
            taken = slice(channel, min(channel + depth, channels))
            given = None if gradients is None else gradients[images, taken].to(dtype)
            yield _Slice(images, taken, activations[images, taken].to(dtype), given, list(buffers))


def _gradcam(part: _Slice) -> Tensor:
    return part.gradients.mean((2, 3))


def _gradcampp(part: _Slice) -> Tensor:
    denominator = torch.mul(part.gradients, part.total[:, :, None, None], out=part.spare).add_(2)
    alpha = finite_reciprocal(denominator)
    return alpha.mul_(part.positive).sum((2, 3))


def _xgradcam(part: _Slice) -> Tensor:
    silent = part.total == 0
    return (part.product.sum((2, 3)) / part.total.masked_fill(silent, 1)).masked_fill_(silent, 0)


def _layercam(part: _Slice) -> Tensor:
    return torch.mul(part.positive, part.activations, out=part.spare).sum(1)


def _hirescam(part: _Slice) -> Tensor:
    return part.product.sum(1)


def _elementwise(part: _Slice) -> Tensor:
    return torch.clamp_min(part.product, 0, out=part.spare).sum(1)


_SHORTCUTS: dict[str, Callable[[_Slice], Tensor]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcampp,
    "xgradcam": _xgradcam,
    "layercam": _layercam,
    "hirescam": _hirescam,
    "gradcam-elementwise": _elementwise,
}
"""The same formulas as the registered functions, from shared terms; a test holds them equal.

A method without a line here is called on each slice as it is.
"""
