"""The images of a training: chosen once, by a rule that is said, and the same in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Subset

from exporter.images import Entry, open_source


class Chosen:
    """Some images of a source, as a source of its own.

    Attributes:
        name: how many of which, as text.
        notes: what the source says to the user.
    """

    def __init__(self, source: Any, entries: Sequence[Entry], name: str) -> None:
        self._source, self._entries, self.name = source, entries, name

    @property
    def notes(self) -> tuple[str, ...]:
        """What the source says to the user."""
        return tuple(getattr(self._source, "notes", ()))

    def entries(self) -> Sequence[Entry]:
        """Return the chosen images, in the order of the whole set."""
        return self._entries

    def load(self, entry: Entry) -> Any:
        """Return an image."""
        return self._source.load(entry)


class Choice(NamedTuple):
    """What is explained in every epoch."""

    images: Any
    rule: str


def choose(images: Any, limit: int, seed: int) -> Choice:
    """Choose so many images: as many of each label as possible, at random within one.

    Labels are those of files, and ``.targets`` of a data set; others are not known before items are
    read, and images are then drawn from all.

    Raises:
        ImageSetError: if there is no such set.
    """
    opened = open_source(images)
    if getattr(opened.source, "stream", False):
        return Choice(images, f"the first {limit}")
    entries = list(opened.source.entries())
    total = len(entries)
    if total <= limit:
        return Choice(images, f"all {total}")
    known = getattr(images, "targets", None)
    labels = [entry.label for entry in entries]
    if isinstance(known, Sequence | torch.Tensor | np.ndarray) and len(known) == total:
        labels = [str(label) for label in known]
    places = sorted(_drawn(labels, limit, seed))
    even = "as many of each label as possible, " if any(labels) else ""
    rule = f"{limit} of {total:,}: {even}at random with seed {seed}"
    if hasattr(images, "__getitem__") and opened.kind == "data set":
        return Choice(Subset(images, places), rule)
    return Choice(Chosen(opened.source, [entries[at] for at in places], opened.where), rule)


def _drawn(labels: Sequence[str | None], limit: int, seed: int) -> list[int]:
    """Return places: first one of each label in a shuffled order, then the next ones.

    >>> sorted(_drawn(["cat", "cat", "cat", "dog"], 2, seed=0))[1]
    3
    """
    seen: dict[str | None, int] = {}
    ranked = []
    for order, at in enumerate(np.random.default_rng(seed).permutation(len(labels)).tolist()):
        rank = seen[labels[at]] = seen.get(labels[at], -1) + 1
        ranked.append((rank, order, at))
    return [at for _, _, at in islice(sorted(ranked), limit)]
