"""Labels of data sets as text: names, indices and one-hot rows, named by the set's own classes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = ("label", "labels", "target")
"""What items that are mappings call their label."""

_DEEPEST = 10


def label_text(label: Any, classes: Sequence[str]) -> str | None:
    """Return a label as text, or None where it is none.

    Args:
        label: a name; an index or another number, also as an array of one element; or a row of
            zeros and a single one, as long as ``classes``.
        classes: names by index, or empty.
    """
    value = label.tolist() if hasattr(label, "tolist") else label
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, list) and len(value) == len(classes) and value.count(1) == 1:
        value = value.index(1) if value.count(0) == len(value) - 1 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(classes[value] if 0 <= value < len(classes) else value)
    if isinstance(value, float):
        return None if math.isnan(value) else str(value)
    return (value or None) if isinstance(value, str) else None


def class_names(dataset: Any, index: int) -> Sequence[str]:
    """Return the class names that a data set gives an item, or none.

    They are ``classes``, as torchvision's sets have them, or the names of a label's feature, as
    those of Hugging Face have them. Of a subset or a concatenation they are looked for in the set
    that the item comes from.
    """
    for _ in range(_DEEPEST):
        names = getattr(dataset, "classes", None)
        features = getattr(dataset, "features", None)
        if isinstance(features, Mapping):
            held = (getattr(features.get(name), "names", None) for name in NAMES)
            names = names or next(filter(None, held), None)
        if isinstance(names, list | tuple):
            return names
        ends, indices = (
            getattr(dataset, "cumulative_sizes", None),
            getattr(dataset, "indices", None),
        )
        if ends is not None and hasattr(dataset, "datasets"):
            place = bisect_right(ends, index)
            index -= ends[place - 1] if place else 0
            dataset = dataset.datasets[place]
        elif hasattr(dataset, "dataset"):
            index = index if indices is None else int(indices[index])
            dataset = dataset.dataset
        else:
            break
    return ()
