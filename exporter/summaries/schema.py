"""The Arrow schemas of what a shard adds to the set, and of what the set gives (``set/``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from exporter.records import (
    ClassMap,
    ClassRow,
    ConfusedPair,
    ImageMeasures,
    MethodAgreement,
    MethodRow,
    RedundantPair,
)
from exporter.store import schema_of
from exporter.summaries import calibration, concentration

_LAYER = "qualified name of the layer; empty for a pixel method"
_UNITS = "2**-32"


def _field(name: str, kind: pa.DataType, about: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"about": about} | ({"unit": unit} if unit else {}))


def _structs(name: str, about: str, *fields: pa.Field) -> pa.Field:
    return _field(name, pa.list_(pa.field("element", pa.struct(list(fields)))), about)


def _count(name: str, about: str) -> pa.Field:
    return _field(name, pa.int64(), about)


def _units(name: str, about: str) -> pa.Field:
    return _field(name, pa.int64(), about, _UNITS)


def _text(name: str, about: str) -> pa.Field:
    return _field(name, pa.string(), about)


def _number(name: str, about: str) -> pa.Field:
    return _field(name, pa.int32(), about)


def _mean(name: str, about: str, unit: str = "") -> pa.Field:
    return _field(name, pa.float64(), about, unit)


_HISTOGRAM = pa.list_(pa.field("element", pa.int64()), concentration.BINS)

IMAGES_SCHEMA: Final = schema_of(ImageMeasures)
"""Columns of ``summaries/*-images.parquet``: a row per image, in plan order; never merged."""

SET_SCHEMA: Final = pa.schema(
    [
        _structs(
            "numbers",
            "the shard's images, one element",
            _count("images", "planned images"),
            _count("read", "those that were read"),
            _count("labelled", "those with a label that is a class, and a prediction"),
            _count("correct", "of the labelled, those predicted right"),
            _count("top5_images", "labelled images with five predictions kept"),
            _count("top5_correct", "of them, those with the label among the five"),
            _count("losses", "images with a finite loss"),
            _count("confident", "images with a confidence"),
            _units("confidence", "sum of confidences"),
            _field("loss", pa.binary(), "sum of losses, little-endian integer", "2**-149 nat"),
        ),
        _structs(
            "bins",
            f"labelled images in {calibration.BINS} equal bins of confidence",
            _count("images", "images"),
            _count("correct", "of them, right"),
            _units("confidence", "sum of confidences"),
        ),
        _structs(
            "classes",
            "each class that is a label or a prediction",
            _number("index", "class"),
            _count("support", "images with this label, and a prediction"),
            _count("correct", "of them, right"),
            _count("predicted", "images predicted as this class"),
            _count("predicted_labelled", "of them, those with a label"),
            _units("confidence", "sum over predicted images"),
            _units("confidence_squares", "sum of squares"),
            _count("mapped", "predicted images with an entropy"),
            _units("entropy", "sum over them"),
            _units("entropy_squares", "sum of squares"),
            _units("top_share", "sum over them"),
            _count("compared", "predicted images with an agreement"),
            _units("agreement", "sum over them"),
        ),
        _structs(
            "confusions",
            "each pair of a label and another prediction",
            _number("label", "class of the label"),
            _number("predicted", "class predicted"),
            _count("images", "images"),
        ),
        _structs(
            "methods",
            "each (method, layer)",
            _text("method", "name of the method"),
            _text("layer", _LAYER),
            _count("images", "images with this map, numbers in every cell"),
            _count("uniform", "of them, maps of one value"),
            _count("measured", "of them, those somewhere above zero"),
            _units("entropy", "sum over the measured"),
            _units("top_share", "sum over the measured"),
            _count("annotated", "of the images, those with a box or mask in the view"),
            _count("pointed", "of the annotated, largest cell inside"),
            _units("box_energy", "sum over the annotated"),
            _units("box_overlap", "sum over the annotated"),
            _field("histogram", _HISTOGRAM, "entropies in 20 equal bins of 0 to 1"),
        ),
        _structs(
            "agreement",
            "each two methods at a layer",
            _text("layer", _LAYER),
            _text("first", "a method"),
            _text("second", "a later one"),
            _count("images", "images with both"),
            _units("correlation", "sum of their rank correlations"),
        ),
        _structs(
            "maps",
            "each predicted class, method and size at the deepest layer",
            _number("index", "class"),
            _text("method", "name of the method"),
            _text("layer", _LAYER),
            _field("height", pa.int32(), "rows of the map", "cells"),
            _field("width", pa.int32(), "columns of the map", "cells"),
            _count("images", "images with this map"),
            _count("measured", "of them, those somewhere above zero"),
            _units("entropy", "sum over the measured"),
            _units("top_share", "sum over the measured"),
            _field("sums", pa.binary(), "int64 little-endian, sum of painted maps", "levels"),
        ),
        _structs(
            "pooled",
            "each sampled image and recorded layer",
            _text("layer", "qualified name of the layer"),
            _text("id", "the image"),
            _field("means", pa.binary(), "float32 little-endian, spatial mean a channel"),
        ),
    ]
)
"""Columns of ``summaries/*-set.parquet``: one row of lists, so that one list is read alone."""

SET_TABLES: Final[Mapping[str, pa.Schema]] = {
    "classes": schema_of(ClassRow),
    "confusion": schema_of(ConfusedPair),
    "methods": schema_of(MethodRow),
    "agreement": schema_of(MethodAgreement),
    "class-maps": schema_of(ClassMap),
    "redundant": schema_of(RedundantPair),
}
"""Tables of ``set/`` by the name of their file."""
