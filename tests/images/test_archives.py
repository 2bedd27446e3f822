"""Samples in tar archives, as WebDataset writes and reads them."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.errors import ImageError, ImageSetError
from exporter.images import ImageSet, open_images, reopen_images
from exporter.records import Preprocessing

STEPS = Preprocessing((6, 8), None)


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            told = tarfile.TarInfo(name)
            told.size = len(content)
            tar.addfile(told, io.BytesIO(content))
    return path


def labels(images: ImageSet) -> list[str | None]:
    return [entry.label for entry in images.entries]


def test_archives_that_webdataset_wrote_are_read_as_it_reads_them(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    for shard in range(11):
        with wds.TarWriter(str(tmp_path / f"train-{shard:03d}.tar")) as tar:
            for index in range(2):
                level = 20 * shard + index
                pixels = np.full((6, 8, 3), level, np.uint8)
                tar.write({"__key__": f"s/{level:04d}", "png": pixels, "cls": level % 3})
    where = f"{tmp_path}/train-{{000..010}}.tar"
    images = open_images(where)
    assert images.kind == "archives"
    theirs = wds.WebDataset(where, shardshuffle=False).decode("pil").to_tuple("png", "cls")
    pairs = [(np.asarray(image), str(label)) for image, label in theirs]
    assert labels(images) == [label for _, label in pairs]
    for entry, (pixels, _) in zip(images.entries, pairs, strict=True):
        assert (images.load(entry, STEPS).view == pixels).all()
    assert images.entries[3].path == "train-001.tar/s/0021.png"
    assert images.notes == ()
    # Its own objects, which have no length: of decoded items, pairs, and files as they are.
    raw = wds.WebDataset(where, shardshuffle=False)
    for given in (raw, raw.decode("pil"), raw.decode("pil").to_tuple("png", "cls")):
        handed = open_images(given, limit=5)
        assert labels(handed) == labels(images)[:5]
        assert (handed.load(handed.entries[4], STEPS).view == pairs[4][0]).all()


def test_any_pattern_of_archives(tmp_path: Path) -> None:
    for name in ("a-1", "a-2", "a-10", "b-9"):
        archive(tmp_path / f"{name}.tar", {f"{name}.png": picture(len(name))})
    for pattern, expected in (
        ("a-1.tar", ["a-1"]),
        ("*.tar", ["a-1", "a-2", "a-10", "b-9"]),
        ("{b-9,a-2}.tar", ["b-9", "a-2"]),
        ("a-{1..2}.tar", ["a-1", "a-2"]),
        ("{a,b}-*.tar", ["a-1", "a-2", "a-10", "b-9"]),
    ):
        images = open_images(f"{tmp_path}/{pattern}")
        assert [entry.path for entry in images.entries] == [f"{n}.tar/{n}.png" for n in expected]
        again = reopen_images(f"{tmp_path}/{pattern}", images.entries)
        again = pickle.loads(pickle.dumps(again))
        assert again.load(again.entries[-1], STEPS).view.max() == len(expected[-1])
    for pattern, said in (
        ("a-{1..3}.tar", r"no archive '.*a-3\.tar'"),
        ("c-*.tar", r"no archive '.*c-\*\.tar'"),
        ("a-{2..1}.tar", r"\{2\.\.1\} names no archive"),
        ("a-{0..9999999}.tar", "more than 100,000"),
        ("c.tar", "there are no images at"),
    ):
        with pytest.raises(ImageSetError, match=said):
            open_images(f"{tmp_path}/{pattern}")


def test_labels_have_the_names_that_lie_beside(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "classnames.txt").write_text("tench\ngoldfish\n")
    members = {
        "a.png": picture(1), "a.cls": b"1",
        "b.cls": b"0\n", "b.png": picture(2),
        "c.png": picture(3), "c.json": json.dumps({"label": 1}).encode(),
        "d.png": picture(4), "d.json": json.dumps({"label": "cat"}).encode(),
        "e.png": picture(5), "e.json": b"{broken",
        "f.png": picture(6), "f.txt": b"a caption is no class",
        "g.png": picture(7), "g.cls": b"fox",
    }  # fmt: skip
    archive(tmp_path / "val" / "0.tar", members)
    images = open_images(tmp_path / "val" / "0.tar")
    assert labels(images) == ["goldfish", "tench", "goldfish", "cat", None, None, "fox"]
    assert len(open_images(tmp_path / "val" / "0.tar", limit=2).entries) == 2


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    members = {
        "._a.png": b"of a Mac", "a.depth.png": picture(2), "a.png": picture(1),
        "readme.txt": b"", "../../../up.png": picture(3),
    }  # fmt: skip
    file = archive(tmp_path / "x.tar", members)
    with tarfile.open(file, "a") as tar:
        told = tarfile.TarInfo("a.png")
        told.size = 3
        tar.addfile(told, io.BytesIO(b"new"))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    images = open_images(file)
    assert [entry.path for entry in images.entries] == ["x.tar/a.png", "x.tar/../../../up.png"]
    assert images.load(images.entries[1], STEPS).view.max() == 3
    assert images.notes == (
        "of several images of a sample one is used (a.png)",
        "a sample without an image is left out (readme.txt)",
        "a member that occurs twice is left out (a.png)",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar"]


@pytest.mark.parametrize("end", [100, 512, 700, 1024, 1500, 2048])
def test_a_damaged_archive_gives_what_is_whole(tmp_path: Path, end: int) -> None:
    content = archive(tmp_path / "x.tar", {f"{n}.png": picture(n) for n in range(4)}).read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:end])
    archive(tmp_path / "y.tar", {"y.png": picture(9)})
    images = open_images(f"{tmp_path}/*.tar")
    whole = (end + 512) // 1024  # a header of 512 bytes, and a picture padded to as many
    assert len([e for e in images.entries if e.error is None]) in (whole, whole + 1)
    for entry in images.entries:
        if entry.error is None:
            assert images.load(entry, STEPS).view.max() in (*range(whole + 1), 9)
    assert images.entries[-1].path == "y.tar/y.png"
    (note,) = images.notes
    assert note.startswith("an archive cannot be read to its end: ")
    assert note.endswith("(x.tar)")
    # A header that is none, in the middle.
    damaged = content[:1024] + b"\xff" * 512 + content[1536:]
    (tmp_path / "x.tar").write_bytes(damaged)
    (note,) = open_images(f"{tmp_path}/*.tar").notes
    assert "after 1,024 bytes it is cut off or damaged" in note


def test_a_size_that_is_not_there_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    told = tarfile.TarInfo("a.png")
    told.size = 10**15
    file.write_bytes(told.tobuf(tarfile.PAX_FORMAT) + picture(3) + bytes(2000))
    images = open_images(file)
    assert images.entries[0].error == "the archive ends in the middle of it"
    with pytest.raises(ImageError):
        images.load(images.entries[0], STEPS)


def test_a_folder_of_archives_says_how_they_are_read(tmp_path: Path) -> None:
    archive(tmp_path / "x.tar", {"a.png": picture(1)})
    with pytest.raises(ImageSetError, match=r"x\.tar; give a pattern that ends in \.tar"):
        open_images(tmp_path)
