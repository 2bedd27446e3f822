"""Labels of an image set to classes of a model: only where they are known to be the same."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exporter.models.classes import (
    IMAGENET_HOMONYMS,
    imagenet_synsets,
    is_imagenet,
    synonyms,
)

_SYNSET = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """Which labels are classes of the model.

    Attributes:
        index: class index by label, only where it is known.
        reason: one line that says how many were matched, and how.
    """

    index: dict[str, int] = field(default_factory=dict)
    reason: str = ""


def match_labels(labels: Iterable[str], classes: Sequence[str]) -> LabelMatch:
    """Match labels to a model's classes by name or WordNet id, never by their order.

    Names are compared without case, and with ``_`` and ``-`` as spaces; each of the comma-separated
    synonyms of either side counts. A name that several classes bear matches none of them. A WordNet
    id (``n02123045``) matches where the classes are ImageNet's 1000, which needs timm. A number is
    a name like any other: it matches only a class that is called so.

    Returns:
        The indices that are known, and the reason.

    >>> match_labels(["Tiger_Cat", "3"], ["tabby", "tiger cat"])
    LabelMatch(index={'Tiger_Cat': 1}, reason='1 of 2 labels is a class of the model, by name')
    """
    distinct = list(dict.fromkeys(labels))
    if not distinct:
        return LabelMatch()
    if not classes:
        return LabelMatch(
            reason="the model has no class names: labels are shown as text (--classes names them)"
        )
    imagenet = is_imagenet(classes)
    synsets = imagenet_synsets() if imagenet else ()
    by_synset = {synset: index for index, synset in enumerate(synsets)}
    named = _by_name(classes, imagenet)
    index: dict[str, int] = {}
    ways: set[str] = set()
    ambiguous: list[str] = []
    for label in distinct:
        if label in by_synset:
            index[label] = by_synset[label]
            ways.add("WordNet id")
            continue
        meant = set[int]().union(*(named.get(name, set()) for name in synonyms(label)))
        if len(meant) == 1:
            index[label] = meant.pop()
            ways.add("name")
        elif meant:
            ambiguous.append(label)
    return LabelMatch(index, _reason(distinct, index, ways, ambiguous, imagenet and not synsets))


def _by_name(classes: Sequence[str], imagenet: bool) -> dict[str, set[int]]:
    named: dict[str, set[int]] = defaultdict(set)
    for index, name in enumerate(classes):
        for synonym in synonyms(name):
            named[synonym].add(index)
    if imagenet:
        # Lists of names resolve these one way or the other; a folder's name does not say which.
        for homonym in IMAGENET_HOMONYMS:
            named[homonym] |= {-1, -2}
    return named


def _reason(
    labels: Sequence[str],
    index: dict[str, int],
    ways: set[str],
    ambiguous: Sequence[str],
    no_synsets: bool,
) -> str:
    count = f"{len(index)} of {len(labels)} labels"
    if len(index) == len(labels) == 1:
        reason = "the label is a class of the model"
    elif len(index) == 1:
        reason = f"{count} is a class of the model"
    else:
        reason = f"{count} are classes of the model"
    if ways:
        reason += f", by {' and '.join(sorted(ways))}"
    if ambiguous:
        reason += f"; the name of several classes: {', '.join(ambiguous[:5])}"
    if no_synsets and any(_SYNSET.fullmatch(label) for label in labels):
        reason += "; WordNet ids are matched where timm is installed"
    if not index:
        reason += ": labels are shown as text and no accuracy is computed"
    return reason
