"""What a run will do: ``plan.json``, with its model, layers and methods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from exporter.records.columns import Count
from exporter.records.findings import Findings, LayoutRecord, PrecisionRecord
from exporter.records.images import ImageEntry, Preprocessing

ATTENTION = "attention"
"""The name, in the place of a layer's, of maps that are made from all attention."""
COMBINED = (ATTENTION, "fused")
"""Names, in the place of a layer's, of maps that are made from several layers."""
FEATURES = "features"
"""The name, in the place of a layer's, of what an encoder gives, recorded as channels."""
_DIGEST = re.compile(r"(?<= )[0-9a-f]{12}$")
"""What a name of weights ends in where their numbers, or their file's bytes, were hashed."""

MEANS_NOTHING = "what it looks at means nothing yet"
"""What to know of a model whose weights are random."""

SCHEMA_VERSION = 1
"""Version of the run folder's layout; a reader refuses a newer one."""


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
    output: tuple[Count, ...] | None
    parameters: Count
    depth: Count
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
        reading: what the output's numbers are: ``logits``, ``probability`` or ``value``.
        type: class name of what the user's own factory built; ``""`` for a library's model.
        code: hash of the code that its modules run, ``""`` where the plan is older than it.
        step: how far the checkpoint says it was trained, None where it does not say.
        step_key: under which of its keys it says so, such as ``global_step``.
    """

    name: str
    spec: str
    weights: str
    checkpoint: str | None
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    parameters: Count
    output: str = ""
    outputs: Count = 0
    scores: Annotated[str, Field(pattern="^(probability|share|value)$")] = "probability"
    reading: Annotated[str, Field(pattern="^(logits|probability|value)$")] = "logits"
    type: str = ""
    code: str = ""
    step: Count | None = None
    step_key: str = ""

    @property
    def title(self) -> str:
        """What people call it: the library's name, or the class of what a factory built."""
        return self.type or self.name

    @property
    def same_weights(self) -> str:
        """What is equal where the weights are: their digest, however they were come by, or name."""
        digest = _DIGEST.search(self.weights)
        return digest[0] if digest else self.weights

    @property
    def random(self) -> bool:
        """Whether its weights are known to be random: a library's model, given none."""
        return self.weights == "none"

    @property
    def described(self) -> str:
        """Its title, and with which weights it is."""
        how = f"random weights: {MEANS_NOTHING}" if self.random else f"weights: {self.weights}"
        return f"{self.title} ({how})"


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
        attended: whether it gives one map of all attention, at the layer ``attention``.
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
    attended: bool = False


@dataclass(frozen=True, slots=True)
class HeadRecord:
    """The linear head that gives the logits from a layer's spatial means.

    Attributes:
        layer: the deepest explained layer, if there is such a head behind it; else ``""``.
        why: why there is none.
    """

    layer: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do: ``plan.json``, written first.

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
        command: the exact command line that made it, or ``exporter.export(...)``.
        created: ISO 8601 time in UTC; not compared on resume.
        notes: what the user should know (layers that never fired, unreadable folders).
        layouts: by layer that is explained or recorded, how its output lies in the plane, and why.
        findings: what running the model showed; None where the plan is older than that.
        precision: what the number format changes; None in the model's own.
        head: the linear head behind the deepest layer; None with ``--no-live``, and where the plan
            is older than that.
        added: names what was added to the run when it was finished, ``""`` for nothing; shards that
            are not noted so lack it.
        added_by: likewise the commands that added to it, in order.
    """

    schema: Count
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
    shards: tuple[tuple[Count, Count], ...]
    label_match: str
    label_index: Mapping[str, Count]
    execution: Mapping[str, str]
    versions: Mapping[str, str]
    command: str
    created: str
    notes: tuple[str, ...] = ()
    layouts: Mapping[str, LayoutRecord] = field(default_factory=dict)
    findings: Findings | None = None
    precision: PrecisionRecord | None = None
    head: HeadRecord | None = None
    added: str = ""
    added_by: tuple[str, ...] = ()

    @property
    def commands(self) -> tuple[str, ...]:
        """The command that made the run, and those that added to it; none of an anonymous run."""
        return tuple(filter(None, (self.command, *self.added_by)))

    @property
    def computed_on(self) -> Mapping[str, str]:
        """What the numbers were computed on and in, by name."""
        if self.precision is None:
            return self.execution
        lowered = {"precision": self.precision.name, "against float32": self.precision.change}
        return {**self.execution, **lowered}

    @property
    def depends_on_batch(self) -> bool:
        """Whether an image's numbers depend on those that share its batch, so far as is known."""
        return self.findings is not None and self.findings.alone is False

    @property
    def encoder(self) -> str:
        """What gives `FEATURES`, and of which layer, in words; ``""`` without an encoder."""
        layer, _, function = str(self.settings.get("encoder") or "").rpartition("=")
        at = layer or (self.layers_of_the_model or ("",))[-1]
        return f"what the encoder {function} makes of {at}" if function else ""

    @property
    def layers_of_the_model(self) -> tuple[str, ...]:
        """The explained layers without what is made from several of them, shallow to deep."""
        return tuple(name for name in self.explained if name not in COMBINED)

    @property
    def map_layers(self) -> tuple[str, ...]:
        """Where there are maps: the explained layers, and ``""``, the input, for pixel methods."""
        pixel = any(method.pixel for method in self.methods)
        return (*self.explained, "") if pixel else self.explained

    @property
    def deepest(self) -> str:
        """The layer whose maps stand for an image; ``""`` where there are maps at the input only.

        A map made from several layers stands for it only where there are no others.
        """
        return next(reversed(self.layers_of_the_model or self.explained), "")

    @property
    def head_layer(self) -> str:
        """The layer that the linear head reads; empty where there is none."""
        return self.head.layer if self.head else ""

    @property
    def classifies(self) -> bool:
        """Whether predictions are classes with a confidence; a single value is neither."""
        return self.model.outputs != 1 and self.target != "value"
