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
            because it does not repeat, or the model does not take several images, or memory does
            not.
        random: whose random numbers it drew: ``torch``, ``NumPy``, ``Python``.
        writes_input: whether it wrote into its input.
        writes_input_unseen: whether it did so where autograd does not see it, so that gradients at
            the input are not those of the image.
        writes_buffers: names of the buffers whose values it changed.
    """

    repeats: bool = True
    alone: bool | None = True
    random: tuple[str, ...] = ()
    writes_input: bool = False
    writes_input_unseen: bool = False
    writes_buffers: tuple[str, ...] = ()

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
                "mode, so each pass sees others: its maps are of one draw, and another run's differ"
            )
        elif not self.repeats:
            notes.append(
                "the model gives different outputs for the same image: its maps are those of one "
                "pass, and another run's differ"
            )
        if self.alone is False:
            notes.append(
                "the model's output for an image depends on the other images in its batch, so maps "
                "do too: the batch size is part of the plan, and methods that run variants of "
                "images together mix them"
            )
        if self.writes_buffers:
            names, more = self.writes_buffers[:3], len(self.writes_buffers) - 3
            listed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
            notes.append(
                f"the model writes into its buffers ({listed}) though it is in eval mode; they are "
                "put back after every batch"
            )
        if self.writes_input:
            unseen = " where autograd does not see it" * self.writes_input_unseen
            notes.append(
                f"the model writes into its input{unseen}; every pass is given a copy of its own"
            )
        return tuple(notes)
