"""What crosses a boundary between stages: frozen dataclasses, plain values, no torch.

Units: pixels are in the original photograph (after its EXIF rotation) unless a name says ``view``,
which is the square of pixels the model sees. Shapes are written (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA_VERSION = 1
"""Version of the run folder's layout; a reader refuses a newer one."""

MAP_LEVELS = 65535
"""A stored map holds ``round((value - lo) / (hi - lo) * MAP_LEVELS)`` as little-endian uint16."""

FLAG_REASONS = {
    "zero": "every value is zero: no activation there, or no gradient",
    "constant": "every value is the same",
    "nan": "a value is not a finite number",
    "negative": "every value is negative, so that the method's ReLU leaves nothing",
}
"""Why a map that is flagged shows nothing, by flag; a map has at most one."""


# ---------------------------------------------------------------- images


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the model's view lies in the original photograph.

    Attributes:
        width: original width in pixels, after EXIF rotation.
        height: original height in pixels, after EXIF rotation.
        crop: left, top, right, bottom of the model's view in original pixels; it may reach beyond
            the photograph where the preprocessing pads.
    """

    width: int
    height: int
    crop: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image of the set, as planned.

    Attributes:
        id: unique in the run: ``key``, then ``key-2``, ``key-3`` … for repeated contents.
        key: hash of the file's bytes (hexadecimal); a hash of the path where it could not be read.
        path: relative to the image set, as text.
        label: as given (folder name, column), or None.
        mask: path of a given mask relative to the image set, or None.
        boxes: given boxes as (left, top, right, bottom) in original pixels.
        error: why the bytes could not be read while planning, or None.
    """

    id: str
    key: str
    path: str
    label: str | None = None
    mask: str | None = None
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From a photograph to the model's input: resize, crop, scale to [0, 1], normalise.

    Attributes:
        size: (height, width) of the model's input in pixels.
        resize: shorter side after resizing (int), exact (height, width), or None for no resizing.
        crop: ``center`` (cut ``size`` out of the middle, padding with zeros where it is smaller)
            or ``none`` (the resized image is the view).
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        antialias: whether downsampling is low-pass filtered, as PIL does.
        mean: a value a channel, in [0, 1] units.
        std: a value a channel, in [0, 1] units.
        channels: 1 (grey), 3 (RGB), or another number for data sets that give tensors.
        source: where the values come from, in words, for the report.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    crop: str = "center"
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: int = 3
    source: str = "default"


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, ready for the model.

    Attributes:
        view: the model's view, uint8 (H, W, 3) RGB or (H, W, 1) grey.
        geometry: where that view lies in the original.
        tensor: float32 (C, H, W), already normalised, where a data set gives model-ready tensors;
            otherwise None and the input is ``view``, normalised on the device.
    """

    view: NDArray[np.uint8]
    geometry: Geometry
    tensor: NDArray[np.float32] | None = None


# ---------------------------------------------------------------- models


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """One module of the model.

    Attributes:
        name: qualified name, ``""`` never occurs; a second call of the same module is ``name#2``.
        type: class name, such as ``Conv2d``.
        output: shape of the output for one image, without the batch; None where it is not a tensor
            or the module never fired.
        parameters: number of its own parameters (not its children's).
        depth: 0 for a direct child of the model.
        fired: whether its forward was called in the trial.
    """

    name: str
    type: str
    output: tuple[int, ...] | None
    parameters: int
    depth: int
    fired: bool


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What a run says of its model.

    Attributes:
        name: short name used in runs and titles, such as ``resnet50``.
        spec: what the user asked for, such as ``torchvision:resnet50``.
        weights: name of the weights, ``none`` for random ones.
        checkpoint: name of the checkpoint file, or None.
        classes: class names by index; empty where the model has none.
        preprocessing: from photograph to input.
        parameters: number of parameters.
        output: path of the explained tensor inside the model's output, ``""`` for all of it.
        outputs: number of values a row of the output (classes, for a classifier).
        scores: what a prediction's score is: ``probability``, ``share`` of the plane's area (a
            segmentation), or ``value``, the raw output.
    """

    name: str
    spec: str
    weights: str
    checkpoint: str | None
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    parameters: int
    output: str = ""
    outputs: int = 0
    scores: str = "probability"


@dataclass(frozen=True, slots=True)
class MethodRecord:
    """What a run says of one map method, so that a report needs no torch.

    Attributes:
        name: registry name, such as ``gradcam++``.
        title: name as a paper writes it, such as ``Grad-CAM++``.
        shows: what it shows, one sentence.
        formula: the formula, in Unicode text.
        paper: authors, title, venue, year.
        url: where to find the paper.
        cost: what it costs, in words (such as ``one backward, shared``).
        caveats: how it misleads, one sentence.
        relu: whether the definition ends in a ReLU; the stored map is always signed.
        pixel: whether it gives a map at input resolution (layer ``""``).
        settings: the settings used, name to text.
    """

    name: str
    title: str
    shows: str
    formula: str
    paper: str
    url: str
    cost: str
    caveats: str
    relu: bool
    pixel: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One sheet of kernels.

    Attributes:
        name: layer or parameter name.
        type: class name of the module that holds them.
        shape: (O, I, kh, kw).
        lo: smallest weight.
        hi: largest weight.
        sheet: file name of the picture under ``kernels/``.
        values: file name of the raw float32 ``.npy`` under ``kernels/``.
        shown: how many kernels the sheet shows (a sheet stops at a stated number).
        total: how many there are.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    lo: float
    hi: float
    sheet: str
    values: str
    shown: int
    total: int


# ---------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Prediction:
    """One of the top-k predictions; ``score`` is a probability (softmax) or the raw output."""

    index: int
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class StoredMap:
    """One raw, signed map at its layer's own resolution.

    Attributes:
        method: registry name.
        layer: qualified layer name, ``""`` for a pixel method.
        target: ``class:281``, ``box:3``, ``mask`` or ``value``.
        height: rows.
        width: columns.
        lo: value of level 0.
        hi: value of level 65535.
        values: uint16 levels, little-endian, row-major.
        flags: a key of ``FLAG_REASONS``; ``""`` where nothing is wrong.
    """

    method: str
    layer: str
    target: str
    height: int
    width: int
    lo: float
    hi: float
    values: bytes
    flags: str = ""

    def array(self) -> NDArray[np.float32]:
        """Return float32 (height, width), within (hi - lo) / 131070 of what was computed."""
        levels = np.frombuffer(self.values, dtype="<u2").reshape(self.height, self.width)
        span = np.float64(self.hi) - np.float64(self.lo)
        return (np.float64(self.lo) + levels * (span / MAP_LEVELS)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class StoredActivation:
    """The strongest channels of one layer for one image.

    Attributes:
        layer: qualified layer name.
        channels: channel numbers, strongest (largest spatial mean) first.
        height: rows of a channel.
        width: columns of a channel.
        lo: a channel's smallest value, in the order of ``channels``.
        hi: a channel's largest value.
        values: uint8 levels between lo and hi, (channels, height, width) row-major.
    """

    layer: str
    channels: tuple[int, ...]
    height: int
    width: int
    lo: tuple[float, ...]
    hi: tuple[float, ...]
    values: bytes

    def array(self) -> NDArray[np.float32]:
        """Return the channels as float32 (K, height, width)."""
        levels = np.frombuffer(self.values, dtype=np.uint8).reshape(-1, self.height, self.width)
        lo = np.asarray(self.lo, dtype=np.float32)[:, None, None]
        hi = np.asarray(self.hi, dtype=np.float32)[:, None, None]
        return (lo + levels * ((hi - lo) / np.float32(255))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a run: what is in the run folder's shards, and what every writer reads.

    An image that could not be read has ``error`` set, no predictions and no maps.
    """

    id: str
    key: str
    path: str
    label: str | None = None
    label_index: int | None = None
    width: int | None = None
    height: int | None = None
    crop: tuple[float, float, float, float] | None = None
    predictions: tuple[Prediction, ...] = ()
    loss: float | None = None
    correct: bool | None = None
    image: bytes | None = None
    maps: tuple[StoredMap, ...] = ()
    activations: tuple[StoredActivation, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] | None = None
    mask: str | None = None
    error: str | None = None

    @property
    def confidence(self) -> float | None:
        """Score of the first prediction, or None."""
        return self.predictions[0].score if self.predictions else None


@dataclass(frozen=True, slots=True)
class ChannelBatch:
    """Per-image reductions of one layer, for the statistics of the whole set.

    Attributes:
        layer: qualified layer name.
        ids: the images, in plan order.
        mean: float32 (N, C), spatial mean.
        maximum: float32 (N, C), spatial maximum.
        zeros: float32 (N, C), share of exact zeros in [0, 1] (sparsity).
        place: int32 (N, C), flat position of the maximum in the (height, width) grid.
        height: rows of the grid.
        width: columns of the grid.
    """

    layer: str
    ids: tuple[str, ...]
    mean: NDArray[np.float32]
    maximum: NDArray[np.float32]
    zeros: NDArray[np.float32]
    place: NDArray[np.int32]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What the whole set shows of one channel (a row of ``channels.parquet``).

    Attributes:
        layer: qualified layer name.
        channel: channel number.
        images: how many images were seen.
        mean: mean over images of the spatial mean.
        maximum: largest activation over all images.
        sparsity: mean share of exact zeros, in [0, 1].
        dead: whether no image gave a non-zero activation.
        top: ids of the images with the largest maximum, first is largest.
        top_values: their maxima.
        top_places: (x, y) of each maximum as fractions of the model's view, in [0, 1].
    """

    layer: str
    channel: int
    images: int
    mean: float
    maximum: float
    sparsity: float
    dead: bool
    top: tuple[str, ...] = ()
    top_values: tuple[float, ...] = ()
    top_places: tuple[tuple[float, float], ...] = ()


# ---------------------------------------------------------------- runs


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do: ``plan.json``, written first and never changed.

    Attributes:
        schema: ``SCHEMA_VERSION``.
        settings: the ``RunConfig`` as JSON values, without where it writes.
        model: the model.
        layers: the whole table of layers.
        explained: names of the layers that maps are made of, shallow to deep.
        layer_reason: why these layers, one line.
        recorded: names of the layers whose activations are recorded.
        methods: the map methods, in the order asked for.
        target: what is explained, such as ``predicted``.
        image_set: where the images came from, as text.
        images: every image, in order.
        shards: (start, stop) of each shard in ``images``.
        label_match: how labels were matched to classes, one line; ``""`` where there are none.
        label_index: class index by label, only where it is known.
        execution: choices made by trial that could move a bit: memory format, dtype, device type.
        versions: package versions.
        command: the exact command line, or ``exporter.export(...)``.
        created: ISO 8601 time in UTC; not compared on resume.
        notes: what the user should know (layers that never fired, unreadable folders).
    """

    schema: int
    settings: Mapping[str, object]
    model: ModelRecord
    layers: tuple[LayerRecord, ...]
    explained: tuple[str, ...]
    layer_reason: str
    recorded: tuple[str, ...]
    methods: tuple[MethodRecord, ...]
    target: str
    image_set: str
    images: tuple[ImageEntry, ...]
    shards: tuple[tuple[int, int], ...]
    label_match: str
    label_index: Mapping[str, int]
    execution: Mapping[str, str]
    versions: Mapping[str, str]
    command: str
    created: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """What ``run.json`` says: its presence means the run is complete.

    Attributes:
        images: planned images.
        read: images that were read.
        skipped: (path, reason) of each that was not.
        labelled: images whose label is a class of the model.
        correct: of those, how many the first prediction got right.
        flagged: maps that show nothing, by ``method layer flag`` (see ``FLAG_REASONS``).
        checksums: SHA-256 of every shard and summary, by path relative to the run.
        finished: ISO 8601 time in UTC.
        seconds: wall-clock seconds of this session's computing.
    """

    images: int
    read: int
    skipped: tuple[tuple[str, str], ...]
    labelled: int
    correct: int
    flagged: Mapping[str, int]
    checksums: Mapping[str, str]
    finished: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer made.

    Attributes:
        writer: its name.
        path: the folder, relative to the run.
        open: the file or command a person opens it with.
        shown: images shown.
        total: images in the run.
        notes: what was left out and why, a line each.
    """

    writer: str
    path: str
    open: str
    shown: int
    total: int
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- the set


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
        quality_map: (method, layer) of the map that stands for an image.
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
    quality_map: tuple[str, str]
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
    """How faithful one map is to the model (``summaries/*-quality.parquet``, with ``--quality``).

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
    """How faithful one method's maps are (``set/quality.parquet``, with ``--quality``).

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
class ImageQuality:
    """How good one image's maps are (``summaries/*-images.parquet``).

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


OUTPUT = "output"
"""What pictures of classes have for a layer: the model's own output."""


def own_name(layer: str) -> str:
    """Return a layer's name in the model, where ``output#1`` is a layer called ``output``."""
    return OUTPUT if layer == f"{OUTPUT}#1" else layer


@dataclass(frozen=True, slots=True)
class MaximisedPicture:
    """A picture that excites a channel or a class (``maximised/*.parquet``, ``--maximise``).

    Attributes:
        layer: qualified layer name; ``output`` for a class.
        channel: number of the channel or class.
        name: the class's name; ``""`` of a channel.
        before: the channel's mean over its places, of the noise it began with; NaN where it is not
            finite.
        after: the same of the picture.
        peak: the channel's largest place, of the picture.
        prior: what kept the picture from being noise: ``fourier``, ``total-variation``, ``none``.
        settings: the other settings in words, such as ``128 steps of 0.05, …``.
        height: rows in pixels.
        width: columns in pixels.
        picture: PNG.
    """

    layer: str
    channel: int
    name: str
    before: float
    after: float
    peak: float
    prior: str
    settings: str
    height: int
    width: int
    picture: bytes
