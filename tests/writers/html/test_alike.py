"""Concepts, clusters of maps and neighbours: what the report reads out of the run folder."""

from __future__ import annotations

import json
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from pypdf import PdfReader
from torch import nn

from exporter import export
from exporter.config import WriterConfig
from exporter.demo import photographs
from exporter.errors import ConfigError
from exporter.store import Run, open_run
from exporter.summaries import cluster, factorise
from exporter.writers import options as settings
from exporter.writers import write
from exporter.writers.writing import writer_options
from tests.small import small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The bundled photographs, three of them a second time in coarser JPEG with another label."""
    place = tmp_path_factory.mktemp("alike")
    for photo in sorted(photographs().glob("*.jpg")):
        copies = ["a"] if photo.name > "c" else ["a", "b"]
        for label in copies:
            (place / "set" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, place / "set" / "a")
        if "b" in copies:
            coarse = [cv2.IMWRITE_JPEG_QUALITY, 80]
            cv2.imwrite(str(place / "set" / "b" / photo.name), cv2.imread(str(photo)), coarse)
    return export(small(), place / "set", out=place / "run", maps=["gradcam"], writers=())


def written(run: Run, **values: Any) -> tuple[Path, tuple[str, ...]]:
    made = write(run, "html", writer_options(run, WriterConfig(**values))["html"])
    return run.path / "html", made.notes


@pytest.fixture(scope="module")
def report(run: Run) -> Path:
    return written(run, concepts=2, strategies=True, keep="all", single_file=True)[0]


def test_the_page_of_concepts_is_the_factorisation_of_what_the_head_reads(
    run: Run, report: Path
) -> None:
    page = (report / "concepts.html").read_text("utf-8")
    stages = [(stage.id, stage.activation.array()) for stage in run.stages()]
    expected = factorise(stages, 2, 0)
    assert expected is not None
    assert f"{len(stages)} of {len(stages)} images were factorised" in page
    assert f"explain {100 * expected.explained:.1f}\xa0% of the squared activations" in page
    shares = re.findall(r'<p class="note">([\d.]+)\xa0% of what the concepts explain', page)
    assert shares == [f"{100 * share:.1f}" for share in expected.shares]
    # The first image of each concept is that with its strongest cell.
    for k, section in enumerate(page.split('<h2 id="concept-')[1:]):
        peaks = {id: maps[k].max() for id, maps in zip(expected.ids, expected.maps, strict=True)}
        assert re.search(r"#image=(\w[\w-]*)", section)[1] == max(peaks, key=lambda id: peaks[id])
    assert page.count("data:image/webp") >= 2 * 8 + 2


def test_near_duplicates_are_listed_and_their_labels_held_against_each_other(
    run: Run, report: Path
) -> None:
    page = (report / "duplicates.html").read_text("utf-8")
    paths = re.findall(r'<span class="path">([^<]+)</span>', page)
    pairs = {frozenset(pair) for pair in zip(paths[::2], paths[1::2], strict=True)}
    twice = {row.path.removeprefix("b/") for row in run.index if row.path.startswith("b/")}
    assert len(twice) >= 2
    assert {frozenset((f"a/{name}", f"b/{name}")) for name in twice} <= pairs
    assert page.count("labels differ") >= len(twice)


def test_the_viewer_is_told_the_nearest_images(run: Run, report: Path) -> None:
    script = (report / "data" / "index.js").read_text("utf-8")
    text = re.search(r"exporterIndex\('(.*)'\);", script, re.S)[1]
    index = json.loads(text.replace("\\'", "'").replace("\\\\", "\\").replace("\\u003c", "<"))
    rows = list(run.index)
    means = {s.id: s.activation.array().mean((1, 2)) for s in run.stages()}
    values = np.stack([means[row.id] for row in rows])
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    cosines = values @ values.T - 3 * np.eye(len(rows))
    for at in range(len(rows)):
        (nearest, cosine), *others = index["near"][str(at)]
        assert cosines[at, nearest] == pytest.approx(cosines[at].max(), abs=1e-6)
        assert cosine == pytest.approx(cosines[at].max(), abs=6e-4)
        assert len(others) == 5


def test_the_page_of_a_class_shows_the_clusters_of_its_maps(run: Run, report: Path) -> None:
    rows = list(run.rows(["predictions", "maps"]))
    predicted = [row.predictions[0].index for row in rows]
    index = max(predicted, key=predicted.count)
    maps = [
        np.maximum(row.maps[-1].array(), 0) for row in rows if row.predictions[0].index == index
    ]
    levels = np.stack([(m - m.min()) / (np.ptp(m) or 1) for m in maps])
    page = (report / "classes" / f"{index}.html").read_text("utf-8")
    assert "Strategies" in page
    assert f"the maps of {len(maps)} images predicted as this class" in page
    sizes = [int(n) for n in re.findall(r"<h3>Cluster \d+: (\d+) image", page)]
    assert sum(sizes) == len(maps)
    assert sizes == sorted(sizes, reverse=True)
    small_maps = np.stack([cv2.resize(m, (14, 14), interpolation=cv2.INTER_AREA) for m in levels])
    found = cluster(np.rint(255 * small_maps) / 255, 0)
    assert sizes == [len(part.members) for part in found.clusters]
    assert f"{found.eigenvalues[1]:.2f}" in page
    candidates = sum(part.candidate for part in found.clusters)
    assert page.count("Clever Hans candidate</span>") == candidates
    listed = (report / "classes.html").read_text("utf-8").partition('id="strategies"')[2]
    (said,) = re.findall(rf'classes/{index}\.html"[^>]*>[^<]*</a>: (\d+) cluster', listed)
    assert int(said) == len(sizes)
    (marks,) = re.findall(rf'classes/{index}\.html"(.*?)</li>', listed)
    assert (f"{candidates} Clever Hans candidate" in marks) == (candidates > 0)


@pytest.mark.browser
def test_on_a_phone_every_page_is_named_in_sight_and_nothing_is_wider(
    page: Any, report: Path
) -> None:
    for width in (360, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for name in ("concepts.html", "duplicates.html", "layers/1.html"):
            page.goto((report / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width, name
            boxes = [link.bounding_box() for link in page.locator(".top nav a").all()]
            assert len(boxes) == 8
            assert all(0 <= b["x"] <= width - b["width"] for b in boxes), name
        (still, *_) = page.locator(".top nav a[aria-current]").all()
        assert still.inner_text() == "Layers"


@pytest.mark.browser
def test_kernels_are_large_enough_for_a_finger(page: Any, tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2),
    )
    out = tmp_path / "run"
    export(model, photographs(), out=out, maps=["gradcam"], limit=1, writers=["html"])
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto((out / "html" / "kernels.html").as_uri())
    kernels = page.locator("[data-control=kernel-channel]")
    assert kernels.count() == 32
    assert all(min(k.bounding_box()[n] for n in ("width", "height")) >= 24 for k in kernels.all())
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.browser
def test_pictures_are_as_large_in_the_single_file_as_in_the_folder(page: Any, report: Path) -> None:
    def sizes(address: str, within: str) -> list[list[float]]:
        page.goto("about:blank")
        page.goto(address)
        page.locator(f"{within} h1").wait_for()
        found: list[list[float]] = page.locator(f"{within} img").evaluate_all(
            "all => all.map((one) => [one.offsetWidth, one.offsetHeight])"
        )
        return found

    for name in ("index", "methods", "concepts", "duplicates"):
        whole = sizes((report / f"{name}.html").as_uri(), "main")
        assert len(whole) >= 1, name
        assert sizes(f"{(report / 'report.html').as_uri()}#page-{name}", f"#page-{name}") == whole


@pytest.mark.browser
def test_a_printed_concept_stands_on_the_sheet_of_its_heading(page: Any, report: Path) -> None:
    page.goto((report / "concepts.html").as_uri())
    titles = page.locator("section h2").all_inner_texts()
    assert [title.strip() for title in titles] == ["Concept 1", "Concept 2", "Image by image"]
    for centimetres in range(16, 34, 2):
        content = page.pdf(print_background=True, width="21cm", height=f"{centimetres}cm")
        sheets = [sheet.extract_text() for sheet in PdfReader(BytesIO(content)).pages]
        for title, picture in zip(titles, ("strongest cell", "strongest cell", ""), strict=True):
            (after,) = [
                words.partition(title.strip())[2] for words in sheets if title.strip() in words
            ]
            assert picture in after, f"{title} is alone at the end of a sheet of {centimetres} cm"


@pytest.mark.browser
def test_printed_channels_have_all_their_images_in_their_own_row(
    page: Any, report: Path, until: Any
) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 1123})
    page.goto((report / "layers" / "3.html").as_uri())
    until(page, "document.querySelectorAll('.channels tbody tr .tops').length === 8")
    rows = page.locator(".channels tbody tr").evaluate_all(
        """all => all.map(row => [row, ...row.querySelectorAll('.tops li')].map(
          one => one.getBoundingClientRect().bottom))"""
    )
    assert len(rows) == 8
    for bottom, *images in rows:
        assert len(set(images)) > 1  # in several lines
        assert max(images) <= bottom


def test_what_is_not_asked_for_is_not_there(run: Run) -> None:
    report, notes = written(run)
    assert not (report / "concepts.html").exists()
    assert not any("Strategies" in page.read_text() for page in (report / "classes").iterdir())
    assert notes == ()


def test_a_run_without_a_whole_layer_says_so(tmp_path: Path) -> None:
    made = export(
        small(),
        photographs(),
        out=tmp_path / "run",
        maps=["gradcam"],
        limit=3,
        live=False,
        writers=(),
    )
    report, notes = written(open_run(made.path), concepts=3, strategies=True)
    assert [note.partition(": ")[::2] for note in notes] == [
        ("the report has no concepts", mock.ANY),
        (
            "the report has no strategies",
            "no class is predicted for 12 images or more that have a map",
        ),
    ]
    assert not (report / "duplicates.html").exists()


def test_without_scikit_learn_it_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    for asked in ({"concepts": 3}, {"strategies": True}):
        with pytest.raises(ConfigError, match=r"scikit-learn is not .* 'exporter\[concepts\]'"):
            export("no.such:model", "no-such-folder", out=tmp_path / "run", **asked)
