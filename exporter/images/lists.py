"""Read a list of images: CSV, TSV, JSON lines or Parquet, with a path and annotations."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import ImageSetError, choices

Box = tuple[float, float, float, float]

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Extensions of the lists that can be read."""

_COLUMNS = ("path", "label", "mask", "boxes")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a list, as given."""

    path: str
    label: str | None = None
    mask: str | None = None
    boxes: tuple[Box, ...] | None = None


def read_list(file: Path) -> list[Listed]:
    """Read a list of images.

    Args:
        file: ``.csv`` and ``.tsv`` have a header line and boxes as JSON text; ``.jsonl`` and
            ``.ndjson`` have an object a line; ``.parquet`` has columns. ``path`` is required;
            ``label``, ``mask`` and ``boxes`` are not, and others are left alone. Boxes are
            [[left, top, right, bottom], …] in original pixels.

    Returns:
        The lines in order.

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
        return [_listed(row, f"{where} of the list {file.name!r}") for where, row in rows]
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


def _listed(row: Mapping[str, Any], where: str) -> Listed:
    path = row["path"]
    if not isinstance(path, str) or not path.strip():
        raise ImageSetError(f"{where} has the path {path!r}; give the path of a file")
    mask = row.get("mask")
    if mask is not None and not isinstance(mask, str):
        raise ImageSetError(f"{where} has the mask {mask!r}; give the path of a file")
    return Listed(path, _label(row.get("label")), mask or None, _boxes(row.get("boxes"), where))


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
    wrong = ImageSetError(
        f"{where} has the boxes {value!r}; give [[left, top, right, bottom], …] in pixels"
    )
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise wrong from None
    if not isinstance(value, list):
        raise wrong
    boxes = []
    for box in value:
        if not isinstance(box, list) or len(box) != 4:
            raise wrong
        if not all(isinstance(edge, int | float) and math.isfinite(edge) for edge in box):
            raise wrong
        left, top, right, bottom = (float(edge) for edge in box)
        if right < left or bottom < top:
            raise wrong
        boxes.append((left, top, right, bottom))
    return tuple(boxes)
