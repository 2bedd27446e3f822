"""What TensorBoard compares models and methods by, read back from the summaries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams

from exporter.render import confusion_sheet, get_colormap
from exporter.render.confusion import CELL
from exporter.store import Run, open_run
from exporter.writers.reading import set_numbers
from exporter.writers.scalars import method_scalars, precision_recall
from exporter.writers.tensorboard.numbers import set_summaries
from exporter.writers.tensorboard.serving import serve
from exporter.writers.tensorboard.sessions import layout_summary, session_summaries
from tests.small import two_classes


@pytest.fixture(scope="module")
def run(sample_run: Path) -> Run:
    return open_run(sample_run)


def session(run: Run, step: int | None) -> tuple[Any, Any]:
    summaries = session_summaries(run, step, method_scalars(run), 5.0)
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
    (shown,) = [
        value
        for one in set_summaries(run, numbers)
        for value in one.value
        if value.tag == "set/confusion"
    ]
    # A class that is only predicted has its column, too.
    assert f"{len(run.classes())} of {len(run.classes())} classes" in (
        shown.metadata.summary_description
    )
    drawn = confusion_sheet(["cat", "dog"], np.array([[3, 1], [0, 0]]))
    table, room = get_colormap("viridis"), drawn.shape[1] - 2 * CELL - 8
    corners = [tuple(drawn[room + 1, room + 1 + k * CELL]) for k in range(2)]
    assert corners == [tuple(table[191]), tuple(table[64])]  # three quarters, one quarter
    assert tuple(drawn[room + 1 + CELL, room + 1]) == tuple(table[0])
    # A column is called as its row is, upwards.
    rows, columns = drawn[room:, :room], drawn[:room, room:]
    assert np.array_equal(np.rot90(rows), columns)


@pytest.mark.slow
@pytest.mark.browser
def test_precision_and_recall_are_drawn_where_labels_are_of_two_classes(
    tmp_path: Path, chromium: Any
) -> None:
    run = two_classes(tmp_path, "tensorboard")
    curve = precision_recall(run)
    assert curve is not None
    with serve([run.path], port=0) as views, chromium.new_page() as page:
        page.goto(f"{dict(views)['everything']}#pr_curves")
        card = page.locator("tf-pr-curve-card")
        card.locator("path.line").wait_for(timeout=60_000)
        drawn = card.locator("path.line").get_attribute("d") or ""
    # Its corners, up to where the axes lie, are those of the curve.
    points = np.array(re.findall(r"[ML]([\d.]+),([\d.]+)", drawn), float) * [1, -1]
    corners = np.unique(curve[[5, 4]].T.round(6), axis=0)
    shown = np.unique(points.round(3), axis=0)
    assert len(corners) == len(shown) > 3
    for own, seen in zip(corners.T, shown.T, strict=True):
        rise, start = np.polyfit(own, seen, 1)
        assert rise > 100
        assert seen == pytest.approx(start + rise * own, abs=0.5)
