"""What TensorBoard compares models and methods by, read back from the summaries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.pr_curve import metadata as pr_curve
from tensorboard.util.tensor_util import make_ndarray

from exporter.records import Prediction
from exporter.render import confusion_sheet, get_colormap
from exporter.render.confusion import CELL
from exporter.store import Run, open_run
from exporter.writers.reading import set_numbers
from exporter.writers.tensorboard.numbers import (
    method_scalars,
    precision_recall,
    set_scalars,
    set_summaries,
)
from exporter.writers.tensorboard.sessions import layout_summary, session_summaries


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


def session(run: Run, step: int | None) -> tuple[Any, Any]:
    summaries = session_summaries(
        run, step, set_scalars(run, set_numbers(run)), method_scalars(run), 5.0
    )
    contents = {
        value.tag: value.metadata.plugin_data.content for one in summaries for value in one.value
    }
    return (
        hparams.parse_experiment_plugin_data(contents[hparams.EXPERIMENT_TAG]),
        hparams.parse_session_start_info_plugin_data(contents[hparams.SESSION_START_INFO_TAG]),
    )


def test_settings_are_held_against_what_was_measured(run: Run) -> None:
    experiment, start = session(run, None)
    assert start.hparams["model"].string_value == "torchvision:resnet18"
    assert start.hparams["maps"].string_value == "gradcam, layercam, eigencam"
    assert start.hparams["seed"].number_value == 0
    assert start.hparams["checkpoint"].string_value == "none"
    assert {info.name for info in experiment.hparam_infos} == set(start.hparams)
    metrics = [(info.name.group, info.name.tag) for info in experiment.metric_infos]
    assert metrics[0] == ("", "set/accuracy")
    assert ("gradcam", "set/agreement") in metrics
    assert ("gradcam", "set/ROAD") not in metrics  # was not measured
    # Checkpoints that are steps of a run are told apart by these.
    assert "checkpoint" not in session(run, 3)[1].hparams


def test_charts_are_laid_out(run: Run) -> None:
    (value,) = layout_summary({"ROAD", "accuracy"}).value
    layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
    charts = {chart.title: chart.multiline.tag[0] for c in layout.category for chart in c.chart}
    assert charts == {"accuracy": "^set/accuracy$", "ROAD": "^set/ROAD$"}
    assert [category.title for category in layout.category] == ["Predictions", "Faithfulness"]


def test_the_confusion_is_a_picture_of_counts(run: Run) -> None:
    numbers = set_numbers(run)
    tags = [value.tag for one in set_summaries(run, numbers) for value in one.value]
    assert "set/confusion" in tags
    drawn = confusion_sheet(["cat", "dog"], np.array([[3, 1], [0, 0]]))
    table, room = get_colormap("viridis"), drawn.shape[1] - 2 * CELL - 8
    corners = [tuple(drawn[room + 1, room + 1 + k * CELL]) for k in range(2)]
    assert corners == [tuple(table[191]), tuple(table[64])]  # three quarters, one quarter
    assert tuple(drawn[room + 1 + CELL, room + 1]) == tuple(table[0])
    # A column is called as its row is, upwards.
    rows, columns = drawn[room:, :room], drawn[:room, room:]
    assert np.array_equal(np.rot90(rows), columns)


def test_two_classes_have_precision_and_recall(run: Run) -> None:
    model = replace(run.plan.model, outputs=2, classes=("no", "yes"))
    scores = {"a": (1, 0.9, 1), "b": (1, 0.6, 0), "c": (0, 0.7, 1), "d": (0, 0.8, 0)}
    rows = [
        (label, Prediction(index, model.classes[index], score))
        for index, score, label in scores.values()
    ]
    # Class 1 has .9 (right), .6 (wrong), .3 (missed) and .2.
    (value,) = precision_recall(model, rows).value
    assert pr_curve.parse_plugin_metadata(value.metadata.plugin_data.content).num_thresholds == 201
    tp, fp, tn, fn, precision, recall = make_ndarray(value.tensor)
    assert (tp[100], fp[100], tn[100], fn[100]) == (1, 1, 1, 1)  # at a threshold of .5
    assert (precision[100], recall[100]) == (0.5, 0.5)
    assert (tp[0], fp[0]) == (2, 2)
    assert (tp[170], fp[170]) == (1, 0)
