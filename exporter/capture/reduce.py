"""Reduce a layer's activation on the device: statistics per channel, and the strongest channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1 << 18
"""Elements looked at together on the CPU, so that they and a buffer stay in its cache."""

_NARROW = 64
"""Channels below which a channels-last layer is copied first."""

BYTE_LEVELS = 255


@dataclass(frozen=True)
class Statistics:
    """Reductions of one layer over its spatial positions, per image and channel.

    Attributes:
        mean: float32 (N, C).
        maximum: float32 (N, C).
        zeros: float32 (N, C), share of exact zeros in [0, 1].
        place: int32 (N, C), flat position of the first maximum in the (H, W) grid.
        height: rows of the grid.
        width: columns of the grid.
    """

    mean: Tensor
    maximum: Tensor
    zeros: Tensor
    place: Tensor
    height: int
    width: int


@dataclass(frozen=True)
class Strongest:
    """The strongest channels of one layer.

    Attributes:
        channels: int32 (N, K), largest spatial mean first.
        lo: float32 (N, K), value of level 0; not a number where the channel is not finite.
        hi: float32 (N, K), value of level 255.
        levels: uint8 (N, K, H, W).
    """

    channels: Tensor
    lo: Tensor
    hi: Tensor
    levels: Tensor


def channel_statistics(activation: Tensor) -> Statistics:
    """Reduce each channel of each image over its spatial positions.

    The position of the maximum is found by comparing with it, which is twice as fast on the CPU as
    a maximum that carries positions; elements are read in the order in which they lie in memory.

    Args:
        activation: (N, C, H, W), contiguous or channels last, any floating-point type.

    Returns:
        The statistics, on the same device.
    """
    images, channels, height, width = activation.shape
    positions = height * width
    flat, axis, step = _flattened(activation)
    last = axis == 1
    device = activation.device
    # Positions count down: of those where the maximum is, the first has the largest number.
    ramp = torch.arange(positions, 0, -1, dtype=torch.float32, device=device)
    ramp = ramp.unsqueeze(1) if last else ramp
    buffer = torch.empty((min(step, images), *flat.shape[1:]), dtype=torch.float32, device=device)
    mean, maximum, zeros, place = torch.empty(
        (4, images, channels), dtype=torch.float32, device=device
    )
    for start in range(0, images, step):
        part = flat[start : start + step].to(torch.float32)
        scratch = buffer[: part.shape[0]]
        here = slice(start, start + step)
        mean[here] = part.mean(axis)
        largest = part.amax(axis, keepdim=True)
        maximum[here] = largest.squeeze(axis)
        torch.eq(part, 0, out=scratch)
        zeros[here] = scratch.mean(axis)
        torch.eq(part, largest, out=scratch)
        place[here] = scratch.mul_(ramp).amax(axis)
    # Nothing equals a maximum that is not a number: keep its position inside the grid.
    first = (positions - place).clamp_(max=positions - 1).to(torch.int32)
    return Statistics(mean, maximum, zeros, first, height, width)


def magnitudes(values: Tensor, reduction: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Reduce the magnitudes of each channel over its spatial positions, such as by `torch.amax`.

    On the CPU that takes a tenth of the time of a norm.

    Args:
        values: (N, C, H, W), contiguous or channels last.
        reduction: from some values and the axis to reduce.

    Returns:
        (N, C) of the same type.
    """
    flat, axis, step = _flattened(values)
    buffer = flat.new_empty(min(step, len(flat)), *flat.shape[1:])
    return torch.cat(
        [
            reduction(torch.abs(part, out=buffer[: len(part)]), axis)
            for part in torch.split(flat, step)
        ]
    )


def unless_narrow(values: Tensor) -> Tensor:
    """Return (N, C, H, W) as it lies in memory, or contiguous where few channels lie side by side.

    Several reductions of rows that short take longer than a copy.
    """
    return values.contiguous() if values.shape[1] < _NARROW else values


def _flattened(values: Tensor) -> tuple[Tensor, int, int]:
    """Return (N, positions, C) or (N, C, positions), as they lie in memory.

    Besides them, which axis has the positions, and how many images to look at together.
    """
    images, channels, height, width = values.shape
    values = unless_narrow(values)
    last = values.stride(1) == 1 and channels > 1 and not values.is_contiguous()
    flat = values.movedim(1, -1).flatten(1, 2) if last else values.flatten(2)
    step = max(1, _CHUNK // max(1, channels * height * width))
    return flat, 1 if last else 2, step if values.device.type == "cpu" else max(images, 1)


def strongest_channels(activation: Tensor, mean: Tensor, count: int) -> Strongest:
    """Pick the channels with the largest spatial mean and quantise each between its own extremes.

    Args:
        activation: (N, C, H, W).
        mean: (N, C), its spatial mean.
        count: how many channels; all where there are fewer.

    Returns:
        The channels; level = round((value - lo) / (hi - lo) · 255), 0 where hi = lo.
    """
    count = min(count, activation.shape[1])
    channels = mean.topk(count, dim=1).indices
    images = torch.arange(len(activation), device=activation.device).unsqueeze(1)
    values = activation[images, channels].to(torch.float32)
    lo, hi, levels = quantise(values, BYTE_LEVELS)
    return Strongest(channels.to(torch.int32), lo, hi, levels.to(torch.uint8))


def all_channels(activation: Tensor) -> Strongest:
    """Quantise every channel between its own extremes, as `strongest_channels` does, in order."""
    lo, hi, levels = quantise(activation.to(torch.float32), BYTE_LEVELS)
    numbers = torch.arange(lo.shape[1], dtype=torch.int32, device=lo.device).expand(lo.shape)
    return Strongest(numbers, lo, hi, levels.to(torch.uint8))


def quantise(values: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Express each grid of values as levels between its own smallest and largest value.

    Args:
        values: float32 (…, H, W).
        top: the highest level.

    Returns:
        ``lo`` and ``hi`` (…), both not a number where a value is not finite; ``levels`` (…, H, W),
        float32 whole numbers round((value - lo) / (hi - lo) · top), 0 where hi = lo or not finite.
    """
    lo, hi = values.amin((-2, -1), keepdim=True), values.amax((-2, -1), keepdim=True)
    # Halves, so that the span of the largest float32 values is still finite.
    span = hi / 2 - lo / 2
    # Divided, not multiplied by a reciprocal: the span of a tiny map has none in float32.
    shares = (values / 2).sub_(lo / 2).div_(span.masked_fill(span == 0, 1))
    # With an end that is not finite every share is 0 or not a number.
    levels = shares.mul_(top).round_().nan_to_num_(nan=0)
    finite = torch.isfinite(lo) & torch.isfinite(hi)
    lo, hi = (edge.masked_fill(~finite, torch.nan)[..., 0, 0] for edge in (lo, hi))
    return lo, hi, levels
