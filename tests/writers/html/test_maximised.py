"""Maximised pictures in the report: beside the channels that they excite, and with the classes."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.config import WriterConfig
from exporter.render import decode_image
from exporter.store import Run, open_run
from exporter.writers import write
from exporter.writers.html import HtmlOptions
from exporter.writers.writing import writer_options

HOW = "128 steps of 0.05, shifted anywhere, zoomed up to 15 %, seed 0"


@pytest.fixture(scope="module")
def run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(shutil.copytree(sample_run, tmp_path_factory.mktemp("maximised") / "run"))


@pytest.fixture(scope="module")
def report(run: Run) -> Path:
    write(run, "html", writer_options(run, WriterConfig(single_file=True))["html"])
    return run.path / "html"


def page_of(report: Path, layer: str) -> str:
    text = (report / "layers.html").read_text("utf-8")
    found = re.search(rf'href="(layers/\d+\.html)"[^>]*>(?:<code>)?{layer}<', text)
    assert found is not None
    return html.unescape((report / found[1]).read_text("utf-8"))


def test_the_pictures_are_the_run_s(run: Run, report: Path) -> None:
    """Pixel for pixel as near as JPEG comes to noise: far nearer than to any other."""
    files = sorted((report / "maximised").rglob("*.jpg"), key=lambda file: int(file.stem))
    shown = np.stack([decode_image(file.read_bytes()) for file in files]).astype(int)
    stored = np.stack([decode_image(one.picture) for one in run.maximised()])
    apart = np.abs(shown[:, None] - stored[None]).mean(axis=(2, 3, 4))
    assert (apart.diagonal() < 20).all()
    assert (apart[~np.eye(len(files), dtype=bool)] > 60).all()


def test_a_channel_has_its_picture_beside_its_strongest_images(report: Path) -> None:
    text = page_of(report, "layer4")
    assert f"2 pictures: fourier prior, {HOW}." in text
    gallery = re.search(r'<ul class="made">.*?</ul>', text, re.DOTALL)
    assert gallery is not None
    assert re.findall(r"<b>(.*?)</b>", gallery[0]) == ["channel 17", "channel 2"]
    rows = re.findall(r'<tr id="c(\d+)">.*?<img class="made-small"[^>]*src="([^"]+)"', text)
    assert rows == [("2", "../maximised/00/1.jpg"), ("17", "../maximised/00/0.jpg")]
    alt = "Picture optimised from noise to excite channel 17 of layer4, from 0 to 4.5"
    assert text.count(f'alt="{alt}"') == 2


def test_caption_numbers_stand_beside_those_of_the_images(run: Run, report: Path) -> None:
    row = next(one for one in run.channels("layer4") if one.channel == 2)
    said = re.sub(r"<[^>]+>", "", page_of(report, "layer4"))
    assert f"mean 5.5 (noise 0.125, images {row.mean:.4g})" in said
    assert f"peak 9.25 (images {row.maximum:.4g})" in said


def test_a_layer_that_is_not_recorded_has_a_page_of_its_pictures(report: Path) -> None:
    text = page_of(report, "fc")
    assert "channel 5" in text
    assert "not a number" in text
    assert "channels" not in re.findall(r'<table class="([^"]+)"', text)


def test_classes_have_theirs_on_the_page_of_all_and_on_their_own(report: Path) -> None:
    text = html.unescape((report / "classes.html").read_text("utf-8"))
    gallery = text[text.index('class="made"') :]
    assert re.findall(r'href="(classes/\d+\.html)"', gallery)[:2] == [
        "classes/5.html",
        "classes/2.html",
    ]
    assert f"2 pictures: no prior, {HOW}." in text
    own = html.unescape((report / "classes/2.html").read_text("utf-8"))
    assert 'src="../maximised/00/4.jpg"' in own
    assert "to excite espresso, from 0.5 to 8.5" in own
    assert "made" not in re.findall(r'class="(\w+)"', (report / "classes/0.html").read_text())


def test_the_single_file_has_them_too(report: Path) -> None:
    text = (report / "report.html").read_text("utf-8")
    sources = re.findall(r'<img [^>]*src="data:image/jpeg[^>]*optimised from noise', text)
    assert len(sources) == 9  # two channels twice, one once, two classes twice


def test_a_run_without_them_says_nothing_of_them(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", shards=1)
    write(open_run(run), "html", HtmlOptions(kept=()))
    assert not (run / "html/maximised").exists()
    assert not (run / "html/classes.html").exists()
    for page in (run / "html").rglob("*.html"):
        assert "aximised" not in page.read_text("utf-8")
