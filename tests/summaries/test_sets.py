"""The whole set from its shards: the same for every cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.records import ChannelBatch, Row
from exporter.store.tables import parquet_bytes
from exporter.summaries import (
    IMAGES_SCHEMA,
    PARTS,
    SET_SCHEMA,
    SET_TABLES,
    SetTables,
    merge_set,
    shard_parts,
)
from exporter.summaries.sets import choose_classes

LAYERS = ("early", "deep")
IDS = [f"{n:02d}" for n in range(21)]


def awkward_rows(making: Any) -> list[Row]:
    """Return images of every kind: labelled or not, unread, with flat and broken maps, boxes."""
    generator = np.random.default_rng(0)
    rows = []
    for n, id in enumerate(IDS):
        if n % 7 == 5:
            rows.append(making.row(id, predicted=None, error="cut short"))
            continue
        maps = {
            (method, layer): generator.normal(size=(side, side)) * 10.0 ** (n % 5 - 2)
            for method in ("gradcam", "eigencam")
            for layer, side in (("early", 6), ("deep", 3 + n % 2))
        }
        if n % 4 == 1:
            maps["gradcam", "deep"] *= 0
        if n % 8 == 2:
            maps["eigencam", "deep"][0, 0] = np.nan
        if n % 6 == 3:
            del maps["gradcam", "early"]
        rows.append(
            making.row(
                id,
                maps=maps,
                predicted=int(generator.integers(4)),
                confidence=float(np.float32(generator.uniform(0.01, 1))),
                label=int(generator.integers(4)) if n % 3 else None,
                loss=float(np.float32(generator.exponential())) if n % 3 else None,
                boxes=((80.0, 20.0, 200.0 + n, 200.0),) if n % 2 else None,
            )
        )
    return rows


def batches(rows: list[Row]) -> list[ChannelBatch]:
    found = []
    for row in rows:
        if row.error is None:
            means = np.random.default_rng(int(row.id)).normal(size=(1, 4)).astype(np.float32)
            means[0, 3] = -2 * means[0, 1]
            found += [
                ChannelBatch(layer, (row.id,), means, means, means, means.astype("i4"), 1, 1)
                for layer in LAYERS
            ]
    return found


def merged(making: Any, rows: list[Row], cuts: list[int]) -> SetTables:
    scope = making.scope(IDS, layers=LAYERS)
    places = [0, *sorted(cuts), len(rows)]
    shards = [rows[a:b] for a, b in pairwise(places)]
    parts = [shard_parts(shard, batches(shard), scope) for shard in shards]
    return merge_set(lambda part, columns: (tables(part, p, columns) for p in parts), scope)


def tables(name: str, parts: dict[str, pa.Table], columns: Any) -> pa.Table:
    # Through a file, as the store reads it: leaves of a list are asked for by their path.
    content = pa.BufferReader(pa.py_buffer(parquet_bytes(parts[name])))
    return pa.parquet.ParquetFile(content).read(columns=list(columns), use_threads=False)


def same(a: object, b: object) -> bool:
    """Say whether two values are equal, their numbers to 1e-12."""
    if isinstance(a, float) and isinstance(b, float):
        return a == pytest.approx(b, rel=1e-12, abs=1e-12)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def plain(found: SetTables) -> dict[str, object]:
    return found.summary | {name: found.tables[name].to_pylist() for name in SET_TABLES}


@pytest.mark.parametrize("shards", [3, 7, 21])
def test_any_cut_gives_the_same(making: Any, shards: int) -> None:
    rows = awkward_rows(making)
    cuts = np.linspace(0, len(rows), shards + 1)[1:-1].astype(int).tolist()
    assert same(plain(merged(making, rows, cuts)), plain(merged(making, rows, [])))


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, len(IDS)), max_size=6))
def test_any_other_cut_too(making: Any, cuts: list[int]) -> None:
    rows = awkward_rows(making)
    assert same(plain(merged(making, rows, cuts)), plain(merged(making, rows, [])))


def test_every_part_has_its_schema(making: Any) -> None:
    parts = shard_parts(awkward_rows(making), [], making.scope(IDS, layers=LAYERS))
    assert tuple(parts) == PARTS
    assert parts["set"].schema.equals(SET_SCHEMA)
    assert parts["images"].schema.equals(IMAGES_SCHEMA)
    found = merged(making, awkward_rows(making), [])
    assert all(found.tables[name].schema.equals(schema) for name, schema in SET_TABLES.items())


def test_the_numbers_of_the_set(making: Any) -> None:
    rows = awkward_rows(making)
    told = merged(making, rows, [4, 9]).summary
    labelled = [row for row in rows if row.correct is not None]
    assert told["read"] == 18
    assert told["labelled"] == len(labelled)
    assert told["accuracy"] == sum(row.correct is True for row in labelled) / len(labelled)
    losses = [row.loss for row in labelled if row.loss is not None]
    assert told["loss"] == pytest.approx(np.mean(losses), rel=1e-14)
    scores = [row.confidence for row in rows if row.confidence is not None]
    assert told["confidence"] == pytest.approx(np.mean(scores), abs=1e-9)


def test_methods_are_means_over_images(making: Any) -> None:
    rows = awkward_rows(making)
    scope = making.scope(IDS, layers=LAYERS)
    found = merged(making, rows, [8]).tables["methods"].to_pylist()
    assert [(row["method"], row["layer"]) for row in found] == [
        (method, layer) for method in ("gradcam", "eigencam") for layer in LAYERS
    ]
    images = shard_parts(rows, [], scope)["images"].to_pandas()
    deep = found[1]
    for name in ("entropy", "top_share", "box_energy"):
        assert deep[name] == pytest.approx(images[name].mean(), abs=1e-7), name
    assert deep["pointing"] == images["pointing"].dropna().mean()
    flat = [one.flags == "zero" for row in rows for one in row.maps if one.method == "gradcam"]
    assert deep["uniform"] == sum(flat) > 0
    assert sum(deep["histogram"]) == deep["measured"] == images["entropy"].count()
    broken = sum("nan" in stored.flags for row in rows for stored in row.maps)
    assert broken > 0
    assert found[3]["images"] == 18 - broken


def test_images_are_measured_one_by_one(making: Any) -> None:
    rows = awkward_rows(making)
    scope = making.scope(IDS, layers=LAYERS)
    together = shard_parts(rows, [], scope)["images"]
    alone = [shard_parts([row], [], scope)["images"] for row in rows]
    assert together.column("id").to_pylist() == IDS
    assert together.equals(pa.concat_tables(alone).combine_chunks())
    entropy, share = (together.column(name).to_pylist() for name in ("entropy", "top_share"))
    assert entropy[1] is None and share[0] is not None


def test_a_class_map_is_the_mean_of_painted_maps(making: Any) -> None:
    one, two = np.eye(3), np.eye(3)[::-1] * 8 - 4
    flat = np.zeros((3, 3))
    rows = [
        making.row(id, maps={("gradcam", "deep"): values, ("eigencam", "deep"): values}, **given)
        for id, values, given in (
            ("a", one, {"predicted": 2}),
            ("b", two, {"predicted": 2}),
            ("c", flat, {"predicted": 2}),
            ("d", one, {"predicted": 1}),
            ("e", np.full((3, 3), np.nan), {"predicted": 2}),
        )
    ]
    scope = making.scope([row.id for row in rows])
    parts = shard_parts(rows, [], scope)
    found = merge_set(lambda part, _: iter([parts[part]]), scope).tables["class-maps"].to_pylist()
    assert [(row["index"], row["method"], row["images"]) for row in found] == [
        (1, "gradcam", 1),
        (1, "eigencam", 1),
        (2, "gradcam", 3),
        (2, "eigencam", 3),
    ]
    mean = np.frombuffer(found[2]["values"], "<f4").reshape(3, 3)
    np.testing.assert_allclose(mean, (np.eye(3) + np.eye(3)[::-1]) / 3, atol=1e-5)
    # The flat map has no entropy; of the others, three cells of nine have all.
    assert found[2]["entropy"] == pytest.approx(np.log(3) / np.log(9), abs=1e-4)


def test_frequent_classes_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.summaries.sets.CELLS", 200)
    assert choose_classes({3: 4, 1: 4, 5: 9}, 2 * 7 * 7) == {5, 1}
    assert choose_classes({1: 4}, 0) == frozenset()


def test_redundant_channels_of_the_set(making: Any) -> None:
    found = merged(making, awkward_rows(making), [3])
    assert [tuple(row.values()) for row in found.tables["redundant"].to_pylist()] == [
        ("early", 1, 3, -1.0),
        ("deep", 1, 3, -1.0),
    ]
    assert found.summary["redundancy"][0] == {
        "layer": "early",
        "images": 18,
        "channels": 4,
        "pairs": 1,
        "redundant": 2,
    }


def test_a_set_without_labels(making: Any) -> None:
    rows = [making.row("a", maps={("gradcam", "deep"): np.eye(3)}, predicted=3, confidence=0.75)]
    scope = making.scope(["a"])
    parts = shard_parts(rows, [], scope)
    found = merge_set(lambda part, _: iter([parts[part]]), scope)
    assert found.summary["accuracy"] is found.summary["calibration_error"] is None
    assert found.summary["confidence"] == 0.75
    (row,) = found.tables["classes"].to_pylist()
    assert (row["index"], row["predicted"], row["precision"]) == (3, 1, None)


def test_nothing_was_read(making: Any) -> None:
    rows = [making.row("a", predicted=None, error="cut")]
    scope = making.scope(["a"])
    parts = shard_parts(rows, [], scope)
    found = merge_set(lambda part, _: iter([parts[part]]), scope)
    assert (found.summary["read"], found.summary["strips"]) == (0, ())
    assert [row["images"] for row in found.tables["methods"].to_pylist()] == [0, 0]
