"""The demo is real: a trained model that knows a cat and an espresso, and all writers, offline."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.demo import photographs
from exporter.store import check, open_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of ``exporter demo``."""
    out = tmp_path_factory.mktemp("demo") / "run"
    assert main(["demo", "--out", str(out)]) == 0
    return out


def test_the_photographs_are_enough_small_and_credited() -> None:
    import cv2

    files = sorted(photographs().glob("*.jpg"))
    assert len(files) >= 12
    credits = (photographs() / "CREDITS.md").read_text(encoding="utf-8")
    for file in files:
        height, width = cv2.imread(str(file)).shape[:2]
        assert max(height, width) <= 500
        assert file.name in credits
    assert {"chelsea.jpg", "coffee.jpg"} <= {file.name for file in files}


def test_it_knows_the_cat_and_the_espresso(demo: Path) -> None:
    said = {row.path: row.predictions[0].name for row in open_run(demo).rows()}
    assert said["chelsea.jpg"].lower() in {"tiger cat", "tabby", "egyptian cat"}
    assert said["coffee.jpg"].lower() == "espresso"


def test_the_maps_of_the_cat_look_at_the_cat(demo: Path) -> None:
    run = open_run(demo)
    row = next(row for row in run.rows() if row.path == "chelsea.jpg")
    stored = run.map(row.id, "gradcam", run.plan.explained[-1]).clip(min=0)
    # The face fills the middle of the photograph; its border shows a blanket.
    rows, columns = stored.shape
    middle = stored[rows // 7 : -(rows // 7), columns // 7 : -(columns // 7)]
    assert middle.mean() > stored.mean()


def test_the_run_is_whole_and_all_three_writers_wrote(demo: Path) -> None:
    assert check(demo) == ()
    assert (demo / "html/index.html").exists()
    assert list((demo / "tensorboard").rglob("events.out.tfevents.*"))
    assert list((demo / "wandb").rglob("*.wandb"))


def test_it_says_how_to_open_what_was_written_and_a_second_demo_replaces_the_first(
    demo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    shutil.copytree(demo, out)
    assert main(["demo", "--out", str(out)]) == 0
    said = capfd.readouterr().out
    assert re.search(r"html +.*index\.html", said)
    assert re.search(r"exporter tensorboard ", said)
    assert re.search(r"exporter sync ", said)


def test_a_run_that_is_no_demo_is_not_replaced(
    sample_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    shutil.copytree(sample_run, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(["demo", "--out", str(out)]) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_nothing_is_written_outside_the_run(demo: Path) -> None:
    assert [path.name for path in demo.parent.iterdir()] == ["run"]
