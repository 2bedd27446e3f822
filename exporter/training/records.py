"""``training.json``: what was watched of a training, and what came of each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporter.records.columns import Id

SCHEMA_VERSION = 1
"""Version of the document."""


@dataclass(frozen=True, slots=True)
class WatchedEpoch:
    """One epoch.

    Attributes:
        epoch: its number.
        state: whether there is a run of it.
        why: what failed, or why it was left out; empty where nothing did.
        seconds: what explaining it took.
        metrics: the numbers given with it, as far as they are finite.
    """

    epoch: int
    state: Literal["explained", "failed", "left out"]
    why: str
    seconds: float
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Training:
    """What was watched.

    Attributes:
        schema: version of the document.
        rule: how the images were chosen, in words.
        images: their ids.
        epochs: in order.
    """

    schema: int
    rule: str
    images: tuple[Id, ...]
    epochs: tuple[WatchedEpoch, ...] = ()
