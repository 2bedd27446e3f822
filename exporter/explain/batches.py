"""One batch's outcome: computed on the device, packed into one buffer, read on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from exporter.capture import Captured, Statistics, Strongest, quantise
from exporter.containers import rebuild, tensors
from exporter.explain.passes import LayerMaps
from exporter.explain.transfer import Read
from exporter.maps import Method
from exporter.records import MAP_LEVELS, REGION_CELLS, ChannelBatch, StoredActivation
from exporter.targets import Scored

FLAGS = ("", "zero", "constant", "noise", "nan")
"""What a map's flags say, by number: all values 0; all equal, but not 0; none larger than the
rounding of what it is the sum of; one not finite."""

_READ_AS: dict[torch.dtype, str] = {
    torch.float32: "<f4",
    torch.int32: "<i4",
    # Levels of maps: 16 bits without a sign, which torch computes with as int32 only.
    torch.int16: "<u2",
    torch.uint8: "u1",
    torch.bool: "?",
}

REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda values: values.sum(2),
    "sum-abs": lambda values: values.abs().sum(2),
    "max-abs": lambda values: values.abs().amax(2),
}
"""How the channels of a pixel map become one for the store: the setting ``reduce``."""

Array = TypeVar("Array", Tensor, NDArray[Any])


@dataclass(frozen=True)
class BatchMaps:
    """The raw maps of one batch, on the device.

    Attributes:
        maps: by layer in execution order, then those of ``attention`` and ``fused``.
        pixels: by method, (N, T, C, H, W) at the input's resolution.
        floors: by layer and method, what rounding alone may amount to in its maps, (N,) per target.
        missing: by layer (or ``method at layer``), why there is no map or activation.
        scored: what is explained, and the predictions.
        captured: the shared pass.
    """

    maps: Mapping[str, LayerMaps]
    pixels: Mapping[str, Tensor]
    floors: Mapping[str, LayerMaps]
    missing: Mapping[str, str]
    scored: Scored
    captured: Captured


@dataclass(frozen=True)
class Maps(Generic[Array]):
    """The maps of one layer, quantised together; M maps, each of a method and target.

    Attributes:
        layer: qualified layer name.
        names: (method, number of the target from 0) of each.
        levels: uint16 (M, N, H, W); on the device its bits as int16.
        lo: float32 (M, N), value of level 0.
        hi: float32 (M, N), value of level 65535.
        flags: uint8 (M, N), numbers of `FLAGS`.
    """

    layer: str
    names: tuple[tuple[str, int], ...]
    levels: Array
    lo: Array
    hi: Array
    flags: Array


@dataclass(frozen=True)
class Outcome(Generic[Array]):
    """What was found of one batch: tensors on the device, numpy arrays on the host.

    Attributes:
        top_index: int32 (N, k), most probable classes first; -1 where an image has fewer.
        top_score: float32 (N, k), softmax probability, or the value itself of a single output.
        loss: float32 (N,), cross-entropy; not a number where there is no label.
        targets: int32 (N, T), the class (or box) explained; -1 where an image has none.
        against: int32 (N, T), of a contrast the class it is against; -1 for other targets.
        nan_output: bool (N,), whether the model's output is not finite.
        named: what the targets are: ``class``, ``box``, ``mask`` or ``value``.
        maps: layer by layer in execution order, in each by target, then by method.
        recorded: by recorded layer, its statistics and its strongest channels (or None).
        missing: by layer (or ``method at layer``), why there is no map or activation.
        boxes: float32 (N, k, 4), of a detector the boxes of the most probable, in pixels of the
            input; None for other models.
        regions: uint8 (N, T, h, w), of a segmentation 1 where the target is predicted; None for
            other models.
        stage: a layer's name, and all its channels; None where none is carried whole.
    """

    top_index: Array
    top_score: Array
    loss: Array
    targets: Array
    against: Array
    nan_output: Array
    named: str
    maps: tuple[Maps[Array], ...]
    recorded: Mapping[str, tuple[Statistics, Strongest | None]]
    missing: Mapping[str, str]
    boxes: Array | None = None
    regions: Array | None = None
    stage: tuple[str, Strongest] | None = None


class DeviceBatch(NamedTuple):
    """One batch on the device: everything is in one buffer.

    Attributes:
        outline: the outcome, its tensors' shapes and types only.
        packed: uint8 buffer on the device.
        read: where its copy to the host has begun, waits for it.
    """

    outline: Outcome[Tensor]
    packed: Tensor
    read: Read | None = None

    def equals(self, other: DeviceBatch) -> bool:
        """Say whether another batch holds the same, bit for bit."""
        mine, its = (rebuild(b.outline, lambda _p, t: tuple(t.shape)) for b in (self, other))
        return bool(mine == its) and torch.equal(self.packed, other.packed)

    def to_host(self) -> Outcome[NDArray[Any]]:
        """Wait for the one copy of the batch, and give its parts as numpy arrays."""
        buffer = self.packed.cpu().numpy() if self.read is None else self.read()
        host: Outcome[NDArray[Any]] = unpack(self.outline, buffer)
        return host


def quantised(
    layer: str, maps: LayerMaps, floors: Mapping[str, tuple[Tensor, ...]] | None = None
) -> Maps[Tensor]:
    """Quantise all maps of one layer at once, each image's between its own extremes.

    Levels are 0 where a map is constant or not finite, and flagged.

    Args:
        layer: qualified layer name.
        maps: its maps.
        floors: by method, for each target what rounding alone may amount to in a map, (N,).
    """
    targets = range(max((len(each) for each in maps.values()), default=0))
    names = tuple((method, target) for target in targets for method in maps)
    values = torch.stack([maps[method][target] for method, target in names]).to(torch.float32)
    lo, hi, levels = quantise(values, MAP_LEVELS)
    same, nothing = lo == hi, (lo == 0) & (hi == 0)
    known, none = floors or {}, lo.new_zeros(lo.shape[1])
    floor = torch.stack([known[m][t].to(lo) if m in known else none for m, t in names])
    noise = ~same & (torch.maximum(-lo, hi) <= floor)
    flags = nothing * 1 + (same & ~nothing) * 2 + noise * 3 + torch.isnan(lo) * 4
    flags = flags.to(torch.uint8)
    # Through int32: torch has few operations on uint16, and the low 16 bits are what is stored.
    return Maps(layer, names, levels.to(torch.int32).to(torch.int16), lo, hi, flags)


def stored_regions(scored: Scored) -> Tensor | None:
    """Return where a segmentation predicts the targets, at most `REGION_CELLS` to a side."""
    if scored.reading.predicted is None:
        return None
    regions = scored.reading.predicted(scored.targets.clamp(min=0)).to(torch.float32)
    share = min(1.0, REGION_CELLS / max(regions.shape[-2:]))
    height, width = (max(1, round(side * share)) for side in regions.shape[-2:])
    return (functional.adaptive_avg_pool2d(regions, (height, width)) >= 0.5).to(torch.uint8)


def pack(contents: Any) -> tuple[Any, Tensor]:
    """Lay every tensor inside a value into one uint8 buffer, so that one copy carries them all.

    Returns:
        The value with tensors of the same shapes and types that hold nothing, and the buffer.
    """
    held: dict[str, Tensor] = {}

    def lay(path: str, tensor: Tensor) -> Tensor:
        held[path] = tensor
        return torch.empty_like(tensor, device="meta")

    outline = rebuild(contents, lay)
    parts = []
    for tensor in _widest_first(held).values():
        flat = tensor.reshape(-1)
        # One value keeps the stride of what it was cut out of, and still counts as contiguous.
        if flat.stride(0) != 1:
            flat = flat.clone(memory_format=torch.contiguous_format)
        parts.append(flat.view(torch.uint8))
    return outline, torch.cat(parts)


def unpack(outline: Any, buffer: NDArray[np.uint8]) -> Any:
    """Return a packed value with an array, a view of the buffer, in the place of every tensor."""
    arrays: dict[str, NDArray[Any]] = {}
    offset = 0
    for path, tensor in _widest_first(tensors(outline)).items():
        flat = np.frombuffer(buffer, _READ_AS[tensor.dtype], tensor.numel(), offset)
        arrays[path] = flat.reshape(tensor.shape)
        offset += flat.nbytes
    return rebuild(outline, lambda path, _tensor: arrays[path])


def _widest_first(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors in order, the widest types first, so that every array is aligned."""
    return dict(sorted(held.items(), key=lambda item: -item[1].element_size()))


