"""Maps and activations as stored levels, in NumPy: the reference for what a device packs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporter.records import MAP_LEVELS, StoredActivation, StoredMap


def pack_map(values: NDArray[np.floating], method: str, layer: str, target: str) -> StoredMap:
    """Quantise one map to uint16 between its smallest and largest value.

    Args:
        values: raw, signed, (height, width); values that are not finite count as 0 and are flagged.
        method: name of the method.
        layer: qualified name of the layer, ``""`` for a pixel method.
        target: ``class:281``, ``box:3``, ``mask`` or ``value``.

    Returns:
        The map, within ``(hi - lo) / 131070`` of what was given; exact where it is constant.
    """
    finite = np.isfinite(values)
    whole = bool(finite.all())
    exact = np.where(finite, values, 0).astype(np.float32).astype(np.float64)
    lo, hi = float(exact.min()), float(exact.max())
    span = hi - lo
    scaled = (exact - lo) * (MAP_LEVELS / span) if span > 0 else np.zeros_like(exact)
    flags = [
        name
        for name, raised in (
            ("zero", lo == 0 == hi),
            ("constant", span == 0 and lo != 0),
            ("nan", not whole),
        )
        if raised
    ]
    height, width = values.shape
    levels = np.rint(scaled).astype("<u2").tobytes()
    return StoredMap(method, layer, target, height, width, lo, hi, levels, ",".join(flags))


def pack_activation(values: NDArray[np.floating], layer: str, keep: int) -> StoredActivation:
    """Quantise the channels with the largest spatial mean to uint8, each between its own ends.

    Args:
        values: activations of one image, (C, height, width).
        layer: qualified name of the layer.
        keep: how many channels.
    """
    order = np.argsort(-values.mean(axis=(1, 2)), kind="stable")[:keep]
    chosen = values[order].astype(np.float32)
    lo, hi = chosen.min(axis=(1, 2)), chosen.max(axis=(1, 2))
    span = np.where(hi > lo, hi - lo, 1)[:, None, None]
    levels = np.rint((chosen - lo[:, None, None]) / span * 255).astype(np.uint8)
    return StoredActivation(
        layer=layer,
        channels=tuple(order.tolist()),
        height=values.shape[1],
        width=values.shape[2],
        lo=tuple(lo.tolist()),
        hi=tuple(hi.tolist()),
        values=levels.tobytes(),
    )
