"""Image sources: which one takes a place, what a plug-in can do, what its mistakes become."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter
from exporter.errors import ConfigError, ImageError, ImageSetError
from exporter.images import Entry, hash_contents, open_images, reopen_images
from exporter.images.registry import BUILT_IN
from exporter.records import Preprocessing
from tests.starting import ran

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-an-image-source.md"
SMALL = Preprocessing((8, 8), (8, 8))
PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    )
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install modules with entry points, as pip would: a folder on the path with its metadata."""
    folder = tmp_path / "installed"
    monkeypatch.syspath_prepend(str(folder))

    def install(code: str, module: str, **sources: str) -> Path:
        metadata = folder / f"{module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        points = "".join(f"{name} = {module}:{value}\n" for name, value in sources.items())
        (metadata / "entry_points.txt").write_text(f"[exporter.sources]\n{points}")
        return folder

    yield install
    for name in [n for n in sys.modules if n.startswith("plugged_")]:
        del sys.modules[name]


@pytest.fixture
def archive(tmp_path: Path, photos: Path) -> Path:
    """A ZIP archive of three photographs and a text."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for inside in ("cat/10.jpg", "cat/9.jpg", "cup/1.jpg"):
            name = "chelsea.jpg" if inside.startswith("cat") else "coffee.jpg"
            archive.writestr(inside, (photos / name).read_bytes() + inside.encode())
        archive.writestr("notes.txt", "no image")
    return tmp_path / "photos.zip"


def example() -> str:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_the_pages_example_runs_from_outside_the_package(
    install: Install, archive: Path, tmp_path: Path
) -> None:
    folder = install(example(), "zip_images", zip="ZipSource")
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    out = tmp_path / "run"
    command = "run --model model.py:small --config run.toml --out run --map gradcam --writer html"
    done = ran(*command.split(), "--images", f"zip:{archive}", at=tmp_path, path=(folder,))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "plug-in 'zip'" in done.stdout + done.stderr
    run = exporter.open_run(out)
    assert [(row.path, row.label, row.error) for row in run.rows()] == [
        ("cat/9.jpg", "cat", None),
        ("cat/10.jpg", "cat", None),
        ("cup/1.jpg", "cup", None),
    ]
    with zipfile.ZipFile(archive) as files:
        assert [image.key for image in run.plan.images] == [
            hash_contents(files.read(image.path)) for image in run.plan.images
        ]
    command = "run --model model.py:small --config run.toml --out other --images zip:nowhere.zip"
    missing = ran(*command.split(), at=tmp_path, path=(folder,))
    assert missing.returncode == 2
    assert "the archive 'nowhere.zip' cannot be opened" in missing.stderr


def test_without_a_prefix_matches_decides(install: Install, archive: Path) -> None:
    with pytest.raises(ImageSetError, match="neither an image nor a list"):
        open_images(archive)
    install(example(), "plugged_zip", zip="ZipSource")
    images = open_images(str(archive))
    assert images.kind == "plug-in 'zip'"
    assert len(images.entries) == 3


def test_two_plug_ins_that_take_a_place_are_told_apart_by_their_prefix(
    install: Install, archive: Path
) -> None:
    install(example(), "plugged_zip", zip="ZipSource", archive="ZipSource")
    with pytest.raises(ImageSetError, match=r"archive:.*photos.zip or zip:.*photos.zip"):
        open_images(str(archive))
    assert open_images(f"zip:{archive}").kind == "plug-in 'zip'"


def test_a_plug_in_that_cannot_be_loaded_hinders_only_who_names_it(
    install: Install, photos: Path
) -> None:
    install("import no_such_thing", "plugged_broken", broken="Source")
    assert open_images(photos).kind == "folder"
    with pytest.raises(ImageSetError, match=r"did you mean 'photos'.*'broken' failed"):
        open_images(photos.parent / "photo")
    with pytest.raises(ConfigError, match="uninstall plugged_broken"):
        open_images("broken:x")


FAILING = """
from exporter.images import Entry

class Fails:
    def __init__(self, where):
        if where == "fails:at-once":
            raise KeyError("no such place")
        self.where = where

    @staticmethod
    def matches(where):
        return False

    def entries(self):
        if self.where == "fails:listing":
            raise RuntimeError("lost the connection")
        yield Entry("a")
        yield Entry("b", error="deleted")

    def load(self, entry):
        raise LookupError("no row " + entry.path)
