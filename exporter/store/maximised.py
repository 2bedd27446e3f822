"""``maximised/``: pictures that excite channels and classes, a file a group made together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.records import MaximisedPicture
from exporter.store import layout
from exporter.store.schema import IMAGE_TYPE, column, hugging_face

MAXIMISED_SCHEMA: Final = pa.schema(
    [
        column("layer", pa.string(), "qualified name of the layer; output for a class"),
        column("channel", pa.int32(), "number of the channel or class"),
        column("name", pa.string(), "name of the class; empty of a channel"),
        column("before", pa.float64(), "mean of the channel, of the noise it began with"),
        column("after", pa.float64(), "mean of the channel over its places, of the picture"),
        column("peak", pa.float64(), "largest place of the channel, of the picture"),
        column("prior", pa.string(), "fourier, total-variation or none"),
        column("settings", pa.string(), "steps, jitter, zoom and seed, in words"),
        column("height", pa.int32(), "rows of the picture", "pixels"),
        column("width", pa.int32(), "columns of the picture", "pixels"),
        column("picture", IMAGE_TYPE, "PNG, without loss"),
    ],
    metadata={"huggingface": hugging_face("picture")},
)
"""Columns of ``maximised/*.parquet``; ``docs/run-folder.md`` is held to it by a test."""


def maximised_table(pictures: Sequence[MaximisedPicture]) -> pa.Table:
    """Return pictures as a table of ``MAXIMISED_SCHEMA``, in their order."""
    columns = {
        name: [getattr(one, name) for one in pictures]
        for name in MAXIMISED_SCHEMA.names
        if name != "picture"
    }
    columns["picture"] = [{"bytes": one.picture, "path": None} for one in pictures]
    return pa.table(columns, schema=MAXIMISED_SCHEMA)


def read_maximised(run: Path, layer: str | None = None) -> Iterator[MaximisedPicture]:
    """Yield the pictures that are there, a group in memory at a time.

    Args:
        run: the run folder.
        layer: only this layer's; ``output`` for classes.

    Raises:
        RunError: if a file is damaged.
    """
    for file in maximised_files(run):
        try:
            with pq.ParquetFile(file) as parquet:
                rows = parquet.read(use_threads=False).to_pylist()
            found = [MaximisedPicture(**row | {"picture": row["picture"]["bytes"]}) for row in rows]
        except (OSError, pa.ArrowException, KeyError, TypeError):
            raise RunError(f"{str(file)!r} is damaged; remove it and go on with --resume") from None
        yield from (one for one in found if layer is None or one.layer == layer)


def maximised_files(run: Path) -> list[Path]:
    """Return the files of pictures that are there, in the order they were asked for."""
    return sorted((run / layout.MAXIMISED).glob("[0-9]*.parquet"))
