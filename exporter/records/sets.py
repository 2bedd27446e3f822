"""What only the whole set shows: ``set/`` and the per-image tables of ``summaries/``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One bin of the reliability diagram.

    Attributes:
        lower: confidences above this …
        upper: … and up to this are counted.
        images: labelled images of the bin.
        confidence: their mean confidence, None of nothing.
        accuracy: their accuracy, None of nothing.
    """

    lower: float
    upper: float
    images: int
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
    ids: tuple[str, ...]
    of: int


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
    images: int
    channels: int
    pairs: int
    redundant: int


@dataclass(frozen=True, slots=True)
class SetSummary:
    """The numbers of the whole set (``set/summary.json``); what has no labels is None.

    Attributes:
        images: planned images.
        read: images that were read.
        labelled: those with a prediction whose label is a class.
        correct: of them, those predicted right.
        accuracy: correct / labelled.
        top5_accuracy: share of the labelled with the label among five predictions; None where
            fewer are kept.
        confidence: mean probability of the first prediction; None for a single output.
        loss: mean cross-entropy in nat.
        calibration_error: ECE over ``bins``, 0 to 1.
        bins: the reliability diagram, 15 equal bins.
        predicted_classes: classes that are predicted at least once.
        mapped_classes: of them, those whose mean maps are kept.
        confused_pairs: pairs (label, predicted) that occur.
        class_map_layer: the layer of class maps and agreement; pixel methods have their own.
        image_map: (method, layer) of the map that stands for an image.
        redundancy: a recorded layer each.
        strips: images that matter; those without images are left out.
        rules: what each number is, in words, by its name.
    """

    images: int
    read: int
    labelled: int
    correct: int
    accuracy: float | None
    top5_accuracy: float | None
    confidence: float | None
    loss: float | None
    calibration_error: float | None
    bins: tuple[CalibrationBin, ...]
    predicted_classes: int
    mapped_classes: int
    confused_pairs: int
    class_map_layer: str
    image_map: tuple[str, str]
    redundancy: tuple[LayerRedundancy, ...]
    strips: tuple[Strip, ...]
    rules: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """What the set shows of one class that is a label or a prediction (``set/classes.parquet``).

    Attributes:
        index: number of the output.
        name: name of the class.
        support: images with this label, and a prediction.
        correct: of them, right.
        predicted: images predicted as it, with or without a label.
        precision: correct / labelled images predicted as it.
        recall: correct / support.
        confidence: mean over the images predicted as it.
        confidence_spread: standard deviation of that.
        entropy: mean entropy of the maps that stand for those images, 0 to 1.
        entropy_spread: standard deviation of that.
        top_share: mean share of energy in the top 20 % of cells.
        agreement: mean rank correlation of the methods.
    """

    index: int
    name: str
    support: int
    correct: int
    predicted: int
    precision: float | None
    recall: float | None
    confidence: float | None
    confidence_spread: float | None
    entropy: float | None
    entropy_spread: float | None
    top_share: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """How often a label was taken for another class (``set/confusion.parquet``)."""

    label: int
    predicted: int
    label_name: str
    predicted_name: str
    images: int


@dataclass(frozen=True, slots=True)
class MethodRow:
    """What the set shows of one method at one layer (``set/methods.parquet``).

    Attributes:
        method: registry name.
        layer: qualified layer name, ``""`` for a pixel method.
        images: images with this map, numbers in every cell.
        uniform: of them, maps of one value.
        measured: of them, those somewhere above zero.
        entropy: mean entropy, 0 (one cell) to 1 (all equal).
        top_share: mean share of energy in the top 20 % of cells.
        annotated: images with a box or mask in the view.
        pointing: share of them whose largest cell is inside.
        box_energy: mean share of energy inside.
        box_overlap: mean intersection over union with the map's region.
        histogram: entropies in 20 equal bins of [0, 1].
    """

    method: str
    layer: str
    images: int
    uniform: int
    measured: int
    entropy: float | None
    top_share: float | None
    annotated: int
    pointing: float | None
    box_energy: float | None
    box_overlap: float | None
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MethodAgreement:
    """Mean rank correlation of two methods' maps at a layer (``set/agreement.parquet``)."""

    layer: str
    first: str
    second: str
    images: int
    correlation: float | None


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The mean map of the images predicted as a class (``set/class-maps.parquet``).

    Attributes:
        index: the class.
        method: registry name.
        layer: qualified layer name, ``""`` for a pixel method.
        images: images in the mean.
        height: rows.
        width: columns.
        values: float32, little-endian, row-major, in [0, 1].
        entropy: mean entropy of the class's maps, not of their mean.
        top_share: mean share of energy in the top 20 % of cells of its maps.
    """

    index: int
    method: str
    layer: str
    images: int
    height: int
    width: int
    values: bytes
    entropy: float | None
    top_share: float | None

    def array(self) -> NDArray[np.float32]:
        """Return float32 (height, width), in [0, 1]."""
        return np.frombuffer(self.values, dtype="<f4").reshape(self.height, self.width)


@dataclass(frozen=True, slots=True)
class RedundantPair:
    """Two channels of a layer that say the same (``set/redundant.parquet``)."""

    layer: str
    first: int
    second: int
    correlation: float


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How faithful one map is to the model (``summaries/*-faithfulness.parquet``).

    Attributes:
        id: the image.
        method: registry name.
        layer: the deepest explained layer.
        deletion: area under the probability while the most salient pixels go, 0 to 1; less is
            better. None, as the others, where there is nothing to measure.
        insertion: area under it while they come back, 0 to 1; more is better.
        road: remove and debias, -0.5 to 0.5; more is better.
    """

    id: str
    method: str
    layer: str
    deletion: float | None
    insertion: float | None
    road: float | None


@dataclass(frozen=True, slots=True)
class MethodFaithfulness:
    """How faithful one method's maps are (``set/faithfulness.parquet``, with ``--faithfulness``).

    Attributes:
        method: registry name.
        layer: the deepest explained layer.
        images: images that were measured.
        deletion: mean over them; None of none.
        insertion: mean over them.
        road: mean over them.
    """

    method: str
    layer: str
    images: int
    deletion: float | None
    insertion: float | None
    road: float | None


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """What is measured of one image and its map (``summaries/*-images.parquet``).

    Attributes:
        id: the image.
        predicted: class of the first prediction, or None.
        confidence: its probability, or None.
        correct: whether it is the label, None where that is not known.
        entropy: of the map that stands for the image, 0 to 1; None where it is nowhere above zero.
        top_share: share of its energy in the top 20 % of cells.
        agreement: mean rank correlation of the methods' maps at the deepest layer.
        pointing: whether its largest cell is in the boxes or the mask; None where not given.
        box_energy: share of its energy in them.
        box_overlap: intersection over union of its region with them.
    """

    id: str
    predicted: int | None
    confidence: float | None
    correct: bool | None
    entropy: float | None
    top_share: float | None
    agreement: float | None
    pointing: bool | None
    box_energy: float | None
    box_overlap: float | None
