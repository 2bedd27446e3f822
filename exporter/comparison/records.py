"""What a comparison folder holds: ``comparison.json`` and the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from exporter.records import Column, Float32, Int32

SCHEMA_VERSION = 1
"""Version of the comparison folder's layout."""


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the runs.

    Attributes:
        name: what the comparison calls it: its step, model or folder.
        path: the run folder, relative to the comparison.
        model: title of the model.
        weights: name or hash of the weights.
        checkpoint: name of the checkpoint file, or None.
        step: step of the training, where the runs are checkpoints.
        images: images that the run has.
        complete: whether the run was finished.
        labelled: images of all runs that have a label this run knows.
        accuracy: correct / labelled; None without labels.
        calibration_error: ECE over the same images, 0 to 1.
        confidence: mean score of the first prediction.
        metrics: numbers that were given with the run, such as a loss, by name.
    """

    name: str
    path: str
    model: str
    weights: str
    checkpoint: str | None
    step: int | None
    images: int
    complete: bool
    labelled: int
    accuracy: float | None
    calibration_error: float | None
    confidence: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which the runs differ.

    Attributes:
        name: such as ``weights``.
        values: of each run, in words.
        why: why it matters to the comparison, one sentence.
        varied: whether this is what the comparison is about.
    """

    name: str
    values: tuple[str, ...]
    why: str
    varied: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers of the runs that are compared with one another.

    Attributes:
        name: the layer's name where all runs share it; else ``deepest`` or ``stage-4``.
        layers: the layer of each run; None where a run has none. ``""`` is the input.
    """

    name: str
    layers: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Map methods of the runs that are compared with one another.

    Attributes:
        name: the method's name; ``first method`` where the runs have none in common.
        title: as a paper writes it.
        methods: the method of each run; None where a run lacks it.
        relu: whether its definition ends in a ReLU, for each run.
        pixel: whether its maps are at the input.
    """

    name: str
    title: str
    methods: tuple[str | None, ...]
    relu: tuple[bool, ...]
    pixel: bool = False


@dataclass(frozen=True, slots=True)
class Contrast:
    """The predictions of one run against the baseline's, over the images that both judge.

    Attributes:
        run: place of the run.
        images: images with a label that both runs know.
        accuracy: of the run, over them.
        baseline: accuracy of the baseline, over them.
        difference: accuracy less the baseline's.
        low: lower end of its 95 % interval (paired bootstrap over images).
        high: upper end.
        lost: images that went from right to wrong.
        won: images that went from wrong to right.
        changed: images of all whose first prediction has another name; None where no class names
            are shared.
        of: images compared for ``changed``.
        p: exact p of McNemar's test.
        p_holm: the same, corrected for all runs that are compared (Holm).
    """

    run: int
    images: int
    accuracy: float | None
    baseline: float | None
    difference: float | None
    low: float | None
    high: float | None
    lost: int
    won: int
    changed: int | None
    of: int
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """The mean change of a number that is measured of each image, against the baseline."""

    run: Annotated[Int32, Column("place of the run")]
    measure: Annotated[
        str, Column("pointing, box_energy, entropy, agreement, insertion, deletion or road")
    ]
    method: Annotated[str, Column("the method whose map is measured; of agreement all, by commas")]
    images: Annotated[int, Column("images that both runs measured")]
    value: Annotated[float, Column("mean in the run")]
    baseline: Annotated[float, Column("mean in the baseline")]
    difference: Annotated[float, Column("mean of value less baseline")]
    low: Annotated[float, Column("lower end of its 95 % interval, paired bootstrap")]
    high: Annotated[float, Column("upper end")]
    stage: Annotated[str, Column("where the map is: name of the stage")] = ""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike the maps of two runs are, as means over the images that have both."""

    first: Annotated[Int32, Column("place of a run")]
    second: Annotated[Int32, Column("place of a later one")]
    method: Annotated[str, Column("name of the compared method")]
    stage: Annotated[str, Column("name of the stage")]
    images: Annotated[int, Column("images with both maps, neither of one value")]
    spearman: Annotated[float | None, Column("rank correlation of the cells, -1 to 1")]
    ssim: Annotated[float | None, Column("structural similarity of the painted maps, -1 to 1")]
    iou: Annotated[float | None, Column("of the top 20 % of cells, 0 to 1")]


@dataclass(frozen=True, slots=True)
class MapChange:
    """How alike a run's map of one image is to the baseline's."""

    run: Annotated[Int32, Column("place of the run")]
    method: Annotated[str, Column("name of the compared method")]
    stage: Annotated[str, Column("name of the stage")]
    spearman: Annotated[Float32 | None, Column("rank correlation of the cells, -1 to 1")]
    ssim: Annotated[Float32 | None, Column("structural similarity, -1 to 1")]
    iou: Annotated[Float32 | None, Column("of the top 20 % of cells, 0 to 1")]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one run predicts of an image."""

    name: Annotated[str | None, Column("class of the first prediction")]
    score: Annotated[Float32 | None, Column("its score")]
    correct: Annotated[bool | None, Column("whether it is the label, where that is known")]
    flip: Annotated[
        str, Column("against the baseline: lost, won, changed, or empty where nothing changed")
    ] = ""


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """One image in every run: a row of ``images.parquet``."""

    id: Annotated[str, Column("the image: hash of its contents", required=True)]
    path: Annotated[str, Column("as the baseline calls it", required=True)]
    label: Annotated[str | None, Column("as given")]
    verdicts: Annotated[tuple[Verdict, ...], Column("of each run, in order")]
    likeness: Annotated[
        Float32 | None, Column("mean rank correlation of all maps with the baseline's")
    ]
    maps: Annotated[tuple[MapChange, ...], Column("each run's maps against the baseline's")]


