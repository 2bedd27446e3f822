"""The numbers of a run, held against its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.records import Prediction
from exporter.store import Run, open_run
from exporter.writers.reading import set_numbers
from exporter.writers.scalars import curve_of, method_scalars, precision_recall, set_scalars


@pytest.fixture(scope="module")
def run(sample_run: Path) -> Run:
    return open_run(sample_run)


def test_scalars_of_the_set_are_those_of_its_summary(run: Run) -> None:
    scalars = {name: value for name, value, _ in set_scalars(run, set_numbers(run))}
    summary = run.summary
    assert summary is not None
    assert scalars["accuracy"] == pytest.approx(summary.accuracy)
    assert scalars["calibration error"] == summary.calibration_error
    agreement = [row.agreement for row in run.measures() if row.agreement is not None]
    assert scalars["agreement"] == pytest.approx(np.mean(agreement))


def test_a_method_has_its_own_at_the_deepest_stage(run: Run) -> None:
    scalars = method_scalars(run)
    assert list(scalars) == [method.name for method in run.plan.methods]
    own = {name: value for name, value, _ in scalars["layercam"]}
    (row,) = [r for r in run.methods() if (r.method, r.layer) == ("layercam", "layer4")]
    assert (own["entropy"], own["concentration"]) == (row.entropy, row.top_share)
    assert (own["pointing"], own["overlap"]) == (row.pointing, row.box_overlap)
    pairs = [
        p for p in run.agreement() if p.layer == "layer4" and "layercam" in (p.first, p.second)
    ]
    assert len(pairs) == 2
    assert own["agreement"] == pytest.approx(sum(p.correlation or 0 for p in pairs) / 2)


def test_two_classes_have_precision_and_recall(run: Run) -> None:
    assert precision_recall(run) is None  # of more classes
    said = ((1, 0.9, 1), (1, 0.6, 0), (0, 0.7, 1), (0, 0.8, 0))
    # Class 1 has .9 (right), .6 (wrong), .3 (missed) and .2.
    curve = curve_of([(label, Prediction(index, "", score)) for index, score, label in said])
    tp, fp, tn, fn, precision, recall = curve
    assert (tp[100], fp[100], tn[100], fn[100]) == (1, 1, 1, 1)  # at a threshold of .5
    assert (precision[100], recall[100]) == (0.5, 0.5)
    assert (tp[0], fp[0]) == (2, 2)
    assert (tp[170], fp[170]) == (1, 0)
