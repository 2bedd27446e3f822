"""The set's summaries through the real exporter: cut, killed, resumed, and read back."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import exporter
from exporter.records import ImageMeasures
from exporter.store import Run, check, open_run
from tests.small import small

SETTINGS: dict[str, Any] = {
    "writers": (),
    "preprocessing": {"size": 32},
    "layers": ("1", "3"),
    "maps": ("gradcam", "eigencam"),
    "batch_size": 1,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a list of 21 labelled photographs; the first has a mask and the second boxes."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    lines = ["path,label,mask,boxes"]
    for n in range(21):
        pixels = noise.integers(0, 255, (40, 40, 3)) * (n % 4) // 3
        cv2.imwrite(str(folder / f"{n:02d}.png"), pixels)
        given = {0: "mask.png,", 1: ',"[[0, 0, 20, 20]]"', 2: "absent.png,"}.get(n, ",")
        lines.append(f"{n:02d}.png,{n % 4},{given}")
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[:20, :20] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "list.csv").write_text("\n".join([*lines, "broken.png,1,,"]))
    return folder / "list.csv"


def run(images: Path, out: Path, **settings: Any) -> Run:
    names = out.parent / "classes.txt"
    names.write_text("0\n1\n2\n3\n")
    return exporter.export(small(), images, out=out, classes=names, **SETTINGS | settings)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(images, tmp_path_factory.mktemp("whole") / "run", shard_size=22)


def merged(run: Run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run.path / "set").iterdir())}


def same(value: Any, other: Any) -> bool:
    """Say whether two values are equal, their numbers to 1e-12."""
    if isinstance(value, float):
        return bool(value == pytest.approx(other, rel=1e-12, abs=1e-12))
    if isinstance(value, tuple | list):
        return len(value) == len(other) and all(map(same, value, other))
    if is_dataclass(value):
        return same(list(vars_of(value)), list(vars_of(other)))
    return bool(value == other)


def vars_of(record: Any) -> Iterator[Any]:
    return (getattr(record, field.name) for field in fields(record))


@pytest.mark.parametrize("size", [8, pytest.param(3, marks=pytest.mark.slow)])
def test_any_cut_into_shards_gives_the_same_numbers(
    images: Path, whole: Run, tmp_path: Path, size: int
) -> None:
    cut = run(images, tmp_path / "run", shard_size=size)
    assert len(cut.shards) == -(-22 // size)
    for name in ("classes", "confusion", "methods", "agreement", "class_maps", "channels"):
        assert same(getattr(cut, name)(), getattr(whole, name)()), name
    assert same(cut.summary, whole.summary)
    assert list(cut.measures()) == list(whole.measures())
    assert check(cut.path) == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost",
    [
        "summaries/00001-set.parquet",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "summaries/00001-images.parquet",
                "set/summary.json",
                "set/classes.parquet",
            )
        ),
    ],
)
def test_what_is_lost_is_told_and_made_again(
    images: Path, whole: Run, tmp_path: Path, lost: str
) -> None:
    cut = run(images, tmp_path / "run", shard_size=8)
    before = {file: file.read_bytes() for file in (cut.path / "summaries").iterdir()}
    told = merged(cut)
    (cut.path / lost).unlink()
    assert any(problem.startswith(f"{lost} is missing") for problem in check(cut.path))
    run(images, tmp_path / "run", shard_size=8, resume=True)
    assert merged(cut) == told
    assert {file: file.read_bytes() for file in before} == before
    assert check(cut.path) == ()


@pytest.mark.slow
def test_what_was_changed_is_told(whole: Run, images: Path, tmp_path: Path) -> None:
    cut = run(images, tmp_path / "run", shard_size=8)
    (cut.path / "set" / "summary.json").write_text("{}")
    assert "set/summary.json has changed since it was written" in "\n".join(check(cut.path))
    with pytest.raises(exporter.errors.RunError, match="damaged"):
        _ = cut.summary


def test_the_numbers_are_those_of_the_rows(whole: Run) -> None:
    rows = list(whole.index)
    told = whole.summary
    assert told is not None
    assert (told.images, told.read, told.labelled) == (22, 21, 21)
    assert told.accuracy == sum(row.correct is True for row in rows) / 21
    assert told.accuracy == whole.totals.correct / whole.totals.labelled
    assert sum(one.images for one in told.bins) == 21
    assert (told.image_map, told.class_map_layer) == (("gradcam", "3"), "3")
    classes = whole.classes()
    assert sum(row.support for row in classes) == sum(row.predicted for row in classes) == 21
    wrong = [row for row in rows if row.correct is False]
    assert sum(pair.images for pair in whole.confusion()) == len(wrong)
    assert len(whole.confusion(1)) == min(1, len(wrong))
    assert [(row.method, row.layer) for row in whole.methods()] == [
        (method, layer) for method in ("gradcam", "eigencam") for layer in ("1", "3")
    ]
    assert [(row.layer, row.first, row.second) for row in whole.agreement()] == [
        (layer, "gradcam", "eigencam") for layer in ("1", "3")
    ]


def test_strips_hold_images_of_the_run(whole: Run) -> None:
    told = whole.summary
    assert told is not None
    strips = {strip.name: strip for strip in told.strips}
    first = {row.id: row.predictions[0] for row in whole.index if row.predictions}
    before = strips["most wrong"].ids if "most wrong" in strips else ()
    left: Counter[int] = Counter()
    expected = []
    for id in sorted(first.keys() - set(before), key=lambda id: (first[id].score, id)):
        left[first[id].index] += 1
        expected += [id] if left[first[id].index] <= 2 else []
    shown = strips["least sure"].ids
    assert len(shown) >= 2
    assert shown == tuple(expected[: len(shown)])
    agreement = [
        next(one.agreement for one in whole.measures() if one.id == id)
        for id in strips["most disagreeing"].ids
    ]
    assert agreement == sorted(agreement)


def test_masks_and_boxes_are_measured(whole: Run) -> None:
    measures: list[ImageMeasures] = list(whole.measures())
    assert [n for n, one in enumerate(measures) if one.box_overlap is not None] == [0, 1]
    assert whole.methods()[0].annotated == 2
    for one in measures[:2]:
        # The mask of the first and the box of the second are both (0, 0, 20, 20).
        row = whole.row(one.id)
        left, top, right, bottom = row.crop or ()
        y, x = (
            np.clip((20 - np.linspace(start, stop, 8)[:-1]) / (stop - start) * 7, 0, 1)
            for start, stop in ((top, bottom), (left, right))
        )
        values = np.maximum(whole.map(one.id, "gradcam", "3"), 0)
        if values.any():
            expected = (values * np.outer(y, x)).sum() / values.sum()
            assert one.box_energy == pytest.approx(expected, abs=0.02)


def test_class_maps_are_read_as_arrays(whole: Run) -> None:
    index = whole.classes()[0].index
    maps = [one for one in whole.class_maps() if one.index == index]
    assert list(whole.class_maps(index)) == maps
    for one in maps:
        assert one.array().shape == (7, 7)
        assert 0 <= one.array().min() <= one.array().max() <= 1


def test_a_run_without_a_set_opens(sample_run: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_run, tmp_path / "old")
    shutil.rmtree(tmp_path / "old/set")
    for pattern in ("*-set.parquet", "*-images.parquet"):
        for part in (tmp_path / "old/summaries").glob(pattern):
            part.unlink()
    old = open_run(tmp_path / "old")
    assert old.summary is None
    assert list(old.measures()) == []
    assert (old.classes(), old.confusion(), old.methods(), old.agreement()) == ((), (), (), ())
    assert (old.class_maps(), old.redundant()) == ((), ())
