from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.records import MethodRecord, Prediction, Row
from exporter.writers.html.shards import (
    ACTIVATION_BYTES,
    ACTIVATION_CELLS,
    ZERO,
    most_cells,
    pack_shard,
    quantise,
    reduce_cells,
)
from tests.packing import pack_activation, pack_map

METHODS = {
    name: (place, MethodRecord(name, name, "", "", "", "", "", "", relu=relu))
    for place, (name, relu) in enumerate([("gradcam", True), ("eigencam", False)])
}

MOST = most_cells([])


def unpack(script: str) -> dict:
    return json.loads(script.split(",", 1)[1].removesuffix(");\n"))


def decode(levels: np.ndarray, lo: float, hi: float, *, relu: bool) -> np.ndarray:
    """What data.js does, written again."""
    level = levels.astype(np.float64)
    if not (relu and lo < 0 < hi):
        return lo + (hi - lo) * level / 255
    return np.where(level >= ZERO, hi * (level - ZERO) / (255 - ZERO), lo * (ZERO - level) / ZERO)


@pytest.mark.parametrize("shape", [(56, 56), (29, 57), (100, 40)])
def test_larger_maps_are_averaged_over_area_like_opencv(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    reduced = reduce_cells(values)
    for ours, one in zip(reduced, values, strict=True):
        theirs = cv2.resize(one, (28, 28), interpolation=cv2.INTER_AREA)
        assert np.abs(ours - theirs).max() < 1e-5


def test_a_map_of_28_cells_or_less_is_left_alone() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (2, 28, 7))
    assert (reduce_cells(values) == values).all()


@settings(max_examples=60, deadline=None)
@given(
    lo=st.floats(-1e6, 1e6, width=32),
    span=st.floats(0, 1e6, width=32),
    relu=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_drawn_value_is_within_a_level_of_the_range_drawn(
    lo: float, span: float, relu: bool, seed: int
) -> None:
    values = np.float32(lo) + np.float32(span) * np.random.default_rng(seed).random((5, 6))
    stored = pack_map(values.astype(np.float32), "m", "l", "value")
    raw = np.frombuffer(stored.values, "<u2").reshape(1, 5, 6)
    ends = np.array([stored.lo], np.float32), np.array([stored.hi], np.float32)
    levels = quantise(raw.astype(np.float32), *ends, relu=relu)[0]
    drawn = decode(levels, *(float(end[0]) for end in ends), relu=relu)
    truth = stored.array().astype(np.float64)
    if relu:
        drawn, truth = np.maximum(drawn, 0), np.maximum(truth, 0)
    reach = truth.max() if relu else stored.hi - stored.lo
    # Half of a level of 192 (or of 255), and what 16 bits had already rounded.
    assert np.abs(drawn - truth).max() <= reach / 380 + (stored.hi - stored.lo) / 65535 + 1e-30


def test_zero_of_a_signed_map_stays_exactly_zero_under_a_relu() -> None:
    raw = np.full((1, 1, 3), 0.0, np.float32)
    raw[0, 0] = [0, 65535 / 4, 65535]
    levels = quantise(raw, np.array([-1], np.float32), np.array([3], np.float32), relu=True)
    assert levels.tolist() == [[[0, ZERO, 255]]]


def test_rows_without_maps_and_several_targets_find_their_places() -> None:
    first, second = (np.arange(6, dtype=np.float32).reshape(2, 3) * k for k in (1, -2))
    rows = [
        Row("a", "a", "a.jpg", error="gone"),
        Row(
            "b",
            "b",
            "b.jpg",
            predictions=(Prediction(4, "four", 0.75),),
            maps=(
                pack_map(first, "gradcam", "layer4", "class:4"),
                pack_map(second, "gradcam", "layer4", "class:9"),
            ),
        ),
    ]
    shard = unpack(pack_shard(3, rows, METHODS, {"layer4": 0}, (), most=MOST))
    assert [(one["rows"], one["k"], one["h"], one["w"]) for one in shard["maps"]] == [
        ([1], 0, 2, 3),
        ([1], 1, 2, 3),
    ]
    assert [shard["targets"][one["t"][0]] for one in shard["maps"]] == ["class:4", "class:9"]
    ends = np.frombuffer(base64.b64decode(shard["maps"][1]["r"]), "<f4")
    assert ends.tolist() == [-10, 0]
    assert shard["error"] == {"0": "gone"}
    assert shard["p"] == [[], [4, 0.75]]


def test_channels_are_drawn_as_far_as_their_room_goes() -> None:
    generator = np.random.default_rng(0)
    made = tuple(
        pack_activation(generator.random((9, size, size)).astype(np.float32), f"layer{size}", 8)
        for size in (56, 28, 14, 7)
    )
    shard = unpack(
        pack_shard(0, [Row("a", "a", "a.jpg", activations=made)], METHODS, {}, {"a"}, most=MOST)
    )
    sent = sum(len(base64.b64decode(one["v"])) for one in shard["acts"])
    assert sent <= ACTIVATION_BYTES
    assert {one["d"] for one in shard["acts"]} == {4}
    assert max(one["h"] for one in shard["acts"]) == ACTIVATION_CELLS
    assert all(len(one["c"][0]) == 8 for one in shard["acts"])


def test_only_kept_images_bring_their_channels() -> None:
    made = (pack_activation(np.ones((3, 2, 2), np.float32), "layer4", 2),)
    rows = [Row(name, name, f"{name}.jpg", activations=made) for name in "abc"]
    (entry,) = unpack(pack_shard(0, rows, METHODS, {}, {"a", "c"}, most=MOST))["acts"]
    assert entry["rows"] == [0, 2]
    assert entry["c"] == [[0, 1], [0, 1]]
    assert unpack(pack_shard(0, rows, METHODS, {}, (), most=MOST))["acts"] == []
