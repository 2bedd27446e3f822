"""Lists of images with every mistake that people make: refused with the file and the line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import ImageSetError
from exporter.images import open_images
from exporter.images.lists import read_list

FOUR = "path,label\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\nd.jpg,dog\n"

# What is written, the line to blame, and what is said of it.
MISTAKES: dict[str, tuple[str | bytes, str, str]] = {
    "a quote that is never closed": (FOUR.replace("cat\nb", '"cat\nb'), "line 2", "quote"),
    "a quote closed by a later row": (
        'path,label\na.jpg,"cat\nb.jpg,dog"\nc.jpg,cat\n',
        "line 2",
        "quote",
    ),
    "a quote closed by the next quote": (
        'path,label\na.jpg,"cat\nb.jpg,"dog"\nc.jpg,cat\n',
        "line 2",
        "quote",
    ),
    "a quote that opens the last row": (FOUR + 'e.jpg,"cat', "line 6", "quote"),
    "a quote in another column": (
        'path,note\na.jpg,"seen\nb.jpg,not seen"\nc.jpg,seen\n',
        "line 2",
        "quote",
    ),
    "text after a quote": ('path,label\na.jpg,"cat" dog\n', "line 2", "quote"),
    "a field too many": (FOUR.replace("b.jpg,dog", "b.jpg,dog,x"), "line 3", "has 3 fields"),
    "a separator in a name": (FOUR.replace("c.jpg", "c,x.jpg"), "line 4", "has 3 fields"),
    "a field too few": (FOUR.replace("d.jpg,dog", "d.jpg"), "line 5", "has 1 field and"),
    "a trailing comma": (FOUR.replace("a.jpg,cat", "a.jpg,cat,"), "line 2", "has 3 fields"),
    "two columns of a name": ("path,label,label\na.jpg,cat,dog\n", "", "2 columns 'label'"),
    "two paths": ("path,Path\na.jpg,b.jpg\n", "", "2 columns 'path'"),
    "no header": ("a.jpg,cat\nb.jpg,dog\n", "", "no column 'path'"),
    "another name": ("file,label\na.jpg,cat\n", "", "no column 'path'"),
    "semicolons": (FOUR.replace(",", ";"), "", "separated by ';'"),
    "bars": (FOUR.replace(",", "|"), "", "separated by '|'"),
    "nothing": ("", "", "no column 'path'"),
    "a blank line first": ("\n" + FOUR, "", "no column 'path'"),
    "a null character": (FOUR.replace("dog", "d\0g", 1), "line 3", "null character"),
    "UTF-16": (FOUR.encode("utf-16"), "line 1", "null character"),
    "Latin-1 in a label": (FOUR.replace("dog", "chât").encode("latin-1"), "line 3", "not UTF-8"),
    "Latin-1 in a path": (FOUR.replace("b.jpg", "é.jpg").encode("latin-1"), "line 3", "not UTF-8"),
    "no path": (FOUR.replace("b.jpg", ""), "line 3", "the path ''"),
    "a path of spaces": (FOUR.replace("b.jpg", '"  "'), "line 3", "the path '  '"),
    "boxes that are no JSON": ("path,boxes\na.jpg,none\n", "line 2", "the boxes"),
    "boxes of three numbers": ('path,boxes\na.jpg,"[[1,2,3]]"\n', "line 2", "the boxes"),
    "a field without an end": (f"path,label\na.jpg,{'x' * 200_000}\n", "line 2", "larger than"),
}
QUICK = ("a quote that is never closed", "a field too many", "semicolons", "UTF-16")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in QUICK else pytest.mark.slow, id=name.replace(" ", "-")
        )
        for name in MISTAKES
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_mistake_in_a_table_is_refused_with_its_line(
    name: str, suffix: str, tmp_path: Path
) -> None:
    text, line, said = MISTAKES[name]
    content = text if isinstance(text, bytes) else text.encode()
    if suffix == ".tsv" and name != "UTF-16":
        content = re.sub(rb",(?![0-9])", b"\t", content)
    (tmp_path / f"list{suffix}").write_bytes(content)
    with pytest.raises(ImageSetError) as caught:
        open_images(tmp_path / f"list{suffix}")
    message = str(caught.value)
    assert f"list{suffix}" in message
    assert line in message
    assert said in message
    assert "\n" not in message


JSON_MISTAKES: dict[str, tuple[str, str]] = {
    "not JSON": ('{"path": "a.jpg"}\n{"path": "b.jpg"\n', "line 2 is not JSON"),
    "two objects": ('{"path": "a.jpg"} {"path": "b.jpg"}\n', "line 1 is not JSON"),
    "a list": ('["a.jpg"]\n', "line 1 is not a JSON object"),
    "the same name twice": ('{"path": "a.jpg", "path": "b.jpg"}\n', "twice"),
    "names that differ in case": ('{"path": "a.jpg", "Path": "b.jpg"}\n', "2 columns 'path'"),
    "no path": ('{"path": "a.jpg"}\n{"file": "b.jpg"}\n', "no column 'path'"),
    "a number": ('{"path": 3}\n', "line 1 of the list 'list.jsonl' has the path 3"),
    "null": ('{"path": null}\n', "line 1 of the list 'list.jsonl' has the path None"),
    "a list as label": ('{"path": "a.jpg", "label": ["cat"]}\n', "line 1 .* has the label"),
    "a mask that is no path": ('{"path": "a.jpg", "mask": 7}\n', "line 1 .* has the mask 7"),
    "half a character": ('{"path": "\\ud800.jpg"}\n', "line 1 .* not UTF-8"),
    "half a character in a label": ('{"path": "a.jpg", "label": "\\udfff"}\n', "not UTF-8"),
    "deep nesting": ("[" * 100_000 + "\n", "line 1 is not JSON"),
    "a null character": ('{"path": "a\0.jpg"}\n', "line 1 has a null character"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if k else ()) for k, n in enumerate(JSON_MISTAKES)],
)
def test_a_mistake_in_json_lines_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, said = JSON_MISTAKES[name]
    (tmp_path / "list.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ImageSetError, match=said) as caught:
        open_images(tmp_path / "list.jsonl")
    assert "list.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty", "no path", "twice", "numbers"])
def test_a_damaged_parquet_list_is_refused(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "list.parquet"
    columns: dict[str, Any] = {"path": ["a.jpg", "b.jpg"], "label": ["cat", "dog"]}
    table = pa.table(columns)
    if damage == "no path":
        table = table.rename_columns(["file", "label"])
    elif damage == "twice":
        table = table.rename_columns(["path", "path"])
    elif damage == "numbers":
        table = pa.table({"path": [1, 2]})
    pq.write_table(table, file)
    content = file.read_bytes()
    half = len(content) // 2
    changed = {"cut": content[:half], "text": b"path\na.jpg\n", "empty": b""}
    changed["zeros"] = content[:40] + bytes(len(content) - 80) + content[-40:]
    file.write_bytes(changed.get(damage, content))
    with pytest.raises(ImageSetError) as caught:
        open_images(file)
    assert "list" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (FOUR, ["cat", "dog", "cat", "dog"]),
        ("\ufeff" + FOUR, ["cat", "dog", "cat", "dog"]),
        (FOUR.replace("\n", "\r\n"), ["cat", "dog", "cat", "dog"]),
        (FOUR.replace("\n", "\n\n"), ["cat", "dog", "cat", "dog"]),
        ("path, label\na.jpg, cat\n", ["cat"]),
        ("Path,LABEL,\na.jpg,cat,\n", ["cat"]),
        ('path,label\na.jpg,"tiger, cat"\nb.jpg,"say ""miaow"""\n', ["tiger, cat", 'say "miaow"']),
    ],
    ids=["plain", "byte order mark", "CRLF", "blank lines", "spaces", "capitals", "quotes"],
)
def test_what_is_no_mistake_is_read(text: str, labels: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8", newline="")
    assert [entry.label for entry in read_list(tmp_path / "list.csv")] == labels


def test_every_annotation_survives_what_a_spreadsheet_does(tmp_path: Path) -> None:
    boxes = [[1, 2, 3, 4], [0, 0, 9, 9]]
    quoted = json.dumps(boxes).replace('"', '""')
    text = f'id,path,boxes,label,note\r\n7,"a, b.jpg","{quoted}",cat,"""x"""\r\n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8-sig", newline="")
    (entry,) = read_list(tmp_path / "list.csv")
    assert (entry.path, entry.label) == ("a, b.jpg", "cat")
    assert entry.boxes == ((1, 2, 3, 4), (0, 0, 9, 9))
