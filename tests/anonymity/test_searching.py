"""Identifiers are found in everything that can be decoded, and each place is named."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import tarfile
import zipfile
import zlib
from base64 import b64encode
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exporter.anonymity import Identifier, identifiers_here, named, search
from exporter.cli import main
from exporter.writers.tensorboard.events import EventFile, image_summary

NAME = "Planted Müller"


def png(*, latin: bool = False) -> bytes:
    said = PngInfo()
    (said.add_text if latin else said.add_itxt)("Author", NAME, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=said)
    return file.getvalue()


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", **options)
    return file.getvalue()


def artist(name: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x9C9D] = name.encode("utf-16-le")  # XPAuthor
    return exif


def zipped(content: bytes, *, name: str = "a.txt", comment: str = "", extra: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.extra = extra
        archive.writestr(entry, content)
        archive.comment = comment.encode()
    return file.getvalue()


def tarred(owner: str, **headers: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("a")
        entry.uname = owner
        entry.pax_headers = headers
        archive.addfile(entry, io.BytesIO())
    return file.getvalue()


def parquet(values: object, metadata: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    table = pa.table({"column": values})
    pq.write_table(table.replace_schema_metadata(metadata), file)
    return file.getvalue()


def wandb_log(record: bytes) -> bytes:
    """Return a log of one record of two parts, the cut between blocks in the middle of it."""
    cut = 32768 - 7 - 7
    parts = [(2, record[:cut]), (4, record[cut:])]
    framed = [
        struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
        for kind, part in parts
    ]
    return b":W&B" + struct.pack("<HB", 0xBEE1, 0) + b"".join(framed)


def pdf(text: bytes) -> bytes:
    packed = zlib.compress(text)
    return b"%PDF-1.4\n1 0 obj<</Filter/FlateDecode>>stream\n" + packed + b"\nendstream endobj"


def event_log(picture: bytes, folder: Path) -> bytes:
    with EventFile(folder, 0.0, 0) as events:
        events.add(image_summary("a/tag", [picture], (8, 8)))
    (file,) = folder.glob("*tfevents*")
    return file.read_bytes()


TEXT = NAME.encode()
CUT = b"x" * (32768 - 20) + TEXT
PLACES = {
    "plain text": lambda _: b"by " + TEXT,
    "UTF-16": lambda _: NAME.encode("utf-16"),
    "UTF-16, big-endian": lambda _: NAME.encode("utf-16-be"),
    "an address": lambda _: b"https://x/Planted%20M%C3%BCller/y",
    "JSON": lambda _: json.dumps({"by": NAME}).encode(),
    "HTML": lambda _: b"Planted M&uuml;ller",
    "Base64 in a script": lambda _: b"f('" + b64encode(b"0" * 9 + TEXT + b"1" * 9) + b"')",
    "Base64 of a zip": lambda _: b'src="data:x;base64,' + b64encode(zipped(TEXT)) + b'"',
    "EXIF": lambda _: jpeg(exif=artist(NAME)),
    "a JPEG's comment": lambda _: jpeg(comment=TEXT),
    "after a JPEG": lambda _: jpeg() + TEXT,
    "PNG's zTXt": lambda _: png(latin=True),
    "PNG's iTXt": lambda _: png(),
    "a zip's comment": lambda _: zipped(b"", comment=NAME),
    "a zip's extra field": lambda _: zipped(b"", extra=struct.pack("<HH", 1, len(TEXT)) + TEXT),
    "a zip in a zip": lambda _: zipped(zipped(TEXT)),
    "a name in a zip": lambda _: zipped(b"", name=f"{NAME}.txt"),
    "gzip": lambda _: gzip.compress(TEXT),
    "a tar's owner": lambda _: gzip.compress(tarred(NAME)),
    "a tar's extended header": lambda _: tarred("", comment=NAME),
    "Parquet": lambda _: parquet([{"list": ["a", NAME]}, None]),
    "a picture in Parquet": lambda _: parquet([jpeg(comment=TEXT)]),
    "Parquet's metadata": lambda _: parquet([1], {"by": NAME}),
    "a dictionary in Parquet": lambda _: parquet(pa.array([NAME]).dictionary_encode()),
    "a picture in an event file": lambda folder: event_log(png(), folder),
    "W&B's log": lambda _: wandb_log(CUT),
    "PDF's stream": lambda _: pdf(b"(" + TEXT + b")"),
    "PDF's hexadecimal": lambda _: (
        b"%PDF-1.4 <FEFF" + NAME.encode("utf-16-be").hex().encode() + b">"
    ),
    "safetensors": lambda _: struct.pack("<Q", 99) + json.dumps({"by": NAME}).encode() + bytes(99),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_identifier_is_found_in(place: str, tmp_path: Path) -> None:
    file = tmp_path / "given" / "file.bin"
    file.parent.mkdir()
    file.write_bytes(PLACES[place](tmp_path / "log"))
    searched = search(file.parent, named(f"{NAME}, planted mueller"))
    assert {trace.identifier.text for trace in searched.traces} == {NAME}
    assert all(trace.place.startswith("file.bin") for trace in searched.traces)
    assert searched.unread == ()
    assert searched.files == 1


def test_names_of_files_and_targets_of_links_are_searched(tmp_path: Path) -> None:
    (tmp_path / "of-somebody").mkdir()
    (tmp_path / "of-somebody" / "a.txt").write_text("")
    (tmp_path / "somebody").mkdir()
    (tmp_path / "link").symlink_to("/home/somebody/b.txt")
    traces = search(tmp_path, named("somebody")).traces
    assert [trace.place for trace in traces] == [
        "link (link)",
        "of-somebody (folder)",
        "of-somebody/a.txt",
        "somebody (folder)",
    ]


def test_what_is_given_may_have_a_name_in_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "of-somebody"
    folder.mkdir()
    (folder / "a.txt").write_text("")
    packed = tmp_path / "somebody.zip"
    packed.write_bytes(zipped(b""))
    for given, place in ((folder, "of-somebody (the folder itself)"), (packed, "somebody.zip")):
        (trace,) = search(given, named("somebody")).traces
        assert trace.place == place


def test_a_short_name_is_a_whole_word_and_not_in_bytes_by_chance(tmp_path: Path) -> None:
    for name, content in {
        "word": b"by Ann, 2026", "within": b"channel", "path": b"/home/ann/x",
        "chance": b"\xff\x01ann\x02\xfe", "run": b"\xff\x01written by ann\x02\xfe",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    traces = search(tmp_path, named("ann")).traces
    assert [trace.place for trace in traces] == ["path", "run", "word"]


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(zipped(b"x" * 99)[:60])
    nested = b"somebody"
    for _ in range(12):
        nested = zipped(nested)
    (tmp_path / "deep.zip").write_bytes(nested)
    cut, deep = search(tmp_path, named("somebody")).unread
    assert cut.startswith("cut.zip: it cannot be decoded (")
    assert deep.endswith("things are too deep inside one another")


def test_this_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "somebody"
    home.mkdir(parents=True)
    place = home / "work"
    place.mkdir()
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr("platform.node", lambda: "their-host.lab.example")
    monkeypatch.setenv("HOSTNAME", "vm")
    monkeypatch.chdir(place)
    for arguments in (
        ["init", "-q"],
        ["config", "user.name", "Some Body"],
        ["config", "user.email", "some.body@lab.example"],
        ["remote", "add", "origin", "git@github.com:their-lab/their-fork.git"],
        ["remote", "add", "other", "https://token@example.org/someone/project"],
    ):
        subprocess.run(["git", *arguments], check=True)
    known, general = identifiers_here()
    told = {identifier.text: identifier.kind for identifier in known}
    assert (
        told
        | {
            "somebody": "the user's name",
            str(home): "the home folder",
            str(place): "the working folder",
            "their-host.lab.example": "the host's name",
            "their-host": "the host's name",
            "Some Body": "git's user name",
            "some.body@lab.example": "git's mail address",
            "some.body": "git's mail address",
            "github.com:their-lab/their-fork": "a remote of git",
            "their-lab/their-fork": "a remote of git",
            "their-lab": "the owner of a remote of git",
            "example.org/someone/project": "a remote of git",
            "someone/project": "a remote of git",
            "someone": "the owner of a remote of git",
        }
        == told
    )
    assert Identifier("the host's name", "vm") in general


def test_the_command_names_each_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(jpeg(comment=b"by planted-lab"))
    assert main(["check", "--anonymous", "a.jpg", "--also", "planted-lab, other"]) == 2
    said = capsys.readouterr().out
    assert "✗ a.jpg › comment: what --also lists 'planted-lab'" in said
    assert main(["check", "--anonymous", "a.jpg", "--also", "other"]) == 0
    assert "✓ a.jpg has none of these in 1 file" in capsys.readouterr().out
    assert main(["check", "a.jpg", "--also", "other"]) == 2
    assert "--also says what --anonymous looks for; give both" in capsys.readouterr().err
    assert main(["check", "--anonymous", "none.zip"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
