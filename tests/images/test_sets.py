from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exporter.errors import ImageError, ImageSetError
from exporter.images import ImageSet, open_images
from exporter.images.files import natural
from exporter.images.keys import hash_path
from exporter.records import Preprocessing

SMALL = Preprocessing((16, 16), 20)


@pytest.fixture
def jpeg(photos: Path) -> bytes:
    return (photos / "clock.jpg").read_bytes()


def fill(root: Path, jpeg: bytes, *paths: str) -> Path:
    """Write a readable photograph to each path; every file's bytes differ."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg + path.encode("utf-8", "surrogateescape"))
    return root


def paths(images: ImageSet) -> list[str]:
    return [entry.path for entry in images.entries]


def test_folder_of_photographs(photos: Path) -> None:
    images = open_images(photos)
    assert paths(images) == sorted(file.name for file in photos.glob("*.jpg"))
    assert images.notes == ("1 file is not an image: CREDITS.md",)
    for entry in images.entries:
        data = (photos / entry.path).read_bytes()
        assert entry.key == entry.id == blake2b(data, digest_size=16).hexdigest()
        assert entry.label is None
        assert images.load(entry, SMALL).view.shape == (16, 16, 3)


def test_folder_of_class_folders_in_natural_order(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "dog/10.jpg", "dog/9.jpg", "cat/deep/er/1.JPG", "cat-2/x.png", "top.jpeg")
    images = open_images(str(tmp_path))
    assert [(entry.path, entry.label) for entry in images.entries] == [
        ("cat/deep/er/1.JPG", "cat"),
        ("cat-2/x.png", "cat-2"),
        ("dog/9.jpg", "dog"),
        ("dog/10.jpg", "dog"),
        ("top.jpeg", None),
    ]


def test_pictures_of_12_bits_are_said_to_be_dark_or_read_as_stated(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (20, 20), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    images = open_images(tmp_path)
    assert images.load_first(SMALL).view.max() < 16
    assert "bits = 12" in images.notes[0]
    images = open_images(tmp_path)
    assert images.load_first(replace(SMALL, bits=12)).view.max() > 100
    assert images.notes == ()


def test_limit_takes_the_first(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "2.jpg", "10.jpg", "1.jpg")
    assert paths(open_images(tmp_path, limit=2)) == ["1.jpg", "2.jpg"]


def test_hidden_files_are_skipped_and_others_counted(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "a.jpg", ".b.jpg", ".c/d.jpg", "n1.txt", "n2.txt", "sub/n10.md", "n3.csv")
    images = open_images(tmp_path)
    assert paths(images) == ["a.jpg"]
    assert images.notes == ("4 files are not images: n1.txt, n2.txt, n3.csv, …",)


def test_broken_images_become_rows_with_an_error(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "good.jpg")
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    images = open_images(tmp_path)
    by_path = {entry.path: entry for entry in images.entries}
    assert by_path["link.jpg"].error == "the file cannot be read: no such file or directory"
    assert by_path["pipe.jpg"].error == "the file cannot be read: it is not a regular file"
    assert by_path["link.jpg"].key == hash_path("link.jpg")
    for name in ("empty.png", "page.jpg"):
        assert by_path[name].error is None, "the bytes could be read"
    for name in by_path.keys() - {"good.jpg"}:
        with pytest.raises(ImageError):
            images.load(by_path[name], SMALL)
    images.load(by_path["good.jpg"], SMALL)


def test_a_file_that_goes_away_is_an_image_error(tmp_path: Path, jpeg: bytes) -> None:
    images = open_images(fill(tmp_path, jpeg, "a.jpg"))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ImageError, match="no such file"):
        images.load(images.entries[0], SMALL)


def test_repeated_contents_have_unique_ids_in_plan_order(tmp_path: Path, jpeg: bytes) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg)
    images = open_images(tmp_path)
    key = images.entries[0].key
    assert [entry.id for entry in images.entries] == [key, f"{key}-2", f"{key}-3"]
    assert {entry.key for entry in images.entries} == {key}


def test_links_in_a_circle_end(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "self").symlink_to("self")
    images = open_images(tmp_path)
    assert paths(images) == ["a/x.jpg", "b/y.jpg"]
    assert len([note for note in images.notes if "already in the set" in note]) == 3


def test_linked_folders_and_files_are_followed(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path / "elsewhere", jpeg, "x.jpg")
    fill(tmp_path / "set", jpeg, "y.jpg")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "z.jpg").symlink_to(tmp_path / "elsewhere" / "x.jpg")
    images = open_images(tmp_path / "set")
    assert paths(images) == ["link/x.jpg", "y.jpg", "z.jpg"]
    assert images.entries[2].id == images.entries[0].key + "-2"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
def test_unreadable_folders_are_noted_and_the_rest_goes_on(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "a/1.jpg", "shut/2.jpg", "z/3.jpg")
    (tmp_path / "z" / "3.jpg").chmod(0)
    (tmp_path / "shut").chmod(0)
    # Permissions mean nothing to root: the walk becomes an ordinary user after its imports.
    code = (
        "import os, sys, json; from exporter.images import open_images\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "images = open_images('.')\n"
        "print(json.dumps([images.notes, [(e.path, e.error) for e in images.entries]]))"
    )
    for folder in (tmp_path, tmp_path / "a", tmp_path / "z"):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (tmp_path / "shut").chmod(0o755)
    assert done.returncode == 0, done.stderr
    notes, entries = json.loads(done.stdout)
    assert notes == ["the folder 'shut' cannot be read: permission denied"]
    assert entries == [
        ["a/1.jpg", None],
        ["z/3.jpg", "the file cannot be read: permission denied"],
    ]


AWKWARD = [
    "with space.jpg",
    "quote'\"`.jpg",
    "<script>alert(1)</script>.jpg".replace("/", "∕"),
    "ünï-画像-🐈.jpg",
    "-dash.jpg",
    "new\nline.jpg",
    "100%25 & #hash?.jpg",
    "[glob]*.jpg",
    "café.jpg",
    "cafe\u0301.jpg",
]


def test_awkward_names_are_kept_and_opened(tmp_path: Path, jpeg: bytes) -> None:
    images = open_images(fill(tmp_path / "a [set] of 'photos'", jpeg, *AWKWARD))
    assert sorted(paths(images)) == sorted(AWKWARD)
    for entry in images.entries:
        images.load(entry, SMALL)


def test_names_that_are_not_utf8_are_shown_with_replacement_and_opened(
    tmp_path: Path, jpeg: bytes
) -> None:
    raw = [b"caf\xe9.jpg", b"caf\xea.jpg", b"n\xffd/1.jpg"]
    try:
        fill(tmp_path, jpeg, *[os.fsdecode(name) for name in raw], "caf�.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for images in (open_images(tmp_path), open_images(f"{tmp_path}/**/*.jpg")):
        shown = paths(images)
        assert len(set(shown)) == 4
        assert {"caf�.jpg", "n�d/1.jpg"} <= set(shown)
        for entry in images.entries:
            entry.path.encode("utf-8")
            images.load(entry, SMALL)
        assert [entry.label for entry in images.entries if entry.label] == ["n�d"]
        expected = {
            blake2b(file.read_bytes(), digest_size=16).hexdigest()
            for file in tmp_path.rglob("*.jpg")
        }
        assert {entry.key for entry in images.entries} == expected


def test_glob(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "cat/2.jpg", "cat/10.jpg", "dog/1.jpg", "dog/1.png", "dog/x.txt", "0.jpg")
    images = open_images(f"{tmp_path}/*/*.jpg")
    assert [(entry.path, entry.label) for entry in images.entries] == [
        ("cat/2.jpg", "cat"),
        ("cat/10.jpg", "cat"),
        ("dog/1.jpg", "dog"),
    ]
    images.load(images.entries[0], SMALL)
    everything = open_images(f"{tmp_path}/**")
    assert len(everything.entries) == 5
    assert everything.notes == ("1 file is not an image: dog/x.txt",)


def test_relative_glob(tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path, jpeg, "a.jpg", "b.jpg"))
    images = open_images("[ab].jpg")
    assert paths(images) == ["a.jpg", "b.jpg"]
    images.load(images.entries[0], SMALL)


def test_one_image(photos: Path) -> None:
    images = open_images(photos / "coffee.jpg")
    assert paths(images) == ["coffee.jpg"]


def test_sequence_of_paths(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "b/2.jpg", "a/1.jpg")
    images = open_images([tmp_path / "b" / "2.jpg", str(tmp_path / "a" / "1.jpg"), tmp_path / "no"])
    assert paths(images) == ["b/2.jpg", "a/1.jpg", "no"]
    assert images.entries[2].error is not None
    assert images.where == "3 paths"
    images.load(images.entries[1], SMALL)


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path, jpeg: bytes) -> None:
    fill(tmp_path, jpeg, "photos/1.jpg")
    with pytest.raises(ImageSetError, match="did you mean 'photos'"):
        open_images(tmp_path / "photo")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageSetError, match=r"neither an image nor a list"):
        open_images(tmp_path / "notes.txt")
    with pytest.raises(ImageSetError, match="give a folder"):
        open_images(7)


def test_an_empty_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(ImageSetError, match=r"no images \(1 file is not an image: a.txt\)"):
        open_images(tmp_path)
    for where in (f"{tmp_path}/*.jpg", []):
        with pytest.raises(ImageSetError, match="no images"):
            open_images(where)


def test_loading_is_thread_safe_and_survives_pickling(photos: Path) -> None:
    images = pickle.loads(pickle.dumps(open_images(photos)))
    entries = images.entries * 3
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda entry: images.load(entry, SMALL).view, entries))
    for entry, view in zip(entries, threaded, strict=True):
        assert np.array_equal(images.load(entry, SMALL).view, view)


NAMES = st.lists(st.text("ab0129/.", max_size=8))


@given(NAMES.flatmap(lambda names: st.tuples(st.permutations(names), st.permutations(names))))
def test_natural_order_does_not_depend_on_the_order_found(
    pair: tuple[list[str], list[str]],
) -> None:
    first, second = pair
    assert sorted(first, key=natural) == sorted(second, key=natural)
