"""What is written in pictures of an image: which one it is, what was said, what went wrong."""

from __future__ import annotations

from exporter.records import Row, StoredMap


def targets_of(target: str) -> int:
    """Return how many maps a method and layer have at most: K for ``top-K``, one for other targets.

    >>> targets_of("top-3"), targets_of("prob:predicted"), targets_of("predicted+multilabel:top-2")
    (3, 1, 3)
    """
    count = 0
    for part in target.split("+"):
        number = part.rpartition(":")[2].strip().removeprefix("top-")
        count += int(number) if "top-" in part and number.isdecimal() else 1
    return count


def caption(row: Row) -> str:
    """Say which image it is and what the model said: ``path · label · prediction score``."""
    parts = [row.path]
    if row.label is not None:
        parts.append(f"label {row.label}")
    if row.predictions:
        parts.append(f"{row.predictions[0].name} {row.predictions[0].score:.2f}")
    return " · ".join(parts)


def target_text(target: str, row: Row) -> str:
    """Name a map's target as people do: the class's name where the row's predictions have it."""
    kind, _, number = target.partition(":")
    first, dash, second = number.partition("-")
    if kind != "class" or not first.isdecimal():
        return f"for {kind} {number}".rstrip()
    if dash:
        return f"for {_class_name(first, row)} rather than {_class_name(second, row)}"
    return f"for {_class_name(first, row)}"


def _class_name(number: str, row: Row) -> str:
    for prediction in row.predictions:
        if prediction.index == int(number):
            return prediction.name
    if row.label is not None and row.label_index == int(number):
        return row.label
    return f"class {number}"


def flag_text(stored: StoredMap) -> str:
    """Say what a flagged map is, in two words."""
    if "zero" in stored.flags:
        return "all zero"
    if "constant" in stored.flags:
        return "constant"
    return "no positive value"
