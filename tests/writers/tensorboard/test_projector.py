"""The projector: its points are what the head reads, and its page is served with pictures."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import exporter
from exporter.demo import photographs
from exporter.render import decode_image
from exporter.store import Run, open_run
from exporter.writers import links, write
from exporter.writers.tensorboard import TensorBoardOptions
from exporter.writers.tensorboard.serving import serve
from tests.small import small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the small model over five photographs, in whose log the projector is added."""
    base = tmp_path_factory.mktemp("projector")
    made = exporter.export(
        small(),
        photographs(),
        out=base / "run",
        maps=["gradcam"],
        limit=5,
        step=4,
        embeddings=True,
        tensorboard_dir=base / "logs",
        writers=["tensorboard"],
    )
    assert isinstance(made, Run)
    return made


def test_points_are_what_the_head_reads(run: Run) -> None:
    (folder,) = (run.path / "tensorboard").glob("*/embeddings@4")
    features = np.frombuffer((folder / "features.bytes").read_bytes(), "<f4").reshape(5, 8)
    head = small()[-1]
    with torch.no_grad():
        shares = head(torch.tensor(features)).softmax(1).numpy()
    lines = [line.split("\t") for line in (folder / "images.tsv").read_text().splitlines()]
    assert lines[0][:4] == ["path", "label", "prediction", "confidence"]
    for row, cells, own in zip(run.rows(), lines[1:], shares, strict=True):
        assert (cells[0], cells[5]) == (row.path, row.id)
        assert own.max() == pytest.approx(row.confidence, abs=2e-3)
    sprite = decode_image((folder / "sprite.jpg").read_bytes())
    assert sprite.shape == (3 * 64, 3 * 64, 3)  # five in rows of three
    assert sprite[64:128, 128:].min() > 240
    logs = run.path.parent / "logs"
    assert sorted(file.name for file in logs.glob("*/embeddings@4/*")) == sorted(
        file.name for file in folder.iterdir()
    )


def test_a_run_without_a_head_says_why(sample_run: Path, tmp_path: Path) -> None:
    copy = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    written = write(copy, "tensorboard", TensorBoardOptions(embeddings=True))
    assert "the projector is left out: the run was made without --live" in written.notes
    assert not list((copy.path / "tensorboard").rglob("projector_config.pbtxt"))


@pytest.mark.slow
def test_the_projector_s_page_is_given_points_names_and_pictures(run: Run) -> None:
    with serve([run.path], port=0) as views:
        address = dict(views)["similar images"].removesuffix("#projector")

        def asked(route: str, **query: str) -> bytes:
            url = f"{address}data/plugin/projector/{route}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read()

        for _ in range(100):
            names = json.loads(asked("runs"))
            if names:
                break
            time.sleep(0.1)
        (name,) = names
        assert name.endswith("/embeddings@4")
        (told,) = json.loads(asked("info", run=name))["embeddings"]
        assert told["tensorShape"] == [5, 8]
        points = asked("tensor", run=name, name=told["tensorName"])
        assert len(points) == 5 * 8 * 4
        assert asked("metadata", run=name, name=told["tensorName"]).count(b"\n") >= 5
        assert asked("sprite_image", run=name, name=told["tensorName"])[:2] == b"\xff\xd8"


@pytest.mark.slow
@pytest.mark.browser
def test_the_projector_in_the_real_page(run: Run, chromium: Any) -> None:
    """Pictures are its points; whoever looks for one is told what it is and where it is shown."""
    report = "https://example.org/report/"
    kept = tuple(row.id for row in run.index)
    write(run, "tensorboard", TensorBoardOptions(kept=kept, embeddings=True, report_url=report))
    row = next(row for row in run.rows() if "astronaut" in row.path)
    with serve([run.path], port=0) as views, chromium.new_page() as page:
        page.goto(dict(views)["similar images"])
        frame = page.frame_locator("iframe").frame_locator("iframe")
        frame.get_by_text("Points: 5").wait_for(timeout=60_000)
        assert frame.get_by_text("Dimension: 8").is_visible()
        frame.locator("#search-box input").press_sequentially("astronaut")
        card = frame.locator("vz-projector-metadata-card")
        card.get_by_text(row.id, exact=True).wait_for()
        keys, told = (
            card.locator(f".metadata-{part}").all_inner_texts() for part in ("key", "value")
        )
        assert dict(zip(keys, told, strict=True)) == {
            "path": row.path,
            "label": "",
            "prediction": row.predictions[0].name,
            "confidence": f"{row.confidence:.3g}",
            "right": "",
            "id": row.id,
            "report": links.report_image_link(report, row),
        }
        # Beside it the others, each with its own picture.
        pictures = {row.path: small_grey(decode_image(row.image or b"")) for row in run.rows()}
        told = []
        for near in frame.locator(".nn-list .neighbor").all():
            shown = small_grey(decode_image(near.locator(".sprite-image").screenshot()))
            likest = max(pictures, key=lambda path: np.corrcoef(shown, pictures[path])[0, 1])
            assert near.locator(".label").inner_text() == likest
            told.append(likest)
        assert sorted([*told, row.path]) == sorted(pictures)


def small_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    shrunk = cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA)
    return shrunk.mean(axis=2).ravel()


def test_a_summary_writer_s_log_gets_the_run_and_it_stays_open(run: Run, tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    copy = open_run(shutil.copytree(run.path, tmp_path / "run"))
    with SummaryWriter(str(tmp_path / "training")) as writer:
        writer.add_scalar("loss", 1.0, 1)
        options = TensorBoardOptions(kept=(next(copy.index).id,), step=9, summary_writer=writer)
        write(copy, "tensorboard", options)
        writer.add_scalar("loss", 0.5, 2)
        own = {folder.name for folder in (tmp_path / "training").glob("*/*") if folder.is_dir()}
        assert own == {"gradcam", "input"}
    (training,) = (tmp_path / "training").glob("events*")
    values = [v for e in EventFileLoader(str(training)).Load() for v in e.summary.value]
    assert [value.tag for value in values] == ["loss", "loss"]
    with pytest.raises(ValueError, match="not a SummaryWriter"):
        TensorBoardOptions(summary_writer="logs")
