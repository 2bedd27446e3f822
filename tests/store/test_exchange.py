"""A run handed to Quantus, to Hugging Face's datasets and to FiftyOne."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """FiftyOne with a database: that whose address is given, else one of a mongod on the PATH."""
    if importlib.util.find_spec("fiftyone") is None:
        pytest.skip("fiftyone is not installed")
    given, program = os.environ.get("FIFTYONE_DATABASE_URI"), shutil.which("mongod")
    if not given and not program:
        pytest.skip("FiftyOne has no database: no mongod, and no FIFTYONE_DATABASE_URI")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        if not given:
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                port = str(unused.getsockname()[1])
            place = str(tmp_path_factory.mktemp("database"))
            command = [str(program), "--bind_ip", "127.0.0.1", "--port", port, "--dbpath", place]
            started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(started.wait)
            stack.callback(started.terminate)
            patch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://127.0.0.1:{port}")
        yield importlib.import_module("fiftyone")


@pytest.mark.slow
def test_fiftyone_shows_views_predictions_boxes_and_maps(
    fiftyone: Any, make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
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


@pytest.mark.slow
def test_what_fiftyone_cannot_take_is_one_sentence_and_leaves_nothing(
    fiftyone: Any, exported: exporter.Run, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"views' cannot be written to: "):
        (tmp_path / "views").touch()
        exported.to_fiftyone(tmp_path / "views", name="mine")
    dataset = exported.to_fiftyone(tmp_path / "others", name="mine")
    assert dataset.count() == 3
    assert dataset.count_values("prediction.label")
    with pytest.raises(RunError, match=r"FiftyOne takes no data set of this name: .*'mine'"):
        exported.to_fiftyone(tmp_path / "others", name="mine")
    dataset.delete()


def test_without_fiftyone_it_says_what_to_install(
    exported: exporter.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(RunError, match=r"FiftyOne's needs fiftyone, .* pip install fiftyone"):
        exported.to_fiftyone(tmp_path / "views")
    assert not (tmp_path / "views").exists()


@pytest.mark.slow
def test_without_a_database_it_says_where_to_name_one(
    exported: exporter.Run, tmp_path: Path
) -> None:
    if importlib.util.find_spec("fiftyone") is None:
        pytest.skip("fiftyone is not installed")
    nobody = {
        "FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200",
        "FIFTYONE_DO_NOT_TRACK": "1",
    }
    program = "import exporter, sys; exporter.open_run(sys.argv[1]).to_fiftyone(sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(exported.path), str(tmp_path / "views")],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, **nobody, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "RunError: FiftyOne has no database: " in done.stderr
    assert "give its address in FIFTYONE_DATABASE_URI" in done.stderr
    assert not (tmp_path / "views").exists()
