"""The JSON documents of a run: read into records, which are their schema, and written from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from exporter.errors import RunError
from exporter.records import SCHEMA_VERSION, Totals
from exporter.store import layout
from exporter.store.checksums import is_altered
from exporter.store.files import RunFiles

Record = TypeVar("Record")

AGAIN = "make the run again with --overwrite"
RESUME = "go on with --resume"

LARGEST = 1 << 29
"""Bytes of the largest document, which is the plan of some millions of images."""


def read_json(
    run: RunFiles, name: str, remedy: str, *, versioned: bool = False, nan: bool = False
) -> Any:
    """Return what a document holds.

    Args:
        run: the run folder.
        name: the document.
        remedy: what to do where it is damaged.
        versioned: whether it says the version of the run folder's layout.
        nan: whether a number may be NaN or infinite.

    Raises:
        RunError: if it cannot be read, is damaged, or was written by a newer exporter.
    """
    try:
        content = run.read(name, LARGEST)
        values = json.loads(content, parse_constant=float if nan else _refuse)
        version = int(values["schema"]) if versioned else SCHEMA_VERSION
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise damaged(run, name, error, remedy) from None
    if version > SCHEMA_VERSION:
        raise RunError(
            f"{str(run.run / name)!r} has schema version {version} and this exporter reads up to "
            f"{SCHEMA_VERSION}; install a newer exporter"
        )
    return values


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not allowed here")


def validated(
    run: RunFiles, name: str, record: type[Record], values: object, remedy: str
) -> Record:
    """Build a record from a document's values.

    Raises:
        RunError: if a value is missing or not as the record says.
    """
    try:
        checked: Record = _adapter(cast(Any, record)).validate_python(values)
    except (ValidationError, RecursionError) as error:
        raise damaged(run, name, error, remedy) from None
    return checked


def read_totals(run: RunFiles) -> Totals | None:
    """Read ``run.json``; None where the run is partial.

    Raises:
        RunError: if it is damaged, or was written by a newer exporter.
    """
    if not run.exists(layout.TOTALS):
        return None
    if is_altered(run, layout.TOTALS):
        raise damaged(run, layout.TOTALS, "its SHA-256 differs", RESUME)
    values = read_json(run, layout.TOTALS, RESUME, versioned=True)
    return validated(run, layout.TOTALS, Totals, values, RESUME)


def json_bytes(values: Mapping[str, Any] | list[Any]) -> bytes:
    """Return the text of a document, indented."""
    return (json.dumps(values, indent=1) + "\n").encode()


def damaged(run: RunFiles, name: str, error: object, remedy: str = RESUME) -> RunError:
    """Return the error that says that a file is damaged, and what repairs it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
    elif isinstance(error, KeyError):
        said = f"{error} is missing"
    else:
        said = str(error).split("\n", 1)[0]
    said = " ".join(said.split())[:200]
    return RunError(f"{str(run.run / name)!r} is damaged ({said}); {remedy}")


@cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)
