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
