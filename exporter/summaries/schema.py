"""The Arrow schemas of what a shard adds to the set, and of what the set gives (``set/``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

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

IMAGES_SCHEMA: Final = pa.schema(
    [
        _text("id", "the image"),
        _number("predicted", "class of the first prediction"),
        _field("confidence", pa.float32(), "its probability"),
        _field("correct", pa.bool_(), "whether it is the label, where that is known"),
        _field("entropy", pa.float32(), "of the first method's map at the deepest layer, 0 to 1"),
        _field("top_share", pa.float32(), "share of its energy in the top 20 % of cells"),
        _field("agreement", pa.float32(), "mean rank correlation of the methods, deepest layer"),
        _field("pointing", pa.bool_(), "whether its largest cell is in the boxes or the mask"),
        _field("box_energy", pa.float32(), "share of its energy in them"),
        _field("box_overlap", pa.float32(), "its region's intersection over union with them"),
    ]
)
"""Columns of ``summaries/*-images.parquet``: a row an image, in plan order; never merged."""

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

CLASSES_SCHEMA: Final = pa.schema(
    [
        _number("index", "class"),
        _text("name", "its name, or its number"),
        _count("support", "images with this label, and a prediction"),
        _count("correct", "of them, right"),
        _count("predicted", "images predicted as this class, with or without a label"),
        _mean("precision", "correct / labelled images predicted as it"),
        _mean("recall", "correct / support"),
        _mean("confidence", "mean over the images predicted as it"),
        _mean("confidence_spread", "standard deviation of that"),
        _mean("entropy", "mean, first method at the deepest layer, images predicted as it"),
        _mean("entropy_spread", "standard deviation of that"),
        _mean("top_share", "mean share of energy in the top 20 % of cells, same maps"),
        _mean("agreement", "mean rank correlation of the methods, deepest layer"),
    ]
)
"""Columns of ``set/classes.parquet``: classes that are a label or a prediction, by index."""

CONFUSION_SCHEMA: Final = pa.schema(
    [
        _number("label", "class of the label"),
        _number("predicted", "class predicted instead"),
        _text("label_name", "name of the label's class"),
        _text("predicted_name", "name of the predicted class"),
        _count("images", "images"),
    ]
)
"""Columns of ``set/confusion.parquet``: the most frequent pairs first, at most 10,000."""

METHODS_SCHEMA: Final = pa.schema(
    [
        _text("method", "name of the method"),
        _text("layer", _LAYER),
        _count("images", "images with this map, numbers in every cell"),
        _count("uniform", "of them, maps of one value"),
        _count("measured", "of them, those somewhere above zero"),
        _mean("entropy", "mean over the measured, 0 one cell, 1 all equal"),
        _mean("top_share", "mean share of energy in the top 20 % of cells"),
        _count("annotated", "images with a box or mask in the view"),
        _mean("pointing", "share of the annotated whose largest cell is inside"),
        _mean("box_energy", "mean share of energy inside"),
        _mean("box_overlap", "mean intersection over union, region from half the largest value"),
        _field("histogram", _HISTOGRAM, "entropies in 20 equal bins of 0 to 1"),
    ]
)
"""Columns of ``set/methods.parquet``: methods in the order asked for, layers shallow to deep."""

AGREEMENT_SCHEMA: Final = pa.schema(
    [
        _text("layer", _LAYER),
        _text("first", "a method"),
        _text("second", "a later one"),
        _count("images", "images with both maps"),
        _mean("correlation", "mean of their rank correlations, -1 to 1"),
    ]
)
"""Columns of ``set/agreement.parquet``: layers shallow to deep, pairs in the order asked for."""

CLASS_MAPS_SCHEMA: Final = pa.schema(
    [
        _number("index", "predicted class"),
        _text("method", "name of the method"),
        _text("layer", _LAYER),
        _count("images", "images in the mean"),
        _field("height", pa.int32(), "rows of the map", "cells"),
        _field("width", pa.int32(), "columns of the map", "cells"),
        _field("values", pa.binary(), "float32 little-endian, row-major, mean painted map, 0 to 1"),
        _mean("entropy", "mean entropy of the class's maps (not of their mean)"),
        _mean("top_share", "mean share of energy in the top 20 % of cells of its maps"),
    ]
)
"""Columns of ``set/class-maps.parquet``: by class, methods in the order asked for."""

REDUNDANT_SCHEMA: Final = pa.schema(
    [
        _text("layer", "qualified name of the layer"),
        _number("first", "a channel"),
        _number("second", "a later one"),
        _mean("correlation", "of their spatial means over the sampled images, -1 to 1"),
    ]
)
"""Columns of ``set/redundant.parquet``: a layer's strongest pairs first, at most 200."""

SET_TABLES: Final[Mapping[str, pa.Schema]] = {
    "classes": CLASSES_SCHEMA,
    "confusion": CONFUSION_SCHEMA,
    "methods": METHODS_SCHEMA,
    "agreement": AGREEMENT_SCHEMA,
    "class-maps": CLASS_MAPS_SCHEMA,
    "redundant": REDUNDANT_SCHEMA,
}
"""Tables of ``set/`` by the name of their file."""
