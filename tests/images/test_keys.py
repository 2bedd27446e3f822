from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.images import open_images
from exporter.images.files import read_file
from exporter.images.keys import hash_contents, hash_path, unique_ids


def test_key_is_blake2b_128_of_the_bytes(tmp_path: Path) -> None:
    contents = [b"", b"cat", os.urandom(3_000_000)]
    for index, content in enumerate(contents):
        (tmp_path / str(index)).write_bytes(content)
    entries = open_images([tmp_path / str(index) for index in range(3)]).entries
    assert [(entry.key, entry.error) for entry in entries] == [
        (blake2b(content, digest_size=16).hexdigest(), None) for content in contents
    ]
    assert [read_file(str(tmp_path / str(index))) for index in range(3)] == contents


def test_threads_keep_the_order(tmp_path: Path) -> None:
    paths = []
    for index in range(600):
        (tmp_path / str(index)).write_text(str(index))
        paths.append(str(tmp_path / str(index)))
    expected = [blake2b(str(i).encode(), digest_size=16).hexdigest() for i in range(600)]
    assert [entry.key for entry in open_images(paths, workers=3).entries] == expected


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    names = ["missing", "pipe", "folder", "null\0character"]
    errors = [entry.error for entry in open_images([f"{tmp_path}/{n}" for n in names]).entries]
    assert errors == [
        "the file cannot be read: no such file or directory",
        "the file cannot be read: it is not a regular file",
        "the file cannot be read: it is not a regular file",
        "the file cannot be read: embedded null byte",
    ]
    with pytest.raises(OSError, match="not a regular file"):
        read_file(str(tmp_path / "pipe"))


@given(st.lists(st.text("ab", max_size=2)))
def test_ids_are_unique_and_begin_with_their_key(keys: list[str]) -> None:
    ids = unique_ids(keys)
    assert len(set(ids)) == len(keys)
    assert [name.split("-")[0] for name in ids] == keys
    assert [ids.index(key) for key in set(keys)] == [keys.index(key) for key in set(keys)]


def test_key_of_a_path_is_not_the_key_of_a_file_that_holds_it() -> None:
    assert hash_path("a") != hash_contents(b"a")
    assert hash_path("a") == blake2b(b"path:a", digest_size=16).hexdigest()
