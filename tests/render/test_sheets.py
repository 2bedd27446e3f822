from __future__ import annotations

import numpy as np
import pytest

from exporter.records import StoredActivation
from exporter.render import COLORMAPS, activation_sheet, kernel_sheet, sheets


def cells(sheet: np.ndarray, across: int, cell: int) -> list[np.ndarray]:
    out = []
    y = sheets.STRIP + 3 + sheets.GAP
    while y + cell <= sheet.shape[0]:
        for k in range(across):
            x = sheets.GAP + k * (cell + sheets.GAP)
            out.append(sheet[y : y + cell, x : x + cell])
        y += cell + sheets.GAP
    return out


def test_rgb_kernels_are_scaled_each_by_its_own_range() -> None:
    values = np.random.default_rng(0).normal(size=(20, 3, 7, 7)).astype(np.float32)
    sheet, shown = kernel_sheet(values)
    assert shown == 20
    for one, cell in zip(values, cells(sheet, 16, 28), strict=False):
        exact = (one - one.min()) / (one.max() - one.min()) * 255
        small = cell[::4, ::4].astype(float).transpose(2, 0, 1)
        assert np.abs(small - exact).max() <= 0.5 + 1e-3
        assert np.array_equal(np.kron(cell[::4, ::4, 0], np.ones((4, 4), np.uint8)), cell[..., 0])


def test_other_kernels_are_diverging_on_one_scale_centred_on_zero() -> None:
    values = np.zeros((2, 2, 1, 2), np.float32)
    values[0, 0, 0] = [-1.0, 0.0]
    values[1, 1, 0] = [4.0, 2.0]
    sheet, shown = kernel_sheet(values)
    assert shown == 2
    table = COLORMAPS["diverging"]
    y, x = sheets.STRIP + 3 + sheets.GAP, sheets.GAP
    assert np.array_equal(sheet[y, x], table[96])
    assert np.array_equal(sheet[y, x + 14], table[128])
    low = y + 14 + sheets.GAP
    assert np.array_equal(sheet[low, x + 28 + sheets.GAP], table[255])
    assert np.array_equal(sheet[low, x + 28 + sheets.GAP + 14], table[191])


def test_a_sheet_stops_and_says_where() -> None:
    values = np.random.default_rng(0).normal(size=(300, 40, 3, 3)).astype(np.float32)
    sheet, shown = kernel_sheet(values)
    assert shown == sheets.ROW_LIMIT == 64
    assert sheet.shape[:2] == (64 * (27 + 2) + 2 + 15 + 3, 16 * (27 + 2) + 2)
    assert kernel_sheet(values[:, :3])[1] == sheets.GRID_LIMIT
    fewer, shown = kernel_sheet(values, limit=10, inputs=4)
    assert shown == 10
    assert fewer.shape[0] == 10 * (27 + 2) + 2 + 15 + 3
    whole, _ = kernel_sheet(values[:64, :16])
    assert not np.array_equal(whole[:15], sheet[:15])


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 1, 3, 3), (4, 8, 1, 1), (2, 3, 16, 16)])
def test_every_shape_of_kernel_is_drawn(shape: tuple[int, ...]) -> None:
    sheet, shown = kernel_sheet(np.random.default_rng(0).normal(size=shape))
    assert shown == shape[0]
    assert sheet.dtype == np.uint8
    assert kernel_sheet(np.zeros(shape))[0].shape == sheet.shape
    assert kernel_sheet(np.full(shape, np.nan))[0].shape == sheet.shape


def test_an_activation_sheet_paints_each_channel_over_its_own_range() -> None:
    levels = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    activation = StoredActivation("l", (7, 3), 2, 3, (0.0, -1.0), (1.0, 5.0), levels.tobytes())
    sheet = activation_sheet(activation)
    assert sheet.shape == (64 + 15 + 2 + 2, 2 * 98 + 2, 3)
    first = sheet[17 : 17 + 64, 2 : 2 + 96]
    expected = np.floor(np.arange(6).reshape(2, 3) / 5 * 255 + 0.5).astype(np.uint8)
    painted = COLORMAPS["viridis"][expected]
    assert np.array_equal(painted.repeat(32, axis=0).repeat(32, axis=1), first)


def test_a_layer_without_recorded_channels_is_an_empty_sheet() -> None:
    empty = activation_sheet(StoredActivation("l", (), 4, 4, (), (), b""))
    assert np.all(empty == 228)
