"""Concepts, clusters of maps and neighbours: what the report reads out of the run folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

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
    return written(run, concepts=2, strategies=True, keep="all")[0]


def test_the_page_of_concepts_is_the_factorisation_of_what_the_head_reads(
    run: Run, report: Path
) -> None:
    page = (report / "concepts.html").read_text("utf-8")
    stages = [(stage.id, stage.activation.array()) for stage in run.stages()]
    expected = factorise(stages, 2, 0)
    assert expected is not None
    assert f"Factorised are {len(stages)} of {len(stages)} images" in page
    assert f"explain {100 * expected.explained:.1f} % of the squared activations" in page
    shares = re.findall(r'<p class="note">([\d.]+) % of what the concepts explain', page)
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
    report, notes = written(open_run(made.path), concepts=3)
    assert len(notes) == 1 and notes[0].startswith("the report has no concepts: the run keeps no")
    assert not (report / "duplicates.html").exists()


def test_without_scikit_learn_it_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    for asked in ({"concepts": 3}, {"strategies": True}):
        with pytest.raises(ConfigError, match=r"scikit-learn is not .* 'exporter\[concepts\]'"):
            export("no.such:model", "no-such-folder", out=tmp_path / "run", **asked)
