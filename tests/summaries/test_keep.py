from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from exporter.contents import StageChoice
from exporter.records import Prediction, Row
from exporter.summaries import IMAGES_SCHEMA, keep_images
from exporter.summaries.choices import (
    EVERY,
    LEAST_SURE,
    MOST_DISAGREEING,
    MOST_WRONG,
    ONE_PER_CLASS,
    SAMPLE,
)


def row(name: str, predicted: int, score: float, correct: bool | None = None) -> Row:
    return Row(
        name, name, f"{name}.jpg", predictions=(Prediction(predicted, "", score),), correct=correct
    )


ROWS = [
    *(row(f"right{n}", n % 5, 0.5 + n / 200, True) for n in range(50)),
    *(row(f"wrong{n}", n % 5, 0.3 + n / 100, False) for n in range(10)),
    *(row(f"unsure{n}", n % 5, 0.1 + n / 1000) for n in range(10)),
    Row("broken", "broken", "broken.jpg", error="empty file"),
]


def test_the_rules_and_their_quotas() -> None:
    kept = dict(keep_images(ROWS, 16, 0))
    assert Counter(kept.values()) == dict.fromkeys(
        (MOST_WRONG, LEAST_SURE, ONE_PER_CLASS, SAMPLE), 4
    )
    by_rule = {rule: [id for id, one in kept.items() if one == rule] for rule in kept.values()}
    assert by_rule[MOST_WRONG] == ["wrong6", "wrong7", "wrong8", "wrong9"]
    assert by_rule[LEAST_SURE] == ["unsure0", "unsure1", "unsure2", "unsure3"]


def test_one_per_class_is_the_most_confident_of_the_most_frequent() -> None:
    rows = [row(f"a{n}", 0, 0.2 + n / 100) for n in range(20)]
    rows += [row("c", 2, 0.99), row("b", 1, 0.7), row("best", 1, 0.9)]
    kept = dict(keep_images(rows, 8, 0))
    assert {id for id, rule in kept.items() if rule == ONE_PER_CLASS} == {"a19", "best"}


def test_they_come_in_plan_order() -> None:
    order = {one.id: place for place, one in enumerate(ROWS)}
    places = [order[id] for id, _ in keep_images(ROWS, 30, 0)]
    assert places == sorted(places)


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 5, 7, 9, 64, 69])
def test_exactly_so_many_are_kept(keep: int) -> None:
    kept = keep_images(ROWS, keep, 0)
    assert len(kept) == len({id for id, _ in kept}) == keep


@pytest.mark.parametrize("keep", ["all", 70, 1000])
def test_all_are_kept_but_what_was_not_read(keep: int | str) -> None:
    kept = keep_images(ROWS, keep, 0)  # type: ignore[arg-type]
    assert [id for id, _ in kept] == [one.id for one in ROWS if one.error is None]
    assert {rule for _, rule in kept} == {EVERY}


def test_the_seed_moves_only_the_sample() -> None:
    assert keep_images(ROWS, 16, 1) == keep_images(iter(ROWS), 16, 1)
    first, second = (
        {rule: {i for i, one in kept if one == rule} for rule in (MOST_WRONG, LEAST_SURE, SAMPLE)}
        for kept in (keep_images(ROWS, 16, 1), keep_images(ROWS, 16, 2))
    )
    assert first[MOST_WRONG] == second[MOST_WRONG]
    assert first[LEAST_SURE] == second[LEAST_SURE]
    assert first[SAMPLE] != second[SAMPLE]


def test_a_single_output_has_no_confidence() -> None:
    kept = keep_images([row(f"{n}", 0, 1000.0 * n) for n in range(20)], 8, 0, classifies=False)
    assert {rule for _, rule in kept} == {SAMPLE}


def test_a_model_that_predicts_only_class_0_has_errors_too() -> None:
    rows = [row(f"{n:02d}", 0, 0.3 + n / 100, n % 2 == 0) for n in range(20)]
    kept = dict(keep_images(rows, 8, 0))
    assert [id for id, rule in kept.items() if rule == MOST_WRONG] == ["17", "19"]
    assert [id for id, rule in kept.items() if rule == LEAST_SURE] == ["00", "01"]
    assert [id for id, rule in kept.items() if rule == ONE_PER_CLASS] == ["18"]


def test_disagreement_is_a_rule_where_it_is_known() -> None:
    agreement = {f"right{n}": 0.9 - n / 100 for n in range(50)}
    kept = dict(keep_images(ROWS, 20, 0, agreement))
    assert Counter(kept.values()) == dict.fromkeys(
        (MOST_WRONG, LEAST_SURE, MOST_DISAGREEING, ONE_PER_CLASS, SAMPLE), 4
    )
    assert [id for id, rule in kept.items() if rule == MOST_DISAGREEING] == [
        f"right{n}" for n in (46, 47, 48, 49)
    ]
    assert keep_images(ROWS, 16, 0, {}) == keep_images(ROWS, 16, 0)


def test_of_equals_the_smallest_id() -> None:
    rows = [row(id, 1, 0.5, False) for id in "dbca"]
    assert [id for id, _ in keep_images(rows, 1, 0)] == ["a"]


@pytest.mark.parametrize("killed", [0, 1, 5])
def test_what_a_shard_carries_is_kept_whatever_the_other_shards_are(killed: int) -> None:
    generator = np.random.default_rng(5)
    for trial in range(20 if not killed else 3):
        rows = [
            row(f"{trial}-{n}", int(generator.zipf(1.5)) % 60, float(score), bool(score > 0.4))
            for n, score in enumerate(generator.random(300))
        ]
        agreement = {each.id: float(generator.normal()) for each in rows}
        kept = {id for id, _ in keep_images(rows, 25, trial, agreement)}
        shards = []
        for start in range(0, len(rows), 40):
            part = rows[start : start + 40]
            columns = {name: [None] * len(part) for name in IMAGES_SCHEMA.names} | {
                "id": [each.id for each in part],
                "predicted": [each.predictions[0].index for each in part],
                "confidence": [each.predictions[0].score for each in part],
                "correct": [each.correct for each in part],
                "agreement": [agreement[each.id] for each in part],
                "read": [True] * len(part),
            }
            shards.append(pa.table(columns, schema=IMAGES_SCHEMA))

        def stored(number: int, among: Sequence[pa.Table] = shards) -> pa.Table:
            return among[number]

        choose = StageChoice(25, trial, lambda _number: None)
        carried = [choose(number, table) for number, table in enumerate(shards)]
        assert kept <= set().union(*carried)
        assert sum(map(len, carried)) < 250
        # After a kill the shards that are there count as they did.
        again = StageChoice(25, trial, stored)
        later = [again(number, table) for number, table in list(enumerate(shards))[killed:]]
        assert later == carried[killed:]
