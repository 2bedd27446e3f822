"""Which images go to TensorBoard and W&B, which cannot show a whole large set: by stated rules."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Literal, NamedTuple

from exporter.records import Row
from exporter.summaries.rules import (
    EVERY,
    LEAST_SURE,
    MOST_DISAGREEING,
    MOST_WRONG,
    ONE_PER_CLASS,
    SAMPLE,
)


class _Image(NamedTuple):
    place: int
    id: str
    confidence: float
    predicted: int
    wrong: bool


def keep_images(
    rows: Iterable[Row],
    keep: int | Literal["all"],
    seed: int,
    agreement: Mapping[str, float] | None = None,
    *,
    classifies: bool = True,
) -> tuple[tuple[str, str], ...]:
    """Choose the images that TensorBoard and W&B show.

    An equal part of ``keep``, rounded up, goes to each of: the most wrong, the least sure, the most
    disagreeing (where ``agreement`` is given), one a predicted class (the most frequent where they
    are too many); what they leave goes to a seeded sample. An image counts for the first rule that
    takes it; of equals the smallest id goes first, as in the report's strips. With a single output
    there is no confidence, and only disagreement and the sample are left. Images that could not be
    read are never kept.

    Args:
        rows: images in plan order; pictures, maps and activations are not looked at.
        keep: how many, or ``all``.
        seed: of the sample.
        agreement: the methods' mean rank correlation by id, as ``run.measures()`` tells it.
        classifies: whether predictions are classes; False for a single value.

    Returns:
        (id, the rule that chose it) in plan order: the same for the same rows, number and seed.
    """
    images = [
        _Image(
            place, row.id, row.predictions[0].score, row.predictions[0].index, row.correct is False
        )
        for place, row in enumerate(rows)
        if row.error is None and row.predictions
    ]
    if keep == "all" or keep >= len(images):
        return tuple((image.id, EVERY) for image in images)
    taken: dict[_Image, str] = {}

    def take(ranked: Iterable[_Image], number: int, rule: str) -> None:
        fresh = (image for image in ranked if image not in taken)
        taken.update(dict.fromkeys(list(islice(fresh, min(number, keep - len(taken)))), rule))

    told = agreement or {}
    compared = [image for image in images if image.id in told]
    quota = -(-keep // (5 if compared else 4))
    if classifies:
        take(_ranked([i for i in images if i.wrong], lambda i: -i.confidence), quota, MOST_WRONG)
        take(_ranked(images, lambda i: i.confidence), quota, LEAST_SURE)
    take(_ranked(compared, lambda i: told[i.id]), quota, MOST_DISAGREEING)
    if classifies:
        take(_one_per_class(images, taken), quota, ONE_PER_CLASS)
    take(_ranked(images, lambda i: _lot(i.id, seed)), keep, SAMPLE)
    return tuple((image.id, taken[image]) for image in sorted(taken))


def _ranked(images: Sequence[_Image], by: Callable[[_Image], float | bytes]) -> Iterable[_Image]:
    return sorted(images, key=lambda image: (by(image), image.id))


def _one_per_class(images: Sequence[_Image], taken: dict[_Image, str]) -> list[_Image]:
    """Return the most confident fresh image of each predicted class, frequent classes first."""
    frequency = Counter(image.predicted for image in images)
    best: dict[int, _Image] = {}
    for image in _ranked(images, lambda image: -image.confidence):
        if image not in taken:
            best.setdefault(image.predicted, image)
    return sorted(best.values(), key=lambda image: (-frequency[image.predicted], image.predicted))


def _lot(id: str, seed: int) -> bytes:
    # Not a random generator: an image's lot must not depend on the other images.
    return hashlib.blake2b(f"{seed} {id}".encode(), digest_size=8).digest()
