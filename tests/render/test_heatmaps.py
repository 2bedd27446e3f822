from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from exporter.records import StoredMap
from exporter.render import COLORMAPS, heatmap, normalise, overlay, overlay_map, painted


def naive_bilinear(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Interpolate between pixel centres, edges repeated, in float64."""
    rows, columns = values.shape
    out = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            low, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            dv, du = v - top, u - left
            above = values[top, left] * (1 - du) + values[top, right] * du
            below = values[low, left] * (1 - du) + values[low, right] * du
            out[y, x] = above * (1 - dv) + below * dv
    return out


@pytest.mark.parametrize("rectify", [True, False])
def test_a_heatmap_is_the_raw_map_upsampled_then_normalised_by_the_stored_range(
    rectify: bool,
) -> None:
    values = np.random.default_rng(3).normal(size=(5, 7))
    raw = np.maximum(values, 0) if rectify else values
    smooth = naive_bilinear(raw, 40, 30)
    exact = (smooth - raw.min()) / (raw.max() - raw.min()) * 255
    painted = heatmap(values, (40, 30), rectify=rectify, colormap="grey")[..., 0]
    assert painted.shape == (30, 40)
    assert np.abs(painted - exact).max() <= 0.5 + 1e-3
    coloured = heatmap(values, (40, 30), rectify=rectify, colormap="inferno")
    assert np.array_equal(coloured, COLORMAPS["inferno"][painted])


def test_the_ends_of_the_table_are_the_stored_range_not_the_upsampled_one() -> None:
    """A lone peak is never reached when halving its grid, so its colour must not be the last."""
    values = np.zeros((4, 4))
    values[1, 1] = 1
    painted = heatmap(values, (2, 2), rectify=True, colormap="grey")[..., 0]
    assert painted[0, 0] == 64
    assert painted.max() < 255


@given(
    arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-1e6, 1e6, allow_subnormal=False),
    ),
    st.sampled_from([1e-7, 0.5, 3.0, 1e6]),
)
def test_normalising_does_not_depend_on_scale_and_fills_the_unit_interval(
    values: np.ndarray, factor: float
) -> None:
    scaled = normalise(values, rectify=False)
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    if np.ptp(values) > 1e-3:
        assert scaled.min() == 0
        assert scaled.max() == 1
        assert np.allclose(scaled, normalise(values * factor, rectify=False), atol=1e-6)


def test_a_constant_map_is_the_lowest_colour_and_a_centred_one_white() -> None:
    flat = np.full((3, 3), 4.0)
    assert np.array_equal(normalise(flat, rectify=False), np.zeros((3, 3)))
    assert heatmap(np.zeros((3, 3)), (5, 5), rectify=False, colormap="diverging").min() >= 253


def test_a_signed_map_is_centred_on_zero() -> None:
    painted = heatmap(np.array([[-1.0, 0.0, 4.0]]), (3, 1), rectify=False, colormap="diverging")[0]
    assert np.array_equal(painted[1], COLORMAPS["diverging"][128])
    assert np.array_equal(painted[2], COLORMAPS["diverging"][255])
    assert np.array_equal(painted[0], COLORMAPS["diverging"][96])  # -1 of a reach of 4


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_hatched_and_never_a_colour(broken: float) -> None:
    values = np.ones((4, 4))
    values[2, 2] = broken
    painted = heatmap(values, (32, 32), rectify=True)
    assert np.array_equal(painted[..., 0], painted[..., 2])
    assert len(np.unique(painted)) == 2


def test_maps_near_the_largest_float_do_not_overflow() -> None:
    values = np.array([[-1.7e308, 0.0, 1.7e308]])
    assert normalise(values, rectify=False).tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize("opacity", [0.0, 0.25, 0.3, 0.5, 0.7, 1.0])
def test_an_overlay_is_the_rounded_mixture(opacity: float) -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 256, 1).repeat(3, 2)
    heat = np.ascontiguousarray(image.transpose(1, 0, 2))
    exact = image * (1 - opacity) + heat * float(opacity)
    assert np.abs(overlay(image, heat, opacity) - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("colormap", "rectify", "opacities"),
    [
        ("grey", True, (0, 0, 0.8)),
        ("diverging", False, (0.4, 0, 0.8)),
        ("grey", False, (0, 0.27, 0.8)),
    ],
)
def test_a_photograph_keeps_its_colours_where_the_map_is_low(
    colormap: str, rectify: bool, opacities: tuple[float, ...]
) -> None:
    levels = np.array([0, 21845, 65535], "<u2").tobytes()
    stored = StoredMap("gradcam", "a", "class:0", 1, 3, -1.0, 2.0, levels)
    image = np.full((1, 3, 3), (200, 60, 20), np.uint8)
    heat = heatmap(stored.array(), (3, 1), rectify=rectify, colormap=colormap).astype(float)
    shown = overlay_map(image, stored, rectify=rectify, colormap=colormap)
    share = np.array(opacities)[None, :, None]
    assert np.abs(shown - (image * (1 - share) + heat * share)).max() < 2


def test_rounding_noise_is_drawn_as_nothing() -> None:
    levels = np.arange(4, dtype="<u2").tobytes()
    noise = StoredMap("gradcam", "a", "class:0", 2, 2, -1e-13, 1e-13, levels, "noise")
    image = np.full((8, 8, 3), 90, np.uint8)
    assert np.array_equal(overlay_map(image, noise, rectify=True), image)
    assert np.ptp(heatmap(painted(noise), (8, 8), rectify=False), axis=(0, 1)).max() == 0
    assert np.ptp(painted(replace(noise, flags=""))) > 0


def test_a_grey_view_is_overlaid_as_rgb() -> None:
    grey = np.full((4, 4, 1), 100, np.uint8)
    heat = np.full((4, 4, 3), 200, np.uint8)
    assert np.array_equal(overlay(grey, heat, 0.5), np.full((4, 4, 3), 150))


def test_the_upsampling_is_opencv_linear() -> None:
    values = np.random.default_rng(1).random((7, 7)).astype(np.float32)
    smooth = cv2.resize(
        normalise(values, rectify=False), (224, 224), interpolation=cv2.INTER_LINEAR
    )
    painted = heatmap(values, (224, 224), rectify=False, colormap="grey")[..., 0]
    assert np.abs(painted - smooth * 255.0).max() <= 0.5 + 1e-3
