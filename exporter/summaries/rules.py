"""The rules by which images are chosen, in the words that stand beside them."""

from __future__ import annotations

from typing import Final

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


def name_of(rule: str) -> str:
    """Return the rule's name, without how it chooses.

    >>> name_of(LEAST_SURE)
    'least sure'
    """
    return rule.split(":", 1)[0]
