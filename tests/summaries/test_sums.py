from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.records import ClassRow
from exporter.summaries import shard_parts
from exporter.summaries.classes import class_rows, columns_of
from exporter.summaries.sums import AgreementSums, MapSums, MethodSums, add_up

SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30)


def spread(making: Any, values: list[float]) -> float | None:
    rows = [making.row(f"{n}", confidence=value) for n, value in enumerate(values)]
    scope = making.scope([row.id for row in rows])
    (row,) = class_rows(columns_of(shard_parts(rows, [], scope)["images"]), scope)
    assert isinstance(row, ClassRow)
    return row.confidence_spread


@given(values=SHARES)
def test_spreads_are_those_of_numpy(making: Any, values: list[float]) -> None:
    assert spread(making, values) == pytest.approx(np.std(values), abs=1e-12)


def test_equal_numbers_have_no_spread(making: Any) -> None:
    assert spread(making, [0.1] * 7) == 0


def test_equal_keys_add_up() -> None:
    parts = [
        AgreementSums("deep", first, second, images, 0.5)
        for first, second, images in (("a", "b", 2), ("b", "c", 3), ("a", "b", 5))
    ]
    assert add_up({}, parts) == {
        ("deep", "a", "b"): AgreementSums("deep", "a", "b", 7, 1.0),
        ("deep", "b", "c"): AgreementSums("deep", "b", "c", 3, 0.5),
    }


def test_histograms_add_up_bin_by_bin() -> None:
    first, second = (
        MethodSums("gradcam", "deep", entropy=0.5, histogram=(n, *(0,) * 18, 1)) for n in (1, 2)
    )
    total = add_up({}, [first, second])["gradcam", "deep"]
    assert total.histogram == (3, *(0,) * 18, 2)
    assert total.entropy == 1.0


def test_maps_add_up_cell_by_cell() -> None:
    levels = np.array([1, 65535, 2**40], dtype="<i8")
    parts = [MapSums(3, "gradcam", "deep", 1, 3, sums=levels.tobytes()) for _ in range(2)]
    (total,) = add_up({}, parts).values()
    assert np.frombuffer(total.sums, "<i8").tolist() == (2 * levels).tolist()
