from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from exporter.records import ChannelBatch
from exporter.summaries import CHANNEL_SCHEMA, channel_table, merge_channels


def batch(values: NDArray[np.float32], first: int = 0, layer: str = "layer4") -> ChannelBatch:
    """Reduce activations (N, C, H, W), whose images are called by their number from ``first``."""
    flat = values.reshape(*values.shape[:2], -1)
    return ChannelBatch(
        layer,
        tuple(f"{first + n}" for n in range(len(values))),
        flat.mean(axis=2, dtype=np.float32),
        flat.max(axis=2),
        (flat == 0).mean(axis=2, dtype=np.float32),
        flat.argmax(axis=2).astype(np.int32),
        values.shape[2],
        values.shape[3],
    )


def cut(values: NDArray[np.float32], cuts: list[int]) -> pa.Table:
    places = [0, *sorted(cuts), len(values)]
    return merge_channels(
        channel_table([batch(values[a:b], a), batch(values[a:b], a, "layer3")] if b > a else [])
        for a, b in pairwise(places)
    )


def same(table: pa.Table, other: pa.Table) -> bool:
    """Say whether two tables are equal, their means to 1e-12 of the largest."""
    means = ["mean", "sparsity"]
    for name in means:
        first, second = table[name].to_numpy(), other[name].to_numpy()
        scale = max(1, np.abs(first, where=~np.isnan(first), out=np.zeros(len(first))).max())
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12 * scale)
    return bool(table.drop_columns(means).equals(other.drop_columns(means)))


def random_values(images: int, channels: int = 5) -> NDArray[np.float32]:
    values = np.random.default_rng(1).normal(size=(images, channels, 3, 4)).astype(np.float32)
    values[:, 2:3] = 0
    scale = np.float32(10.0) ** np.arange(-4, channels - 4, dtype=np.float32)
    return np.maximum(values, 0) * scale[:, None, None]


def test_closed_form_numbers() -> None:
    values = np.zeros((2, 2, 2, 4), dtype=np.float32)
    values[0, 0, 1, 2], values[1, 0, 0, 3] = 8, 16
    table = merge_channels([channel_table([batch(values)])])
    assert table.schema.equals(CHANNEL_SCHEMA)
    alive, dead = table.to_pylist()
    assert alive == {
        "layer": "layer4",
        "channel": 0,
        "images": 2,
        "mean": 1.5,
        "maximum": 16.0,
        "sparsity": 7 / 8,
        "dead": False,
        "top": ["1", "0"],
        "top_values": [16.0, 8.0],
        "top_places": [{"x": 7 / 8, "y": 1 / 4}, {"x": 5 / 8, "y": 3 / 4}],
    }
    assert dead["dead"] and dead["sparsity"] == 1 and dead["top"] == []


@pytest.mark.parametrize("shards", [1, 3, 7, 40])
def test_any_cut_gives_the_same(shards: int) -> None:
    values = random_values(40)
    whole = cut(values, [])
    cuts = np.linspace(0, 40, shards + 1)[1:-1].astype(int).tolist()
    assert same(cut(values, cuts), whole)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 24), st.just(2), st.just(1), st.just(2)),
        # Few values, so that many are equal; large ones, so that sums in another order differ.
        elements=st.sampled_from([0.0, 1.0, -1.0, 2.0**-30, 1e8, -1e-8, float(np.float32(0.1))]),
    ),
    st.data(),
)
def test_any_cut_gives_the_same_for_awkward_values(
    values: NDArray[np.float32], data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=5))
    assert same(cut(values, cuts), cut(values, []))


def test_the_strongest_images_are_those_of_a_full_sort() -> None:
    values = random_values(40, channels=2)
    maxima = values.reshape(40, 2, -1).max(axis=2)
    rows = cut(values, [11, 12, 30]).to_pylist()
    for channel in range(2):
        order = np.argsort(-maxima[:, channel], kind="stable")[:9]
        assert rows[channel]["top"] == [str(n) for n in order]
        assert rows[channel]["top_values"] == maxima[order, channel].tolist()


def test_of_equals_the_first_in_plan_order() -> None:
    values = np.ones((20, 1, 1, 1), dtype=np.float32)
    assert cut(values, [5, 6])["top"][0].as_py() == [str(n) for n in range(9)]


def test_negative_activations_have_images_too() -> None:
    values = -np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1, 1)
    row = cut(values, []).to_pylist()[0]
    assert (row["maximum"], row["top"], row["dead"]) == (-1.0, ["0", "1", "2"], False)


def test_one_nan_is_not_hidden() -> None:
    values = np.ones((3, 1, 1, 1), dtype=np.float32)
    values[1] = np.nan
    row = cut(values, [1]).to_pylist()[0]
    assert np.isnan(row["mean"])
    assert (row["maximum"], row["top"]) == (1.0, ["0", "2"])


def test_a_shard_without_images_adds_nothing() -> None:
    empty = channel_table([])
    assert empty.schema.equals(CHANNEL_SCHEMA) and len(empty) == 0
    assert len(merge_channels([empty])) == 0
    values = random_values(4)
    assert merge_channels([empty, channel_table([batch(values)]), empty]).equals(
        merge_channels([channel_table([batch(values)])])
    )


def test_batches_of_a_shard_add_up() -> None:
    values = random_values(10)
    parts = [batch(values[:4]), batch(values[4:], 4)]
    assert channel_table(parts).equals(channel_table([batch(values)]))
