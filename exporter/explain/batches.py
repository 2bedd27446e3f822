"""One batch's outcome: on the device, packed into one buffer, and on the host as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporter.capture import Statistics, Strongest, quantise
from exporter.containers import rebuild
from exporter.explain.packing import pack, unpack
from exporter.records import MAP_LEVELS

ZERO, CONSTANT, NAN = 1, 2, 4
"""Bits of a map's flags: all values 0; all equal, but not 0; a value that is not finite."""


class HostMap(NamedTuple):
    """One method's map at one layer for one target, for every image of the batch.

    Attributes:
        method: registry name.
        layer: qualified layer name.
        target: number of the target, from 0; its class is ``HostBatch.targets[n, target]``.
        levels: uint16 (N, H, W).
        lo: float32 (N,), value of level 0.
        hi: float32 (N,), value of level 65535.
        flags: uint8 (N,), bits 1 zero, 2 constant but not zero, 4 not finite; at most one is set.
    """

    method: str
    layer: str
    target: int
    levels: NDArray[np.uint16]
    lo: NDArray[np.float32]
    hi: NDArray[np.float32]
    flags: NDArray[np.uint8]


class HostActivation(NamedTuple):
    """The strongest channels of one layer: (N, K) each, levels uint8 (N, K, H, W)."""

    layer: str
    channels: NDArray[np.int32]
    lo: NDArray[np.float32]
    hi: NDArray[np.float32]
    levels: NDArray[np.uint8]


class HostChannels(NamedTuple):
    """Reductions of one layer's channels over spatial positions: (N, C) each (see `Statistics`)."""

    layer: str
    mean: NDArray[np.float32]
    maximum: NDArray[np.float32]
    zeros: NDArray[np.float32]
    place: NDArray[np.int32]
    height: int
    width: int


@dataclass(frozen=True)
class HostBatch:
    """One batch, as numpy views of the one buffer that was copied.

    Attributes:
        top_index: int32 (N, k), most probable classes first; -1 where an image has fewer.
        top_score: float32 (N, k), softmax probability, or the value itself of a single output.
        loss: float32 (N,), cross-entropy; not a number where there is no label.
        targets: int32 (N, T), the class (or box) explained; -1 where an image has none.
        against: int32 (N, T), of a contrast the class it is against; -1 for other targets.
        nan_output: bool (N,), whether the model's output is not finite.
        named: what the targets are: ``class``, ``box``, ``mask`` or ``value``.
        maps: layer by layer in execution order, then by target, then by method.
        activations: the recorded layers.
        channels: the recorded layers.
        missing: by layer (or ``method at layer``), why there is no map or activation.
    """

    top_index: NDArray[np.int32]
    top_score: NDArray[np.float32]
    loss: NDArray[np.float32]
    targets: NDArray[np.int32]
    against: NDArray[np.int32]
    nan_output: NDArray[np.bool_]
    named: str
    maps: tuple[HostMap, ...]
    activations: tuple[HostActivation, ...]
    channels: tuple[HostChannels, ...]
    missing: Mapping[str, str]

    @staticmethod
    def joined(first: HostBatch, second: HostBatch) -> HostBatch:
        """Return the two batches as one, the first one's images first."""
        return HostBatch(
            *(
                _joined(getattr(first, name), getattr(second, name))
                for name in HostBatch.__dataclass_fields__
            )
        )


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, np.ndarray):
        return np.concatenate((first, second))
    if isinstance(first, tuple):
        parts = [_joined(before, after) for before, after in zip(first, second, strict=True)]
        return first._make(parts) if hasattr(first, "_make") else tuple(parts)
    return {**first, **second} if isinstance(first, Mapping) else first


class Block(NamedTuple):
    """The maps of one layer, quantised together; M maps, each a method and target.

    Attributes:
        layer: qualified layer name.
        names: (method, target) of each.
        levels: int16 (M, N, H, W), to be read as uint16.
        lo: float32 (M, N).
        hi: float32 (M, N).
        flags: uint8 (M, N).
    """

    layer: str
    names: tuple[tuple[str, int], ...]
    levels: Tensor
    lo: Tensor
    hi: Tensor
    flags: Tensor