def stored_pixels(methods: Sequence[Method], pixels: Mapping[str, Tensor]) -> list[LayerMaps]:
    """Reduce pixel maps to what the store keeps: one channel, at a smaller stated size.

    The channels of (N, T, C, H, W) are reduced as the setting ``reduce`` says; then pixels are
    averaged by area, so that the longer side has ``size`` of them (0, or a smaller input: all).
    Maps of one shape are returned together.
    """
    groups: dict[tuple[int, ...], LayerMaps] = {}
    for method in methods:
        if method.name not in pixels:
            continue
        values = REDUCTIONS[str(method.settings["reduce"])](pixels[method.name])
        height, width = values.shape[-2:]
        share = int(method.settings["size"]) / max(height, width)
        if 0 < share < 1:
            size = (max(1, round(height * share)), max(1, round(width * share)))
            values = functional.adaptive_avg_pool2d(values, size)
        groups.setdefault(tuple(values.shape[-2:]), {})[method.name] = values.unbind(1)
    return list(groups.values())


def activations_of(host: Outcome[NDArray[Any]], n: int) -> Iterable[StoredActivation]:
    """Return one image's strongest channels of each recorded layer."""
    for layer, (_, top) in host.recorded.items():
        if top is not None:
            yield _stored(layer, top, n)


def stage_of(host: Outcome[NDArray[Any]], n: int) -> StoredActivation | None:
    """Return all channels of the layer that is carried whole, for one image."""
    return None if host.stage is None else _stored(*host.stage, n)


def _stored(layer: str, kept: Strongest, n: int) -> StoredActivation:
    return StoredActivation(
        layer=layer,
        channels=tuple(kept.channels[n].tolist()),
        height=kept.levels.shape[2],
        width=kept.levels.shape[3],
        lo=tuple(kept.lo[n].tolist()),
        hi=tuple(kept.hi[n].tolist()),
        values=np.asarray(kept.levels[n]).tobytes(),
    )


def channels_of(ids: Sequence[str], host: Outcome[NDArray[Any]]) -> Iterable[ChannelBatch]:
    """Return the channel reductions of the images whose output is a number."""
    kept = ~host.nan_output
    if not kept.any():
        return
    known = tuple(id for id, keep in zip(ids, kept, strict=True) if keep)
    for layer, (statistics, _) in host.recorded.items():
        yield ChannelBatch(
            layer=layer,
            ids=known,
            mean=np.asarray(statistics.mean)[kept],
            maximum=np.asarray(statistics.maximum)[kept],
            zeros=np.asarray(statistics.zeros)[kept],
            place=np.asarray(statistics.place)[kept],
            height=statistics.height,
            width=statistics.width,
        )
