"""What only the whole set shows: ``set/`` and the per-image tables of ``summaries/``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, Field

from exporter.records.columns import (
    COLUMNS,
    LAYER,
    METHOD,
    ROWS,
    Column,
    Count,
    Float32,
    Id,
    Int32,
)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One bin of the reliability diagram.

    Attributes:
        lower: confidences above this …
        upper: … and up to this are counted.
        images: labelled images of the bin.
        confidence: their mean confidence, None where there are none.
        accuracy: their accuracy, None where there are none.
    """

    lower: float
    upper: float
    images: Count
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Strip:
    """Images that matter, and the rule that chose them.

    Attributes:
        name: such as ``most wrong``.
        rule: the rule in words, beginning with the name.
        ids: the images, in the rule's order.
        of: how many the rule could have chosen of (images, or classes).
    """

    name: str
    rule: str
    ids: tuple[Id, ...]
    of: Count


@dataclass(frozen=True, slots=True)
class LayerRedundancy:
    """How many channels of a layer say what another says.

    Attributes:
        layer: qualified layer name.
        images: sampled images that were looked at; below 16 nothing is said.
        channels: channels of the layer.
        pairs: pairs of redundant channels.
        redundant: channels that are in one.
    """

    layer: str
    images: Count
    channels: Count
    pairs: Count
    redundant: Count


@dataclass(frozen=True, slots=True)
class SetSummary:
    """The numbers of the whole set (``set/summary.json``); what has no labels is None.

    Attributes:
        images: planned images.
        read: images that were read.
        labelled: those with a prediction whose label is a class.
        correct: of these, those predicted correctly.
        accuracy: correct / labelled.
        top5_accuracy: share of the labelled with the label among five predictions; None where
            fewer are kept.
        confidence: mean probability of the first prediction; None for a single output.
        loss: mean cross-entropy in nat.
        calibration_error: ECE over ``bins``, 0 to 1.
        bins: the reliability diagram, 15 equal bins.
        predicted_classes: classes that are predicted at least once.
        mapped_classes: of these, those whose mean maps are kept.
        confused_pairs: pairs (label, predicted) that occur.
        class_map_layer: the layer of class maps and agreement; pixel methods have their own.
        image_map: (method, layer) of the map that stands for an image.
        redundancy: a recorded layer each.
        strips: images that matter; those without images are left out.
        rules: what each number is, in words, by its name.
    """

    images: Count
    read: Count
    labelled: Count
    correct: Count
    accuracy: float | None
    top5_accuracy: float | None
    confidence: float | None
    loss: float | None
    calibration_error: float | None
    bins: tuple[CalibrationBin, ...]
    predicted_classes: Count
    mapped_classes: Count
    confused_pairs: Count
    class_map_layer: str
    image_map: Annotated[
        # Its name in runs of the first version.
        tuple[str, str], Field(validation_alias=AliasChoices("image_map", "quality_map"))
    ]
    redundancy: tuple[LayerRedundancy, ...]
    strips: tuple[Strip, ...]
    rules: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """What the set shows of one class that is a label or a prediction."""

    index: Annotated[Int32, Column("class")]
    name: Annotated[str, Column("its name, or its number")]
    support: Annotated[int, Column("images with this label, and a prediction")]
    correct: Annotated[int, Column("of these, predicted correctly")]
    predicted: Annotated[int, Column("images predicted as this class, with or without a label")]
    precision: Annotated[float | None, Column("correct / labelled images predicted as it")]
    recall: Annotated[float | None, Column("correct / support")]
    confidence: Annotated[float | None, Column("mean over the images predicted as it")]
    confidence_spread: Annotated[float | None, Column("standard deviation of that")]
    entropy: Annotated[
        float | None,
        Column("mean, first method at the deepest layer, images predicted as it"),
    ]
    entropy_spread: Annotated[float | None, Column("standard deviation of that")]
    top_share: Annotated[
        float | None, Column("mean share of energy in the top 20 % of cells, same maps")
    ]
    agreement: Annotated[
        float | None, Column("mean rank correlation of the methods, deepest layer")
    ]


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """How often a label was taken for another class."""

    label: Annotated[Int32, Column("class of the label")]
    predicted: Annotated[Int32, Column("class predicted instead")]
    label_name: Annotated[str, Column("name of the label's class")]
    predicted_name: Annotated[str, Column("name of the predicted class")]
    images: Annotated[int, Column("images")]