class Recorded(NamedTuple):
    """The reductions of one recorded layer."""

    layer: str
    statistics: Statistics
    strongest: Strongest | None


class Contents(NamedTuple):
    """What a batch holds on the device; the names are those of `HostBatch`."""

    top_index: Tensor
    top_score: Tensor
    loss: Tensor
    targets: Tensor
    against: Tensor
    nan_output: Tensor
    named: str
    blocks: tuple[Block, ...]
    recorded: tuple[Recorded, ...]


@dataclass(frozen=True)
class DeviceBatch:
    """One batch on its way: everything is in one buffer, whose copy to the host has begun on CUDA.

    Attributes:
        contents: the batch's parts, of which only names, shapes and types are held.
        packed: uint8 buffer on the device, or in pinned memory while the copy is under way.
        ready: CUDA event after the copy, or None where there is nothing to wait for.
        missing: see `HostBatch`.
    """

    contents: Contents
    packed: Tensor
    ready: torch.cuda.Event | None
    missing: Mapping[str, str]

    def equals(self, other: DeviceBatch) -> bool:
        """Say whether another batch holds the same, bit for bit."""
        mine, its = (rebuild(b.contents, lambda _p, t: tuple(t.shape)) for b in (self, other))
        same = mine == its and self.missing == other.missing
        return same and torch.equal(self.packed, other.packed)

    def to_host(self) -> HostBatch:
        """Wait for the one copy of the batch, and give its parts as numpy arrays."""
        if self.ready is not None:
            self.ready.synchronize()
        held = unpack(self.contents, self.packed.cpu().numpy())
        return HostBatch(
            top_index=held.top_index,
            top_score=held.top_score,
            loss=held.loss,
            targets=held.targets,
            against=held.against,
            nan_output=held.nan_output,
            named=held.named,
            maps=tuple(
                HostMap(
                    method,
                    block.layer,
                    target,
                    block.levels[m],
                    block.lo[m],
                    block.hi[m],
                    block.flags[m],
                )
                for block in held.blocks
                for m, (method, target) in enumerate(block.names)
            ),
            activations=tuple(
                HostActivation(layer, top.channels, top.lo, top.hi, top.levels)
                for layer, _, top in held.recorded
                if top is not None
            ),
            channels=tuple(
                HostChannels(layer, s.mean, s.maximum, s.zeros, s.place, s.height, s.width)
                for layer, s, _ in held.recorded
            ),
            missing=self.missing,
        )


def send(contents: Contents, missing: Mapping[str, str]) -> DeviceBatch:
    """Pack a batch and, on CUDA, begin its copy into pinned memory without waiting for it."""
    outline, packed = pack(contents)
    if not packed.is_cuda:
        return DeviceBatch(outline, packed, None, missing)
    pinned = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
    pinned.copy_(packed, non_blocking=True)
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record(torch.cuda.current_stream(packed.device))
    return DeviceBatch(outline, pinned, ready, missing)


def block_of(layer: str, maps: Mapping[str, tuple[Tensor, ...]]) -> Block:
    """Quantise all maps of one layer at once, each image's between its own extremes.

    Args:
        layer: its name.
        maps: by method, a map (N, H, W) per target.

    Returns:
        The block; levels are 0 where a map is constant or not finite, and flagged.
    """
    targets = range(max((len(each) for each in maps.values()), default=0))
    names = tuple((method, target) for target in targets for method in maps)
    values = torch.stack([maps[method][target] for method, target in names]).to(torch.float32)
    lo, hi, levels = quantise(values, MAP_LEVELS)
    same = lo == hi
    zero = same & (lo == 0)
    flags = zero * ZERO + (same & ~zero) * CONSTANT + torch.isnan(lo) * NAN
    # Through int32: torch has few operations on uint16, and the low 16 bits are what is stored.
    return Block(
        layer, names, levels.to(torch.int32).to(torch.int16), lo, hi, flags.to(torch.uint8)
    )
