"""Lists of images: CSV, TSV, JSON lines or Parquet, with a path and annotations, read strictly."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan, Strict, TypeAdapter

from exporter.errors import ImageSetError
from exporter.images.files import Files, as_text, exists, is_file, is_path
from exporter.images.sources import Box, Entry

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Extensions of the lists that can be read."""

_COLUMNS = ("path", "label", "mask", "boxes")
_Edge = Annotated[float, Strict(), AllowInfNan(False)]
_BOXES = TypeAdapter(tuple[tuple[_Edge, _Edge, _Edge, _Edge], ...])
_NOT_UTF8 = "which is not UTF-8; save the list as UTF-8 text"
_Line = tuple[str, dict[str, Any]]
"""Which line or row of the file it is, and what is in the columns of `_COLUMNS` that it has."""


class ImageList(Files):
    """The images of a list; paths in it are relative to its folder."""

    def __init__(self, where: str | Path) -> None:
        super().__init__(Path(where).parent)
        self._file = Path(where)

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a file with a list's extension."""
        return is_path(where) and os.fspath(where).lower().endswith(FORMATS) and is_file(where)

    def entries(self) -> list[Entry]:
        """Return the images in the order of the list."""
        listed = read_list(self._file)
        kept = set(self._outside_runs(entry.path for entry in listed))
        return [entry for entry in listed if entry.path in kept]


def read_list(file: Path) -> list[Entry]:
    """Read a list of images in order; docs/image-sets.md says how it is written.

    Raises:
        ImageSetError: if the file or one of its lines cannot be read, with the line's number.
    """
    suffix = file.suffix.lower()
    try:
        if suffix == ".parquet":
            rows = _parquet_rows(file)
        elif suffix in (".jsonl", ".ndjson"):
            rows = _json_rows(file)
        else:
            rows = _csv_rows(file, "\t" if suffix == ".tsv" else ",")
        said = f"of the list {file.name!r}"
        return [_entry(row, f"{where} {said}", file.parent) for where, row in rows]
    except ImageSetError:
        raise
    except Exception as error:  # the file may hold anything
        text = " ".join(str(error).split()).rstrip(".")
        raise ImageSetError(f"the list {str(file)!r} cannot be read: {text}") from None


def _lines(file: Path) -> Iterator[str]:
    # Bytes that are not UTF-8 survive, so that files with such names can be opened.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise ValueError(f"line {number} has a null character; save the list as UTF-8 text")
            yield line


def _csv_rows(file: Path, delimiter: str) -> Iterator[_Line]:
    records = _records(_lines(file), delimiter)
    _, header = next(records, (1, []))
    places = _places(file, header)
    for number, fields in records:
        if fields and len(fields) != len(header):
            has = f"{len(fields)} field{'' if len(fields) == 1 else 's'}"
            raise ValueError(
                f"line {number} has {has} and the header has {len(header)}; "
                "put a field that holds the separator in quotes"
            )
        if fields:
            yield f"line {number}", {name: fields[at] for name, at in places.items()}


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    rows, number = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True), 1
    try:
        for fields in rows:
            if rows.line_num > number:
                raise csv.Error("a quote is not closed on it")
            yield number, fields
            number += 1
    except csv.Error as error:
        raise ValueError(f"line {number} is not valid ({error}); check its quotes") from None


def _json_rows(file: Path) -> Iterator[_Line]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        values = list(row.values())
        yield f"line {number}", {name: values[at] for name, at in _places(file, row).items()}


def _parquet_rows(file: Path) -> Iterator[_Line]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        places = _places(file, names)
        number, wanted = 0, [names[at] for at in places.values()]
        # In this thread alone: where the system starts no more, Arrow would wait for one for ever.
        for batch in table.iter_batches(columns=wanted, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", {name: row[names[at]] for name, at in places.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a name occurs twice")
    return row


def _places(file: Path, names: Collection[str]) -> dict[str, int]:
    """Return where the known columns are; case and spaces around a name do not count."""
    given = [name.strip().casefold() for name in names]
    twice = [name for name in _COLUMNS if given.count(name) > 1]
    if twice:
        raise ValueError(f"there are {given.count(twice[0])} columns {twice[0]!r}; give one")
    if "path" not in given:
        separators = [sign for sign in ";\t|," if len(given) == 1 and sign in given[0]]
        there = ", ".join(repr(as_text(name)) for name in islice(names, 8)) or "none"
        more = ", …" if len(names) > 8 else ""
        has = f"its columns are {there}{more}; call the one of the images' files 'path'"
        if separators:
            has = (
                f"its header is separated by {separators[0]!r}; separate the columns by commas or "
                "tabs"
            )
        raise ImageSetError(f"the list {str(file)!r} has no column 'path': {has}")
    return {name: given.index(name) for name in _COLUMNS if name in given}


def _entry(row: dict[str, Any], where: str, folder: Path) -> Entry:
    path, mask, label = row["path"], row.get("mask") or None, _label(row.get("label"), where)
    for name, value in (("path", path), *([] if mask is None else [("mask", mask)])):
        if not isinstance(value, str) or not value.strip():
            raise ImageSetError(f"{where} has the {name} {value!r}; give the path of a file")
        if as_text(value) != value and not exists(folder / value):
            raise ImageSetError(f"{where} has the {name} {as_text(value)!r}, {_NOT_UTF8}")
    if label is not None and as_text(label) != label:
        raise ImageSetError(f"{where} has the label {as_text(label)!r}, {_NOT_UTF8}")
    return Entry(path, label, mask, _boxes(row.get("boxes"), where))


def _label(value: Any, where: str) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with a gap reaches us as floating-point numbers
    if not isinstance(value, str | int | float):
        raise ImageSetError(f"{where} has the label {value!r}; give a text or a number")
    return str(value).strip() or None


def _boxes(value: Any, where: str) -> tuple[Box, ...] | None:
    if value is None or value == "":
        return None
    try:
        text = isinstance(value, str)
        boxes = _BOXES.validate_json(value) if text else _BOXES.validate_python(value)
    except ValueError:
        boxes = None
    if boxes is None or any(right < left or bottom < top for left, top, right, bottom in boxes):
        raise ImageSetError(
            f"{where} has the boxes {value!r}; give [[left, top, right, bottom], …] in pixels"
        )
    return boxes
