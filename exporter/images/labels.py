"""Labels of data sets as text: names, indices and one-hot rows, named by the set's own classes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Classes = Sequence[str] | Mapping[int, str]
"""Names by index."""

_DEEPEST = 10


class Origin(NamedTuple):
    """What the set that an item comes from says of its items.

    Attributes:
        classes: names by index, or empty.
        features: what each column of an item is, by name, as Hugging Face's sets have it.
    """

    classes: Classes = ()
    features: Mapping[str, Any] = {}


def label_text(label: Any, classes: Classes) -> str | None:
    """Return a label as text, or None where it is none.

    Args:
        label: a name, also as bytes; an index or another number, also as an array of one element;
            or a row of zeros and a single one, as long as ``classes``.
        classes: names by index, or empty. The index -1 then means that there is no label.
    """
    value = label.tolist() if hasattr(label, "tolist") else label
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, list) and len(value) == len(classes) and value.count(1) == 1:
        value = value.index(1) if value.count(0) == len(value) - 1 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return None if value == -1 and classes else class_name(value, classes)
    if isinstance(value, float):
        return None if math.isnan(value) else str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace").strip()
        return label_text(int(value), classes) if value.isdecimal() else value or None
    return (value or None) if isinstance(value, str) else None


def class_name(index: int, classes: Classes) -> str:
    """Return the name of a class, or its index where it has none."""
    known = index in classes if isinstance(classes, Mapping) else 0 <= index < len(classes)
    return str(classes[index] if known else index)


def origin_of(dataset: Any, index: int) -> Origin:
    """Return what a data set says of an item.

    Its classes are ``classes`` or ``class_to_idx``, as torchvision's sets have them, or the
    categories of a COCO set; those of Hugging Face have features. Of a subset or a concatenation
    they are looked for in the set that the item comes from.
    """
    for _ in range(_DEEPEST):
        names, features = getattr(dataset, "classes", None), getattr(dataset, "features", None)
        names = names if isinstance(names, list | tuple) else ()
        if names or isinstance(features, Mapping):
            return Origin(names, features if isinstance(features, Mapping) else {})
        indices_of = getattr(dataset, "class_to_idx", None)
        if isinstance(indices_of, Mapping) and indices_of:
            return Origin({index: str(name) for name, index in indices_of.items()})
        categories = getattr(getattr(dataset, "coco", None), "cats", None)
        if isinstance(categories, Mapping):
            return Origin({key: str(told["name"]) for key, told in categories.items()})
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
    return Origin()
