"""Images in a store: listed, and read once, when the model is given them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

import exporter
from exporter import stores
from exporter.cli import main
from exporter.errors import ImageError, ImageSetError
from exporter.images import hash_contents, open_images, reopen_images
from tests.images.test_archives import STEPS, archive, picture
from tests.publish.hub import TOKEN, serving
from tests.small import small
from tests.starting import ran
from tests.stores import emptied


@pytest.fixture
def bucket() -> Iterator[Any]:
    emptied("bucket")
    system = fsspec.filesystem("memory")
    names = ("cat/9.png", "cat/10.png", "dog/1.png", "dog/.hidden.png", "top.png")
    for level, name in enumerate(names):
        system.pipe_file(f"/bucket/{name}", picture(40 * level))
    system.pipe_file("/bucket/notes.txt", b"")
    yield system
    emptied("bucket")


@pytest.fixture
def read(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is read."""
    counted: Counter[str] = Counter()
    fetch = type(bucket).cat_file

    def counting(self: Any, path: str, *args: Any, **more: Any) -> Any:
        counted[path] += 1
        return fetch(self, path, *args, **more)

    monkeypatch.setattr(type(bucket), "cat_file", counting)
    return counted


def test_a_store_is_listed_as_a_folder_is(bucket: Any, read: Counter[str]) -> None:
    images = open_images("memory://bucket")
    assert images.kind == "store"
    assert [(entry.path, entry.label) for entry in images.entries] == [
        ("cat/9.png", "cat"),
        ("cat/10.png", "cat"),
        ("dog/1.png", "dog"),
        ("top.png", None),
    ]
    assert images.notes == ("1 file is not an image: notes.txt",)
    assert not read
    assert [e.path for e in open_images("memory://bucket/*/1*.png").entries] == [
        "cat/10.png",
        "dog/1.png",
    ]
    assert [e.path for e in open_images("memory://bucket/dog/1.png").entries] == ["1.png"]


def test_images_are_read_once_and_hashed_then(bucket: Any, read: Counter[str]) -> None:
    settings = {"maps": ["gradcam"], "layers": ["0"], "writers": (), "batch_size": 2}
    run = exporter.export(
        small(), "memory://bucket", out=emptied("ids"), preprocessing={"size": 32}, **settings
    )
    photographs = {name: count for name, count in read.items() if name.startswith("/bucket/")}
    assert photographs == {f"/bucket/{image.path}": 1 for image in run.plan.images}
    for row in run.rows():
        assert row.key == hash_contents(bucket.cat_file(f"/bucket/{row.path}"))
        assert row.id != row.key
    assert run.plan.execution["ids"] == "of the listing"
    assert any("hashed as they are loaded" in note for note in run.plan.notes)
    assert run.map("9.png", "gradcam").shape == (15, 15)
    emptied("ids")


def test_what_changed_since_it_was_planned_is_an_error(bucket: Any) -> None:
    images = open_images("memory://bucket")
    longer = picture(1) + b" "
    bucket.pipe_file("/bucket/cat/9.png", longer)
    with pytest.raises(ImageError, match=f"it had .* bytes and has {len(longer)}"):
        images.load(images.entries[0], STEPS)
    later = reopen_images("memory://bucket", images.entries)
    with pytest.raises(ImageError, match="has changed since the run was planned"):
        later.load(later.entries[0], STEPS)
    assert later.load(later.entries[1], STEPS).key == hash_contents(picture(40))
    bucket.rm_file("/bucket/top.png")
    with pytest.raises(ImageError, match="the file is not there"):
        images.load(images.entries[3], STEPS)


def test_runs_in_a_store_are_left_out(bucket: Any) -> None:
    for name in ("plan.json", "run.json", "html/photos/1.jpg"):
        bucket.pipe_file(f"/bucket/dog/run/{name}", b"")
    images = open_images("memory://bucket")
    assert [entry.path for entry in images.entries][2:] == ["dog/1.png", "top.png"]
    assert any("the run folder 'dog/run' is left out" in note for note in images.notes)


def test_a_list_in_a_store(bucket: Any) -> None:
    text = "path,label\ndog/1.png,hound\ncat/9.png,\nnone.png,x\n"
    bucket.pipe_file("/bucket/list.csv", text.encode())
    images = open_images("memory://bucket/list.csv")
    told = [(entry.path, entry.label, entry.error) for entry in images.entries]
    missing = "the file is not there"
    assert told == [
        ("dog/1.png", "hound", None), ("cat/9.png", None, None), ("none.png", "x", missing)
    ]  # fmt: skip
    assert images.load(images.entries[0], STEPS).view.max() == 80
    bucket.pipe_file("/bucket/list.csv", b"file\nx\n")
    with pytest.raises(ImageSetError, match="has no column 'path'"):
        open_images("memory://bucket/list.csv")


