"""A run handed to Quantus, to Hugging Face's datasets and to FiftyOne."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import exporter
from exporter.errors import RunError
from tests.small import small

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("exchange") / "run"
    steps = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    exporter.export(
        small(), PHOTOS, out=out, limit=3, maps=["gradcam", "saliency"], writers=(),
        preprocessing=steps, layers=["0", "2"],
    )  # fmt: skip
    return exporter.open_run(out)


def test_quantus_is_given_inputs_classes_and_maps(exported: Any) -> None:
    x, y, a = exported.to_quantus("gradcam", "2")
    rows = list(exported.rows())
    assert (x.shape, y.shape, a.shape) == ((3, 3, 32, 32), (3,), (3, 1, 32, 32))
    assert (x.dtype, y.dtype, a.dtype) == (np.float32, np.int64, np.float32)
    model = small().eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(x)).softmax(1)
    for number, row in enumerate(rows):
        assert y[number] == row.predictions[0].index
        # What the model was given, but for JPEG.
        assert logits[number, y[number]].item() == pytest.approx(row.predictions[0].score, abs=0.02)
        view = cv2.imdecode(np.frombuffer(row.image, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] / 255
        normal = (view - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
        assert np.allclose(x[number], normal.transpose(2, 0, 1), atol=1e-5)
        raw = np.maximum(exported.map(row.id, "gradcam", "2"), 0)
        assert np.allclose(a[number, 0], cv2.resize(raw, (32, 32)))
    assert exported.to_quantus("saliency")[2].shape == (3, 1, 32, 32)
    assert len(exported.to_quantus("gradcam", limit=2)[1]) == 2


def test_what_quantus_cannot_be_given_is_one_sentence(exported: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the run has no maps of 'grad'; did you mean 'gradcam'"):
        exported.to_quantus("grad")
    exporter.export(
        small(), PHOTOS, out=tmp_path / "run", limit=1, maps=["gradcam"], writers=(),
        preprocessing={"size": 32}, target="value:0",
    )  # fmt: skip
    with pytest.raises(RunError, match=r"Quantus is given classes, and the map of '.*' explains '"):
        exporter.open_run(tmp_path / "run").to_quantus("gradcam")


def test_quantus_measures_a_run(exported: Any) -> None:
    quantus = pytest.importorskip("quantus")
    x, y, a = exported.to_quantus("gradcam", "2")
    metric = quantus.Sparseness(disable_warnings=True, display_progressbar=False)
    scores = metric(model=small().eval(), x_batch=x, y_batch=y, a_batch=a, device="cpu")
    assert len(scores) == 3
    values = np.sort(np.abs(a[0].ravel()) + 1e-7)
    places = np.arange(1, values.size + 1)
    gini = ((2 * places - values.size - 1) * values).sum() / (values.size * values.sum())
    assert scores[0] == pytest.approx(gini, abs=1e-3)


def test_a_data_set_has_a_row_per_image(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    datasets.disable_progress_bars()
    there = exported.to_datasets()
    rows = list(exported.rows())
    assert there.num_rows == 3
    assert isinstance(there.features["image"], datasets.Image)
    assert isinstance(there.features["gradcam overlay"], datasets.Image)
    for example, row in zip(there, rows, strict=True):
        assert (example["id"], example["path"], example["error"]) == (row.id, row.path, None)
        assert example["predicted"] == row.predictions[0].name
        assert example["score"] == pytest.approx(row.predictions[0].score)
        assert example["image"].size == (32, 32)
        assert example["target"] == f"class:{row.predictions[0].index}"
        assert np.array_equal(np.float32(example["gradcam"]), exported.map(row.id, "gradcam"))
        shown = np.asarray(exported.overlay(row.id, "gradcam"))
        assert np.array_equal(np.asarray(example["gradcam overlay"]), shown)


@pytest.mark.slow
def test_fiftyone_shows_views_predictions_boxes_and_maps(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    fiftyone = pytest.importorskip("fiftyone")
    street = sampling.SampleImage(
        "street.jpg",
        sampling.CLASSES[0],
        boxes=((60.0, 20.0, 200.0, 140.0),),
        predicted_boxes=((70.0, 30.0, 210.0, 150.0), (80.0, 100.0, 180.0, 260.0)),
    )
    run = exporter.open_run(make_run(tmp_path / "run", images=[street]))
    dataset = run.to_fiftyone(tmp_path / "views")
    assert isinstance(dataset, fiftyone.Dataset)
    (row,) = run.rows()
    (sample,) = dataset
    assert Path(sample.filepath).read_bytes() == row.image
    assert (sample.run_id, sample.path) == (row.id, "street.jpg")
    assert sample.ground_truth.label == row.label
    best = row.predictions[0]
    assert (sample.prediction.label, sample.prediction.confidence) == (best.name, best.score)
    left, top, right, bottom = row.crop
    (given,) = sample.ground_truth_boxes.detections
    assert given.bounding_box == pytest.approx(
        [
            (60 - left) / (right - left),
            (20 - top) / (bottom - top),
            140 / (right - left),
            120 / (bottom - top),
        ]
    )
    assert len(sample.predicted_boxes.detections) == 2
    for method in run.plan.methods:
        shown = sample[method.name]
        np.testing.assert_array_equal(shown.map, run.map(row.id, method.name))
        assert shown.range == [shown.map.min(), shown.map.max()]
    dataset.delete()


def test_without_fiftyone_it_says_what_to_install(
    exported: exporter.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(RunError, match=r"FiftyOne's needs fiftyone, .* pip install fiftyone"):
        exported.to_fiftyone(tmp_path / "views")
    assert not (tmp_path / "views").exists()
