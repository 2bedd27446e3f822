"""The Arrow schema of a shard: one row an image, the same for every run."""

from __future__ import annotations

import json
from typing import Any, Final

import pyarrow as pa

from exporter.records import MAP_LEVELS, SCHEMA_VERSION

ROWS_A_GROUP: Final = 8
"""Rows a Parquet row group: small, so that one map is read without reading its shard."""


def column(
    name: str, kind: pa.DataType, about: str, unit: str = "", nullable: bool = True
) -> pa.Field:
    """Return a column that says what it holds, and in which unit."""
    metadata = {"about": about} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind))


_BOX = pa.list_(pa.field("element", pa.float32()), 4)

PREDICTION_TYPE: Final = pa.struct(
    [
        column("index", pa.int32(), "number of the output"),
        column("name", pa.string(), "name of the class"),
        column("score", pa.float32(), "softmax probability, or the raw value of a single output"),
    ]
)

IMAGE_TYPE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

MAP_TYPE: Final = pa.struct(
    [
        column("method", pa.string(), "name of the map method"),
        column("layer", pa.string(), "qualified name of the layer; empty for a pixel method"),
        column("target", pa.string(), "what is explained: class:281, box:3, mask or value"),
        column("height", pa.int32(), "rows of the map", "cells"),
        column("width", pa.int32(), "columns of the map", "cells"),
        column("lo", pa.float32(), "value of level 0"),
        column("hi", pa.float32(), f"value of level {MAP_LEVELS}"),
        column(
            "values",
            pa.binary(),
            f"little-endian uint16, row-major; value = lo + level * (hi - lo) / {MAP_LEVELS}",
            "levels",
        ),
        column(
            "flags",
            pa.string(),
            "zero, constant, nan or negative (its ReLU leaves nothing); empty where all is well",
        ),
    ]
)

ACTIVATION_TYPE: Final = pa.struct(
    [
        column("layer", pa.string(), "qualified name of the layer"),
        column("channels", _list(pa.int32()), "channel numbers, largest spatial mean first"),
        column("height", pa.int32(), "rows of a channel", "cells"),
        column("width", pa.int32(), "columns of a channel", "cells"),
        column("lo", _list(pa.float32()), "value of level 0, a channel each"),
        column("hi", _list(pa.float32()), "value of level 255, a channel each"),
        column(
            "values",
            pa.binary(),
            "uint8, (channels, height, width) row-major; value = lo + level * (hi - lo) / 255",
            "levels",
        ),
    ]
)


def hugging_face(name: str) -> str:
    """Return what tells `datasets` that a column holds pictures; the others it infers."""
    return json.dumps({"info": {"features": {name: {"_type": "Image"}}}})


ROW_SCHEMA: Final = pa.schema(
    [
        column(
            "id", pa.string(), "unique in the run: the key, then key-2, key-3 …", nullable=False
        ),
        column("key", pa.string(), "hash of the file's bytes, stable across runs", nullable=False),
        column("path", pa.string(), "relative to the image set", nullable=False),
        column("label", pa.string(), "as given"),
        column("label_index", pa.int32(), "class of the model, only where it is known"),
        column("width", pa.int32(), "of the original, after EXIF rotation", "pixels"),
        column("height", pa.int32(), "of the original, after EXIF rotation", "pixels"),
        column("crop", _BOX, "left, top, right, bottom of the view in the original", "pixels"),
        column("predictions", _list(PREDICTION_TYPE), "the best of them, best first"),
        column("loss", pa.float32(), "cross-entropy, where the label is a class", "nat"),
        column("correct", pa.bool_(), "whether the first prediction is the label"),
        column("image", IMAGE_TYPE, "the model's view, JPEG"),
        column("maps", _list(MAP_TYPE), "raw and signed, at the layer's own resolution"),
        column("activations", _list(ACTIVATION_TYPE), "the strongest channels of recorded layers"),
        column("boxes", _list(_BOX), "given boxes: left, top, right, bottom", "pixels"),
        column("mask", pa.string(), "given mask, relative to the image set"),
        column("error", pa.string(), "why the image was not read"),
    ],
    metadata={"exporter.schema": str(SCHEMA_VERSION), "huggingface": hugging_face("image")},
)
"""Columns of ``shards/*.parquet``, in order; ``docs/run-folder.md`` is held to it by a test."""

HEAVY_COLUMNS: Final = frozenset({"image", "maps", "activations"})

LIGHT_COLUMNS: Final = tuple(name for name in ROW_SCHEMA.names if name not in HEAVY_COLUMNS)
"""Every column but pictures, maps and activations: what fits in memory for a whole set."""

_BINARY_LEAVES = (
    "image.bytes",
    "maps.list.element.values",
    "activations.list.element.values",
)

_REPEATED_TEXT = (
    "label",
    "predictions.list.element.name",
    "maps.list.element.method",
    "maps.list.element.layer",
    "maps.list.element.target",
    "maps.list.element.flags",
    "activations.list.element.layer",
)


def parquet_options() -> dict[str, Any]:
    """Return how a shard is written: the same bytes for the same rows.

    Levels of maps and JPEG bytes are left uncompressed (zstd gains a few percent and costs more
    than the rest of the writing); repeated names are dictionaries.
    """
    return {
        "row_group_size": ROWS_A_GROUP,
        "compression": "NONE",
        "use_dictionary": list(_REPEATED_TEXT),
        "write_statistics": False,
        "version": "2.6",
        "data_page_version": "1.0",
        "store_schema": True,
    }
