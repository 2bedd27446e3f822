"""Reading ``channels.parquet``: what the whole set shows of each channel."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.records import ChannelRow
from exporter.store.layout import CHANNELS


def read_channels(run: Path, layer: str | None = None) -> tuple[ChannelRow, ...]:
    """Return the channels of a run, in the order of layers and channels.

    Args:
        run: the run folder.
        layer: only this layer's channels.

    Returns:
        Nothing where the run is partial or recorded no layers.

    Raises:
        RunError: if the file is damaged.
    """
    file = run / CHANNELS
    if not file.exists():
        return ()
    filters = None if layer is None else [("layer", "==", layer)]
    try:
        rows = pq.read_table(file, filters=filters, use_threads=False).to_pylist()
        return tuple(
            ChannelRow(
                **row
                | {
                    "top": tuple(row["top"]),
                    "top_values": tuple(row["top_values"]),
                    "top_places": tuple((place["x"], place["y"]) for place in row["top_places"]),
                }
            )
            for row in rows
        )
    except (OSError, pa.ArrowException, KeyError, TypeError):
        raise RunError(f"{str(file)!r} is damaged; remove it and go on with --resume") from None
