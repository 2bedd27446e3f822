"""A run folder written by version 80828a6 still opens, renders and checks.

``tests/data/run-80828a6`` was made by that version, from a relative folder with four photographs
of 48 pixels and a missing file, and a model of two convolutions::

    exporter run --config run.toml --model tiny.py:factory --images labels.csv --out run-80828a6
      --map gradcam --map layercam --layer features.1 --layer features.3 --quality
      --maximise features.2:0:steps=4,size=24 --maximise output:cup:steps=4,size=24
      --kernel features.0 --classes classes.txt --shard-size 3 --top-k 3

    # tiny.py, after torch.manual_seed(0)
    features = Sequential(Conv2d(3, 6, 3, stride=2, padding=1), ReLU(),
                          Conv2d(6, 8, 3, stride=2, padding=1), ReLU())
    logits = Linear(8, 4)(features(images).mean((2, 3)))

    # labels.csv
    path,label,boxes
    photos/astronaut.jpg,person,"[[5, 5, 30, 40]]"
    photos/cell.jpg,cell,
    photos/coffee.jpg,cup,
    photos/missing.jpg,cat,
    photos/chelsea.jpg,cat,

    # run.toml
    preprocessing = { size = 32, resize = 32 }

What the writers made of it was left out; never write it anew with a later version.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import exporter
from exporter.cli import main
from exporter.store import check

OLD = Path(__file__).parent / "data" / "run-80828a6"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_the_plan_is_read() -> None:
    run = exporter.open_run(OLD)
    assert run.complete
    assert run.plan.model.name == "factory"
    assert run.plan.model.classes == ("person", "cell", "cup", "cat")
    assert run.plan.model.preprocessing.size == (32, 32)
    assert run.plan.model.preprocessing.resize == 32
    assert run.plan.layers[0].output == (8, 8, 8)
    assert [method.name for method in run.plan.methods] == ["gradcam", "layercam"]
    assert run.plan.recorded == ("features.1", "features.2", "features.3")
    assert run.plan.shards == ((0, 3), (3, 5))
    assert run.plan.images[0].boxes == ((5.0, 5.0, 30.0, 40.0),)
    assert run.plan.images[3].error == "the file cannot be read: no such file or directory"
    assert run.settings["maps"] == ["gradcam", "layercam"]


def test_the_rows_are_read() -> None:
    run = exporter.open_run(OLD)
    rows = list(run.rows())
    assert [row.path for row in rows] == [image.path for image in run.plan.images]
    assert [row.error is None for row in rows] == [True, True, True, False, True]
    first = rows[0]
    assert first.label == "person"
    assert first.predictions[0].name == "cup"
    assert first.predictions[0].score == pytest.approx(0.2879, abs=1e-4)
    assert first.crop == pytest.approx((0, 0, 48, 48))
    assert run.image(first.id).startswith(b"\xff\xd8")
    assert len(first.activations) == 3
    assert first.activations[0].array().shape == (6, 16, 16)
    assert len(first.maps) == 4
    for stored in first.maps:
        assert run.map(first.id, stored.method, stored.layer) == pytest.approx(stored.array())


def test_the_set_is_read() -> None:
    run = exporter.open_run(OLD)
    assert run.totals is not None
    assert (run.totals.images, run.totals.read, run.totals.labelled) == (5, 4, 4)
    assert run.totals.skipped == (
        ("photos/missing.jpg", "the file cannot be read: no such file or directory"),
    )
    summary = run.summary
    assert summary is not None
    assert summary.accuracy == 0.25
    assert summary.loss == pytest.approx(1.3789989054203033)
    assert summary.calibration_error == pytest.approx(0.0388607457280159)
    assert len(summary.bins) == 15
    assert summary.strips[0].name == "most wrong"
    assert [row.name for row in run.classes()] == ["person", "cell", "cup", "cat"]
    assert [(row.label, row.predicted) for row in run.confusion()] == [(0, 2), (1, 2), (3, 2)]
    assert [(row.method, row.layer) for row in run.methods()] == [
        (method, layer)
        for method in ("gradcam", "layercam")
        for layer in ("features.1", "features.3")
    ]
    assert len(run.agreement()) == 2
    assert [row.array().shape for row in run.class_maps(2)] == [(8, 8), (8, 8)]
    assert len(run.channels()) == 6 + 8 + 8
    assert len(run.channels("features.1")[0].top) == 4
    assert [row.method for row in run.faithfulness()] == ["gradcam", "layercam"]
    assert len(list(run.image_faithfulness())) == 8
    assert [picture.name for picture in run.maximised()] == ["", "cup"]
    (kernels,) = run.kernels()
    assert run.kernel_values(kernels).shape == kernels.shape == (6, 3, 3, 3)


def test_it_checks() -> None:
    assert check(OLD) == ()


@pytest.mark.parametrize("writer", ["html", "tensorboard"])
def test_it_renders(old_run: Path, writer: str) -> None:
    assert main(["render", str(old_run), "--writer", writer]) == 0
    assert any((old_run / writer).iterdir())
    assert main(["check", str(old_run)]) == 0
