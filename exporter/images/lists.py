"""Lists of images: CSV, TSV, JSON lines or Parquet, with a path and annotations."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan, Strict, TypeAdapter

from exporter.errors import ImageSetError, choices
from exporter.images.files import Files, is_file, is_path
from exporter.images.sources import Box, Entry

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Extensions of the lists that can be read."""

_COLUMNS = ("path", "label", "mask", "boxes")
_Edge = Annotated[float, Strict(), AllowInfNan(False)]
_BOXES = TypeAdapter(tuple[tuple[_Edge, _Edge, _Edge, _Edge], ...])


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
        return read_list(self._file)


def read_list(file: Path) -> list[Entry]:
    """Read a list of images.

    Args:
        file: ``.csv`` and ``.tsv`` have a header line and boxes as JSON text; ``.jsonl`` and
            ``.ndjson`` have an object per line; ``.parquet`` has columns. ``path`` is required;
            ``label``, ``mask`` and ``boxes`` are not, and others are left alone. Boxes are
            [[left, top, right, bottom], …] in original pixels.

    Returns:
        The images in order.

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
        return [_entry(row, f"{where} of the list {file.name!r}") for where, row in rows]
    except (OSError, ValueError, csv.Error) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ImageSetError(f"the list {str(file)!r} cannot be read: {text}") from None


def _csv_rows(file: Path, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Bytes that are not UTF-8 survive, so that files with such names can be opened.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.DictReader(lines, delimiter=delimiter)
        _require_path(file, rows.fieldnames or ())
        for row in rows:
            yield f"line {rows.line_num}", row


def _json_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not a JSON object")
            _require_path(file, row)
            yield f"line {number}", row


def _parquet_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        names = table.schema_arrow.names
        _require_path(file, names)
        wanted = [name for name in _COLUMNS if name in names]
        number = 0
        for batch in table.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


def _require_path(file: Path, names: Sequence[str] | Mapping[str, Any]) -> None:
    if "path" not in names:
        has = choices("path", [str(name) for name in names])
        raise ImageSetError(f"the list {str(file)!r} has no column 'path'; name it so ({has})")


def _entry(row: Mapping[str, Any], where: str) -> Entry:
    path = row["path"]
    if not isinstance(path, str) or not path.strip():
        raise ImageSetError(f"{where} has the path {path!r}; give the path of a file")
    mask = row.get("mask")
    if mask is not None and not isinstance(mask, str):
        raise ImageSetError(f"{where} has the mask {mask!r}; give the path of a file")
    return Entry(path, _label(row.get("label")), mask or None, _boxes(row.get("boxes"), where))


def _label(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, float):
        # A column of integers with a gap reaches us as floating-point numbers.
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


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
