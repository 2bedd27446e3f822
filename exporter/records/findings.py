"""What planning found out about the model by running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from exporter.records.columns import Count


@dataclass(frozen=True, slots=True)
class LayoutRecord:
    """How a layer's output is read as (N, C, H, W), and why.

    Attributes:
        kind: ``nchw``, ``nhwc``, ``tokens``, or ``given`` by the user's own function.
        channels: number of channels.
        height: rows.
        width: columns.
        prefix: tokens before the image's own (class and register tokens).
        evidence: why it is read like this, in a short phrase.
    """

    kind: Annotated[str, Field(pattern="^(nchw|nhwc|tokens|given)$")]
    channels: Count
    height: Count
    width: Count
    prefix: Count = 0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the forwards of planning showed; measured on the first image, never guessed.

    Attributes:
        repeats: whether the same image gave the same output twice.
        alone: whether it gave the same in a batch as alone; None where that cannot be told,
            because it does not repeat, or ``untold`` says why.
        replicas: whether two replicas that ran at the same time gave its bits; None where none are
            tried: on a device, of a large model, in a short run.
        untold: why no batch could be tried: what the model failed with, given several images.
        random: whose random numbers it drew: ``torch``, ``NumPy``, ``Python``.
        writes_input: whether it wrote into its input.
        writes_input_unseen: whether it did so where autograd does not see it, so that gradients at
            the input are not those of the image.
        writes_buffers: names of the buffers whose values it changed.
        writes_parameters: names of the parameters whose values it changed.
    """

    repeats: bool = True
    alone: bool | None = True
    random: tuple[str, ...] = ()
    writes_input: bool = False
    writes_input_unseen: bool = False
    writes_buffers: tuple[str, ...] = ()
    writes_parameters: tuple[str, ...] = ()
    untold: str = ""
    replicas: bool | None = None

    @property
    def steady(self) -> bool:
        """Whether a forward is a function of its batch alone, so that it can be run again."""
        return self.repeats and not self.random

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a sentence each; nothing of a model like most."""
        notes = []
        if self.random:
            notes.append(
                f"the model draws random numbers ({', '.join(self.random)}) though it is in eval "
                "mode, so every pass is different: the maps are those of one pass, and another "
                "run's differ"
            )
        elif not self.repeats:
            notes.append(
                "the model gives different outputs for the same image: the maps are those of one "
                "pass, and another run's differ"
            )
        if self.alone is False:
            notes.append(
                "the model's output for an image depends on the other images in its batch, so maps "
                "do too: the batch size is part of the plan, and methods that run variants of "
                "images together mix them"
            )
        if self.untold:
            notes.append(
                "whether the model's output for an image depends on the other images in its batch "
                f"is not known, as planning could not run several at once: {self.untold}"
            )
        if self.writes_buffers:
            notes.append(
                f"the model writes into its buffers ({_first(self.writes_buffers)}) though it is in"
                " eval mode; they are restored before every pass"
            )
        if self.writes_parameters:
            notes.append(
                f"the model writes into its parameters ({_first(self.writes_parameters)}) though it"
                " is in eval mode; they are restored before every pass"
            )
        if self.writes_input:
            unseen = " where autograd does not see it" * self.writes_input_unseen
            notes.append(f"the model writes into its input{unseen}; every pass gets its own copy")
        if self.replicas is False:
            notes.append(
                "two replicas of the model that ran at the same time did not both give the same "
                "bits as the model, so batches are computed one after the other"
            )
        return tuple(notes)


def _first(names: tuple[str, ...]) -> str:
    """List three names, and say how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class PrecisionRecord:
    """What a number format other than float32 changes, measured on the first images.

    Attributes:
        name: ``bf16`` or ``fp16``.
        scale: what gradients are multiplied by while they are inside the model.
        images: how many images were explained in both formats.
        median: of the methods and layers, by how much a map changes: its mean absolute difference,
            in shares of the map's range.
        largest: that of the method and layer that change most.
        where: these two, such as ``hirescam at layer3``.
        scores: by how much a prediction's score changes at most.
        other_class: for how many of the images another class is predicted.
    """

    name: Annotated[str, Field(pattern="^(bf16|fp16)$")]
    scale: float
    images: Count
    median: float
    largest: float
    where: str
    scores: float
    other_class: Count

    @property
    def change(self) -> str:
        """The change against float32, in words."""
        which = f"the first {self.images} images" if self.images > 1 else "the first image"
        parts = [f"scores by up to {self.scores:.2g}"]
        if self.where:
            parts.insert(
                0,
                f"maps by {self.median:.2%} of their range (median) and {self.largest:.2%} at most "
                f"({self.where})",
            )
        if self.other_class:
            parts.append(f"the predicted class of {self.other_class} of them")
        return f"on {which}: {', '.join(parts)}"

    @property
    def sentence(self) -> str:
        """What the user should know, in a sentence."""
        return f"the model ran in {self.name}, which changes, {self.change}"
