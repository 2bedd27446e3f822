from __future__ import annotations

import cv2
import numpy as np
import pytest

from exporter.errors import ConfigError
from exporter.render import COLORMAPS, get_colormap


@pytest.mark.parametrize("name", COLORMAPS)
def test_every_table_is_256_rgb_triplets_that_cannot_be_changed(name: str) -> None:
    table = get_colormap(name)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("viridis", cv2.COLORMAP_VIRIDIS),
        ("inferno", cv2.COLORMAP_INFERNO),
        ("turbo", cv2.COLORMAP_TURBO),
        ("jet", cv2.COLORMAP_JET),
    ],
)
def test_tables_are_what_opencv_paints(name: str, number: int) -> None:
    painted = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], number)[0]
    assert np.array_equal(COLORMAPS[name], painted[:, ::-1])


def test_perceptual_tables_grow_lighter() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    for name in ("viridis", "inferno", "grey"):
        light = (COLORMAPS[name] / 255) ** 2.2 @ weights
        assert np.all(np.diff(light[::8]) > 0), name


def test_the_diverging_table_is_white_in_the_middle_blue_below_and_red_above() -> None:
    table = COLORMAPS["diverging"].astype(int)
    assert table[127].min() >= 253
    assert table[128].min() >= 253
    assert table[0].tolist() == [33, 102, 172]
    assert table[255].tolist() == [178, 24, 43]
    assert np.all(table[:120, 2] > table[:120, 0])
    assert np.all(table[136:, 0] > table[136:, 2])


def test_an_unknown_table_names_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="'viridas'; did you mean 'viridis'"):
        get_colormap("viridas")