def test_of_archives_in_a_store_the_headers_are_read_and_then_each_image(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    padding = b"x" * 400_000
    for shard in range(2):
        members = {}
        for index in range(3):
            members[f"{index}.cls"] = str((shard + index) % 2).encode()
            members[f"{index}.png"] = picture(100 * shard + index) + padding
        local = archive(tmp_path / f"a-{shard}.tar", members)
        bucket.pipe_file(f"/bucket/a-{shard}.tar", local.read_bytes())
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    bucket.pipe_file("/bucket/classes.txt", b"cat\ndog\n")
    fetched, fetch = list[int](), type(bucket).cat_file

    def counting(self: Any, path: str, *args: Any, **more: Any) -> Any:
        fetched.append(len(fetch(self, path, *args, **more)))
        return fetch(self, path, *args, **more)

    monkeypatch.setattr(type(bucket), "cat_file", counting)
    images, here = open_images("memory://bucket/a-{0..1}.tar"), open_images(f"{tmp_path}/a-*.tar")
    assert sum(fetched) < 6 * 300_000 < 6 * len(padding)
    told = [(entry.path, entry.label, entry.error) for entry in images.entries]
    assert told == [(entry.path, entry.label, entry.error) for entry in here.entries]
    assert {entry.label for entry in images.entries} == {"cat", "dog"}
    for there, local_entry in zip(images.entries, here.entries, strict=True):
        prepared = images.load(there, STEPS)
        assert (prepared.view == here.load(local_entry, STEPS).view).all()
        assert prepared.key == local_entry.key
    assert [e.path for e in open_images("memory://bucket/a-?.tar").entries] == [
        e.path for e in here.entries
    ]
    bucket.pipe_file("/bucket/a-1.tar", bucket.cat_file("/bucket/a-1.tar")[:900_000])
    assert any(
        "cannot be read to its end" in n for n in open_images("memory://bucket/a-*.tar").notes
    )
    with pytest.raises(ImageSetError, match=r"there is no archive 'memory://bucket/a-2.tar'"):
        open_images("memory://bucket/a-{0..2}.tar")


def test_a_store_that_has_nothing_there_says_so() -> None:
    with pytest.raises(ImageSetError, match="there is nothing at 'memory://nowhere/at/all'"):
        open_images("memory://nowhere/at/all")


class Unsteady(SimpleHTTPRequestHandler):
    """A web server that refuses whatever it is asked for the first time."""

    refused: set[str]

    def do_GET(self) -> None:
        if self.path in self.refused:
            super().do_GET()
            return
        self.refused.add(self.path)
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        pass


def test_web_addresses_are_read_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(stores, "WAITS", (0, 0, 0))
    (tmp_path / "photos").mkdir()
    for level in range(2):
        (tmp_path / f"photos/{level}.png").write_bytes(picture(200 * level))
    handler = type("Handler", (Unsteady,), {"refused": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}/photos/"
    try:
        images = open_images(where)
        assert [entry.path for entry in images.entries] == ["0.png", "1.png"]
        assert images.load(images.entries[1], STEPS).view.max() == 200
        given = ["--model", "tests.small:small", "--images", where, "--out", str(tmp_path / "run")]
        handler.refused.clear()
        assert main(["run", *given]) == 2
        assert "is a web address; give --http" in " ".join(capsys.readouterr().err.split())
        assert not handler.refused
        light = ["--http", "--layer", "0", "--map", "gradcam", "--writer", "tensorboard"]
        assert main(["run", *given, *light]) == 0
        assert [row.path for row in exporter.open_run(tmp_path / "run").rows()] == [
            "0.png", "1.png",
        ]  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_images_of_the_hub_are_read_with_its_own_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    held = {"cat/1.png": picture(10), "cat/2.png": picture(90), "dog/1.png": picture(200)}
    with serving() as hub:
        hub.spaces["me/photos"] = {**held, "README.md": b"of mine"}
        # The library takes the server's address as it is imported: a process of its own.
        for name, value in (("HF_ENDPOINT", hub.address), ("HF_TOKEN", TOKEN)):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(tmp_path))
        words = "run --model tests.small:small --layer 0 --map gradcam --writer tensorboard"
        where = ["--images", "hf://datasets/me/photos", "--out", "run"]
        done = ran(*words.split(), *where, at=tmp_path)
    assert done.returncode == 0, done.stderr
    run = exporter.open_run(tmp_path / "run")
    rows = list(run.rows())
    assert {row.path: row.key for row in rows} == {
        name: hash_contents(content) for name, content in held.items()
    }
    assert [row.label for row in rows] == ["cat", "cat", "dog"]
    assert run.plan.execution["ids"] == "of the listing"
    assert len({len(content) for content in held.values()}) == 1
    assert len({row.id for row in rows}) == 3