@dataclass(frozen=True, slots=True)
class MethodRow:
    """What the set shows of one method at one layer."""

    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    images: Annotated[int, Column("images that have this map, with a number in every cell")]
    uniform: Annotated[int, Column("of these, maps that are the same everywhere")]
    measured: Annotated[int, Column("of these, maps that are above zero somewhere")]
    entropy: Annotated[float | None, Column("mean over the measured, 0 one cell, 1 all equal")]
    top_share: Annotated[float | None, Column("mean share of energy in the top 20 % of cells")]
    annotated: Annotated[int, Column("images with a box or mask in the view")]
    pointing: Annotated[float | None, Column("share of the annotated whose largest cell is inside")]
    box_energy: Annotated[float | None, Column("mean share of energy inside")]
    box_overlap: Annotated[
        float | None,
        Column("mean intersection over union, region from half the largest value"),
    ]
    histogram: Annotated[tuple[int, ...], Column("entropies in 20 equal bins of 0 to 1", size=20)]


@dataclass(frozen=True, slots=True)
class MethodAgreement:
    """Mean rank correlation of two methods' maps at a layer."""

    layer: Annotated[str, LAYER]
    first: Annotated[str, Column("a method")]
    second: Annotated[str, Column("a later one")]
    images: Annotated[int, Column("images with both maps")]
    correlation: Annotated[float | None, Column("mean of their rank correlations, -1 to 1")]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The mean map of the images predicted as a class."""

    index: Annotated[Int32, Column("predicted class")]
    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    images: Annotated[int, Column("images in the mean")]
    height: Annotated[Int32, ROWS]
    width: Annotated[Int32, COLUMNS]
    values: Annotated[bytes, Column("float32 little-endian, row-major, mean painted map, 0 to 1")]
    entropy: Annotated[float | None, Column("mean entropy of the class's maps (not of their mean)")]
    top_share: Annotated[
        float | None, Column("mean share of energy in the top 20 % of cells of its maps")
    ]

    def array(self) -> NDArray[np.float32]:
        """Return float32 (height, width), in [0, 1]."""
        return np.frombuffer(self.values, dtype="<f4").reshape(self.height, self.width)


@dataclass(frozen=True, slots=True)
class RedundantPair:
    """Two channels of a layer that say the same."""

    layer: Annotated[str, Column("qualified name of the layer")]
    first: Annotated[Int32, Column("a channel")]
    second: Annotated[Int32, Column("a later one")]
    correlation: Annotated[float, Column("of their spatial means over the sampled images, -1 to 1")]


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """What is known of one image's prediction, and measured of the map that stands for it."""

    id: Annotated[str, Column("the image")]
    predicted: Annotated[Int32 | None, Column("class of the first prediction")]
    confidence: Annotated[Float32 | None, Column("its probability")]
    correct: Annotated[bool | None, Column("whether it is the label, where that is known")]
    entropy: Annotated[
        Float32 | None, Column("of the first method's map at the deepest layer, 0 to 1")
    ]
    top_share: Annotated[Float32 | None, Column("share of its energy in the top 20 % of cells")]
    agreement: Annotated[
        Float32 | None, Column("mean rank correlation of the methods, deepest layer")
    ]
    pointing: Annotated[bool | None, Column("whether its largest cell is in the boxes or the mask")]
    box_energy: Annotated[Float32 | None, Column("share of its energy in them")]
    box_overlap: Annotated[Float32 | None, Column("its region's intersection over union with them")]
    # Runs of the first version do not have these.
    read: Annotated[bool | None, Column("whether the image was read")] = None
    label: Annotated[Int32 | None, Column("class of the label, where it is known")] = None
    in_first: Annotated[
        bool | None, Column("whether the label is among the first five predictions")
    ] = None
    loss: Annotated[Float32 | None, Column("cross-entropy of the label", "nat")] = None
    region_overlap: Annotated[
        Float32 | None, Column("intersection over union of the predicted region and the mask")
    ] = None