"""


def test_what_a_plug_in_raises_is_one_sentence(install: Install) -> None:
    install(FAILING, "plugged_fails", fails="Fails")
    for where, said in (("at-once", "no such place"), ("listing", "lost the connection")):
        with pytest.raises(ImageSetError, match=f"the plug-in 'fails' failed on .*{said}"):
            open_images(f"fails:{where}")
    first, second = open_images("fails:rows").entries
    said = "the image source failed: LookupError: no row a (plugged_fails.py, line "
    assert first.error is not None
    assert first.error.startswith(said)
    assert second.error == "deleted"


class Twice:
    """A source that is handed over, and counts what is read."""

    notes = ("one image was left out",)

    def __init__(self) -> None:
        self.read: list[str] = []

    def entries(self) -> Iterator[Entry]:
        yield Entry("a", label="x", boxes=((0, 0, 2, 2),), mask="a's mask")
        yield Entry("b", key=hash_contents(PIXELS))

    def load(self, entry: Entry) -> Any:
        self.read.append(entry.path)
        return PIXELS > 90 if entry.path.endswith("mask") else PIXELS


def test_a_source_of_ones_own_is_handed_over_in_python() -> None:
    source = Twice()
    images = open_images(source)
    assert source.read == ["a"], "the key of the other image was given"
    assert images.notes == ("one image was left out",)
    assert (images.where, images.kind) == ("Twice", "source")
    assert [entry.id for entry in images.entries] == [
        hash_contents(PIXELS),
        f"{hash_contents(PIXELS)}-2",
    ]
    assert np.array_equal(images.load(images.entries[1], SMALL).view, PIXELS)
    mask = images.load_mask(images.entries[0], SMALL)
    assert mask is not None
    assert np.array_equal(mask, (PIXELS > 90).any(axis=2))


def test_no_image_is_read_more_than_twice(photos: Path) -> None:
    source = Twice()
    images = open_images(source)
    for _ in range(3):
        images.load(images.entries[0], SMALL)
    assert source.read == ["a", "a"]
    images.load(images.entries[0], Preprocessing((4, 4), (4, 4)))
    assert source.read == ["a", "a", "a"], "another preprocessing is another picture"


def test_one_built_in_source_takes_each_place(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "list.CSV").write_text("path\na.jpg\n")
    (tmp_path / "[a]*.jpg").touch()
    for folder in ("a:b", "folder.jpg", "folder.csv"):
        (tmp_path / folder).mkdir()
    places: list[tuple[Any, str]] = [
        (photos, "folder"),
        (str(tmp_path / "a:b"), "folder"),
        (tmp_path / "folder.jpg", "folder"),
        (tmp_path / "folder.csv", "folder"),
        (tmp_path / "list.CSV", "list"),
        (f"{photos}/*.jpg", "glob"),
        (f"{photos}/clock.jpg", "image"),
        (f"{tmp_path}/[a]*.jpg", "image"),
        ("package.module:factory", "factory"),
        ("some folder/file.py:factory", "factory"),
        ([photos / "clock.jpg"], "paths"),
        ((str(photos), "x"), "paths"),
        ([PIXELS], "data set"),
        ([], "data set"),
    ]
    for where, kind in places:
        assert [name for name, source in BUILT_IN.items() if source.matches(where)] == [kind], where
    for nothing in (photos / "CREDITS.md", "nowhere", "nul\0", 7, None, "x" * 5000):
        assert not [name for name, source in BUILT_IN.items() if source.matches(nothing)], nothing


def test_a_file_that_is_replaced_after_planning_is_an_error(tmp_path: Path, photos: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes((photos / "clock.jpg").read_bytes() + name.encode())
    images = open_images(tmp_path)
    (tmp_path / "a.jpg").write_bytes((photos / "cell.jpg").read_bytes())
    with pytest.raises(ImageError, match="the file has changed since the run was planned"):
        images.load(images.entries[0], SMALL)
    images.load(images.entries[1], SMALL)


def test_a_data_set_that_gives_other_pixels_each_time_is_an_error() -> None:
    class Noise:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> np.ndarray:
            return np.random.default_rng().integers(0, 255, (8, 8, 3), dtype=np.uint8)

    with pytest.raises(ImageSetError, match="'Noise' gives other pixels each time it is read"):
        open_images(Noise())


def test_a_factory_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "my pictures.py").write_text(
        "import numpy as np\n"
        "import beside_images\n"
        "def factory(): return [np.full((8, 8, 3), beside_images.level, np.uint8)]\n"
    )
    (tmp_path / "beside_images.py").write_text("level = 7\n")
    images = open_images(f"{tmp_path}/my pictures.py:factory")
    assert (images.load(images.entries[0], SMALL).view == 7).all()
    with pytest.raises(ImageSetError, match="did you mean 'factory'"):
        open_images(f"{tmp_path}/my pictures.py:factori")
    with pytest.raises(ImageSetError, match="there is no file"):
        open_images(f"{tmp_path}/no.py:factory")


def test_a_planned_set_is_opened_again_without_reading_an_image(
    tmp_path: Path, photos: Path
) -> None:
    planned = open_images(photos).entries
    again = reopen_images(photos, planned)
    assert again.entries == planned
    assert again.load(planned[3], SMALL).view.shape == (8, 8, 3)

    source = Twice()
    entries = open_images(source).entries
    source.read.clear()
    again = reopen_images(source, entries)
    assert source.read == []
    assert np.array_equal(again.load(entries[0], SMALL).view, PIXELS)

    class Counted(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    read: list[int] = []
    entries = open_images(Counted([PIXELS, PIXELS.T.copy()])).entries
    read.clear()
    again = reopen_images(Counted([PIXELS, PIXELS.T.copy()]), entries)
    assert read == []
    again.load(entries[1], SMALL)
    assert read == [1]


def test_another_set_than_the_planned_one_is_refused(tmp_path: Path, photos: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes((photos / "clock.jpg").read_bytes() + name.encode())
    planned = open_images(tmp_path).entries
    (tmp_path / "c.jpg").touch()
    with pytest.raises(ImageSetError, match=r"the 2 images that were planned: it has 3 images"):
        reopen_images(tmp_path, planned)
    assert reopen_images(tmp_path, planned, limit=2).entries == planned
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(ImageSetError, match=r"planned: 'b.jpg' is not there"):
        reopen_images(tmp_path, planned, limit=2)


def test_a_planned_set_with_names_that_cannot_be_shown(tmp_path: Path, photos: Path) -> None:
    try:
        for name in (b"caf\xe9.jpg", b"caf\xea.jpg"):
            file = tmp_path / os.fsdecode(name)
            file.write_bytes((photos / "clock.jpg").read_bytes() + name)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    planned = open_images(tmp_path).entries
    again = reopen_images(tmp_path, planned)
    for entry in planned:
        again.load(entry, SMALL)
