from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import ImageSetError
from exporter.images import open_images
from exporter.images.lists import read_list
from exporter.records import Preprocessing

BOXES = ((1.0, 2.0, 3.5, 4.0), (0.0, 0.0, 9.0, 9.0))
ROWS: list[dict[str, Any]] = [
    {"path": "b.jpg", "label": "tiger, cat", "mask": "m/b.png", "boxes": [list(b) for b in BOXES]},
    {"path": "a.jpg", "label": None, "mask": None, "boxes": None},
    {"path": "missing.jpg", "label": "dog", "mask": None, "boxes": []},
]


def write(rows: list[dict[str, Any]], file: Path) -> Path:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix in (".jsonl", ".ndjson"):
        file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        import csv

        with file.open("w", newline="") as lines:
            writer = csv.DictWriter(
                lines, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ","
            )
            writer.writeheader()
            for row in rows:
                boxes = row["boxes"]
                writer.writerow({**row, "boxes": None if boxes is None else json.dumps(boxes)})
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_every_format_gives_the_same_rows(suffix: str, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "a.jpg").write_bytes((photos / "cell.jpg").read_bytes())
    (tmp_path / "b.jpg").write_bytes((photos / "clock.jpg").read_bytes())
    images = open_images(write(ROWS, tmp_path / f"list{suffix}"))
    assert [(e.path, e.label, e.mask, e.boxes) for e in images.entries] == [
        ("b.jpg", "tiger, cat", "m/b.png", BOXES),
        ("a.jpg", None, None, None),
        ("missing.jpg", "dog", None, ()),
    ]
    assert [e.error for e in images.entries] == [
        None,
        None,
        "the file cannot be read: no such file or directory",
    ]
    images.load(images.entries[0], Preprocessing((8, 8), 9))


def test_every_path_of_a_list_is_taken_whatever_its_extension(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "picture").write_bytes((photos / "cell.jpg").read_bytes())
    outside = photos / "clock.jpg"
    (tmp_path / "list.csv").write_text(f"path\npicture\n{outside}\n")
    images = open_images(tmp_path / "list.csv")
    assert [entry.error for entry in images.entries] == [None, None]
    assert images.entries[1].path == str(outside)
    for entry in images.entries:
        images.load(entry, Preprocessing((8, 8), 9))


def test_a_byte_order_mark_and_unknown_columns_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfsplit,path\ntrain,a.jpg\n")
    assert [row.path for row in read_list(tmp_path / "list.csv")] == ["a.jpg"]


@pytest.mark.parametrize("header", ["path, label", "Path,Label", " PATH ,LABEL ", "x,path, label"])
def test_case_and_spaces_of_a_header_do_not_count(header: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{header}\n{'1,' * header.count('x')}a.jpg,cat\n")
    assert [(row.path, row.label) for row in read_list(tmp_path / "list.csv")] == [("a.jpg", "cat")]


def test_names_that_are_not_utf8_are_opened(tmp_path: Path, photos: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes((photos / "cell.jpg").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (tmp_path / "list.csv").write_bytes(b"path,label\ncaf\xe9.jpg,cat\n")
    images = open_images(tmp_path / "list.csv")
    assert images.entries[0].path == "caf�.jpg"
    images.load(images.entries[0], Preprocessing((8, 8), 9))


def test_numbers_as_labels_are_text(tmp_path: Path) -> None:
    rows = [{"path": "a", "label": 3.0}, {"path": "b", "label": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
    assert [row.label for row in read_list(tmp_path / "list.parquet")] == ["3", None]
    (tmp_path / "list.jsonl").write_text('{"path": "a", "label": 281}\n{"path": "b", "label": 1.5}')
    assert [row.label for row in read_list(tmp_path / "list.jsonl")] == ["281", "1.5"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,label\na.jpg,cat\n", "'path': its columns are 'file', 'label'; call the"),
        ("l.csv", "", "no column 'path'"),
        ("l.csv", "path,boxes\na.jpg,[1]\n", r"line 2 of the list 'l.csv' has the boxes"),
        ("l.csv", 'path,boxes\na.jpg,"[[5,0,1,1]]"\n', "left, top, right, bottom"),
        ("l.csv", 'path,boxes\na.jpg,"[[0,0,NaN,1]]"\n', "has the boxes"),
        ("l.csv", "path,label\na.jpg,x\n,y\n", "line 3 of the list 'l.csv' has the path ''"),
        ("l.jsonl", '{"path": "a"}\nnot json\n', "line 2 is not JSON"),
        ("l.jsonl", '["a"]\n', "line 1 is not a JSON object"),
        ("l.jsonl", '{"path": 3}\n', "has the path 3"),
        ("l.parquet", "not parquet at all", "cannot be read"),
    ],
)
def test_a_malformed_list_says_where(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageSetError, match=message) as caught:
        open_images(tmp_path / name)
    assert "\n" not in str(caught.value)
