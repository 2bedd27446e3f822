from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.records import ChannelBatch
from exporter.summaries import channels, merge_set, shard_parts
from exporter.summaries.channels import redundant
from exporter.summaries.scope import SAMPLE


def test_copies_and_negatives_are_found() -> None:
    generator = np.random.default_rng(0)
    own = generator.normal(size=(40, 4)).astype(np.float32)
    noisy = own[:, 0] + 0.1 * generator.normal(size=40)
    vectors = np.stack(
        [*own.T, 3 * own[:, 1] + 5, -own[:, 2], noisy, np.ones(40), np.full(40, 0.1)], axis=1
    ).astype(np.float32)
    pairs, count, channels = redundant(vectors)
    expected = round(float(np.corrcoef(own[:, 0], vectors[:, 6])[0, 1]), 6)
    assert expected >= 0.98
    assert pairs == [(1, 4, 1.0), (2, 5, -1.0), (0, 6, expected)]
    assert (count, channels) == (3, 6)


def test_it_is_what_numpy_correlates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "_AT_ONCE", 3)
    generator = np.random.default_rng(1)
    base = generator.normal(size=(30, 3)) * [1, 1e-20, 1e15]
    vectors = (base[:, generator.integers(0, 3, 20)] * generator.uniform(0.5, 2, 20)).astype("f4")
    table = np.corrcoef(vectors.astype(float).T)
    pairs, count, _ = redundant(vectors)
    first, second = np.nonzero(np.triu(np.abs(table) >= 0.98, 1))
    assert {(a, b) for a, b, _ in pairs} == set(zip(first.tolist(), second.tolist(), strict=True))
    assert count == len(first)


def test_so_many_pairs_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "REDUNDANT_PAIRS", 4)
    vectors = np.repeat(np.random.default_rng(0).normal(size=(20, 1)), 9, axis=1).astype("f4")
    pairs, count, paired = redundant(vectors)
    assert [pair[:2] for pair in pairs] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert (count, paired) == (36, 9)


def test_nothing_is_said_of_few_images(making: Any) -> None:
    ids = [f"{n}" for n in range(15)]
    values = np.arange(30, dtype=np.float32).reshape(15, 2)
    scope = making.scope(ids)
    batch = ChannelBatch("deep", tuple(ids), values, values, values, values.astype("i4"), 1, 1)
    parts = shard_parts([making.row(id) for id in ids], [batch], scope)
    merged = merge_set(lambda part, _: iter([parts[part]]), scope)
    assert len(merged.tables["redundant"]) == 0
    expected = {"layer": "deep", "images": 15, "channels": 2, "pairs": 0, "redundant": 0}
    assert merged.summary["redundancy"] == (expected,)


def test_the_sample_does_not_depend_on_the_cut_or_the_order(making: Any) -> None:
    ids = [f"{n:05d}" for n in range(2000)]
    sample = making.scope(ids).sample
    assert len(sample) == SAMPLE
    assert making.scope(ids[::-1]).sample == sample