@dataclass(frozen=True, slots=True)
class MissingImage:
    """An image that some runs lack, or could not read."""

    id: Annotated[str, Column("hash of its contents", required=True)]
    path: Annotated[str, Column("as a run that has it calls it", required=True)]
    runs: Annotated[tuple[Int32, ...], Column("places of the runs without it")]


@dataclass(frozen=True, slots=True)
class ClassChange:
    """How one class fares in a run, against the baseline."""

    name: Annotated[str, Column("the class")]
    run: Annotated[Int32, Column("place of the run")]
    images: Annotated[int, Column("images with this label")]
    baseline: Annotated[float, Column("recall of the baseline")]
    recall: Annotated[float, Column("recall of the run")]
    lost: Annotated[int, Column("images that went from right to wrong")]
    won: Annotated[int, Column("images that went from wrong to right")]
    p: Annotated[float, Column("exact p of McNemar's test")]
    p_holm: Annotated[float, Column("the same, corrected for all classes and runs (Holm)")]


@dataclass(frozen=True, slots=True)
class LayerDrift:
    """How far a layer has moved from the baseline's."""

    run: Annotated[Int32, Column("place of the run")]
    layer: Annotated[str, Column("the layer in the baseline")]
    other: Annotated[str, Column("the layer in the run")]
    kernels: Annotated[float | None, Column("mean cosine of the kernels, -1 to 1")]
    channels: Annotated[
        float | None, Column("mean correlation of the channels' pooled responses, -1 to 1")
    ]
    cka: Annotated[float | None, Column("linear CKA of the pooled responses, 0 to 1")]
    images: Annotated[int, Column("sampled images that both runs have pooled")]
    dead: Annotated[int | None, Column("dead channels in the run")]
    of: Annotated[int | None, Column("channels of the layer in the run")]


@dataclass(frozen=True, slots=True)
class ChannelDrift:
    """How far one channel of a layer has moved from the baseline's."""

    run: Annotated[Int32, Column("place of the run")]
    layer: Annotated[str, Column("qualified name of the layer")]
    channel: Annotated[Int32, Column("channel number")]
    kernel: Annotated[float | None, Column("cosine of its kernel with the baseline's")]
    response: Annotated[float | None, Column("correlation of its pooled responses")]
