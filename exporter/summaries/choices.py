"""Which images stand for a set, by rules that are written beside them.

The report shows strips of images that matter; TensorBoard and W&B, which cannot show a whole large
set, show as many images as are kept. Of equals the smallest id goes first: a choice depends on
nothing but the images.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Literal

import numpy as np

from exporter.records import ClassRow, Row, Strip
from exporter.summaries.classes import Columns, Floats

LENGTH: Final = 24
"""Images of a strip at most."""

PER_CLASS: Final = 2
"""Images of a predicted class in a strip at most."""

NONE_TWICE: Final = (
    "a strip shows at most two images of a predicted class, and none that an earlier strip shows"
)

EVERY: Final = "all images are kept"
MOST_WRONG: Final = "most wrong: the errors with the highest confidence"
LEAST_SURE: Final = "least sure: the lowest confidence"
MOST_DISAGREEING: Final = (
    "most disagreeing: the lowest mean rank correlation of the methods' maps at the deepest layer"
)
MOST_TYPICAL: Final = (
    "most typical: of each frequent class of three images or more, the image nearest to the "
    "class's mean confidence and mean entropy"
)
ONE_PER_CLASS: Final = "one per class: the most confident image of each predicted class"
SAMPLE: Final = "a seeded sample of the rest"

_TYPICAL_OF = 3  # images of a class below which none is typical of it
_NARROW = 1e-3  # a spread below this is that of equal numbers, and of their rounding


def strips(seen: Columns, classes: Sequence[ClassRow]) -> tuple[Strip, ...]:
    """Return the strips that have images, none of them twice.

    Where there are few images, each strip takes its share of them.
    """
    predicted = np.flatnonzero(~np.isnan(seen["predicted"])).tolist()
    known = {row.index: row for row in classes}
    frequent = [n for n in predicted if known[seen["predicted"][n]].predicted >= _TYPICAL_OF]
    orders = {rule: _order(seen, rule) for rule in (MOST_WRONG, LEAST_SURE, MOST_DISAGREEING)}
    orders[MOST_TYPICAL] = _ranked(seen, _distance(seen, known), frequent)
    orders[ONE_PER_CLASS] = _ranked(seen, -seen["confidence"], predicted)
    orders = {rule: order for rule, order in orders.items() if order}
    length = min(LENGTH, -(-len(predicted) // max(1, len(orders))))
    taken: set[int] = set()
    chosen = []
    for rule, order in orders.items():
        fresh = [place for place in order if place not in taken]
        if rule in (MOST_TYPICAL, ONE_PER_CLASS):
            places, of = _first_of_each(seen, fresh), len(_first_of_each(seen, order))
        else:
            places, of = _few_of_each(seen, fresh), len(order)
        if places:
            taken.update(places[:length])
            chosen.append(Strip(rule.split(":")[0], rule, tuple(seen["id"][places[:length]]), of))
    return tuple(chosen)


def _order(images: Columns, rule: str) -> list[int]:
    """Return the positions of the images that a rule can choose, in its order."""
    values, among = {
        MOST_WRONG: (-images["confidence"], images["correct"] == 0),
        LEAST_SURE: (images["confidence"], ~np.isnan(images["predicted"])),
        MOST_DISAGREEING: (images["agreement"], ~np.isnan(images["agreement"])),
    }[rule]
    return _ranked(images, values, np.flatnonzero(among).tolist())


def _ranked(images: Columns, values: Floats, among: Iterable[int]) -> list[int]:
    numbers, ids = values.tolist(), images["id"]
    return sorted(among, key=lambda place: (numbers[place], ids[place]))


def _few_of_each(images: Columns, order: Iterable[int]) -> list[int]:
    """Return the first `PER_CLASS` of each predicted class, in the order given."""
    seen: Counter[float] = Counter()
    few = []
    for place in order:
        index = images["predicted"][place]
        seen[index] += 1
        if seen[index] <= PER_CLASS:
            few.append(place)
    return few


def _first_of_each(images: Columns, order: Iterable[int]) -> list[int]:
    """Return the first of each predicted class in an order, frequent classes first."""
    classes = images["predicted"].tolist()
    frequency = Counter(classes)
    best: dict[float, int] = {}
    for place in order:
        best.setdefault(classes[place], place)
    return [best[index] for index in sorted(best, key=lambda index: (-frequency[index], index))]


def _distance(seen: Columns, classes: Mapping[int, ClassRow]) -> Floats:
    """Return how far each image is from its class's means, in standard deviations (N,)."""
    total = np.zeros(len(seen["id"]))
    rows = [classes.get(index) for index in seen["predicted"].tolist()]
    for name in ("confidence", "entropy"):
        mean, wide = (
            np.array([getattr(row, column, None) for row in rows], np.float64)
            for column in (name, f"{name}_spread")
        )
        total += np.nan_to_num(((seen[name] - mean) / np.maximum(wide, _NARROW)) ** 2)
    # Equal distances stay equal whatever the last bits of a mean are.
    return np.round(total, 9)


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
    disagreeing (where ``agreement`` is given), one per predicted class (the most frequent where
    they are too many); what they leave goes to a sample drawn from ``seed``. An image counts for
    the first rule that takes it. Images that could not be read are never kept.

    Args:
        rows: images in plan order; pictures, maps and activations are not looked at.
        keep: how many, or ``all``.
        seed: of the sample.
        agreement: the methods' mean rank correlation by id, as ``run.measures()`` tells it.
        classifies: False for a single value, which has no confidence: only disagreement and the
            sample are left.

    Returns:
        (id, the rule that chose it) in plan order: the same for the same rows, number and seed.
    """
    known = [row for row in rows if row.error is None and row.predictions]
    if keep == "all" or keep >= len(known):
        return tuple((row.id, EVERY) for row in known)
    images = {
        "id": np.array([row.id for row in known], object),
        "predicted": np.array([row.predictions[0].index for row in known], float),
        "confidence": np.array([row.predictions[0].score for row in known]),
        "correct": np.array([row.correct for row in known], float),
        "agreement": np.array([(agreement or {}).get(row.id) for row in known], float),
    }
    every = range(len(known))
    taken: dict[int, str] = {}

    def take(order: Iterable[int], number: int, rule: str) -> None:
        fresh = (place for place in order if place not in taken)
        taken.update(dict.fromkeys(list(islice(fresh, min(number, keep - len(taken)))), rule))

    disagreeing = _order(images, MOST_DISAGREEING)
    quota = -(-keep // (5 if disagreeing else 4))
    if classifies:
        take(_order(images, MOST_WRONG), quota, MOST_WRONG)
        take(_order(images, LEAST_SURE), quota, LEAST_SURE)
    take(disagreeing, quota, MOST_DISAGREEING)
    if classifies:
        fresh = [place for place in every if place not in taken]
        fresh = _ranked(images, -images["confidence"], fresh)
        take(_first_of_each(images, fresh), quota, ONE_PER_CLASS)
    take(sorted(every, key=lambda place: _lot(known[place].id, seed)), keep, SAMPLE)
    return tuple((known[place].id, taken[place]) for place in sorted(taken))


def candidates(images: Columns, keep: int | Literal["all"], seed: int) -> list[int]:
    """Return the places of all images that may be kept of a set which these are a part of.

    An image that `keep_images` takes of the whole set is, among any part of the set, one of the
    first ``keep`` of a rule's order; or the most confident of its class but for those.

    Args:
        images: columns ``id``, ``predicted``, ``confidence``, ``correct`` and ``agreement`` of
            images that could be read.
        keep: as of `keep_images`.
        seed: likewise.
    """
    every = range(len(images["id"]))
    if keep == 0:
        return []
    if keep == "all" or keep >= len(every):
        return list(every)
    ahead = {
        place
        for rule in (MOST_WRONG, LEAST_SURE, MOST_DISAGREEING)
        for place in _order(images, rule)[:keep]
    }
    others = [place for place in every if place not in ahead]
    others = [place for place in others if not np.isnan(images["predicted"][place])]
    firsts = _first_of_each(images, _ranked(images, -images["confidence"], others))
    ids = images["id"].tolist()
    drawn = sorted(every, key=lambda place: _lot(ids[place], seed))[:keep]
    return sorted({*ahead, *firsts, *drawn})


def _lot(id: str, seed: int) -> bytes:
    # Not a random generator: an image's lot must not depend on the other images.
    return hashlib.blake2b(f"{seed} {id}".encode(), digest_size=8).digest()
