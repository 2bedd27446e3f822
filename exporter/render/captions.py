"""What is written in pictures of an image: which one it is, what was said, what went wrong."""

from __future__ import annotations

from exporter.records import Row, StoredMap


def targets_of(target: str) -> int:
    """Return how many maps a (method, layer) has: K for ``top-K``, else one.

    >>> targets_of("top-3"), targets_of("predicted")
    (3, 1)
    """
    count = target.removeprefix("top-")
    return int(count) if target.startswith("top-") and count.isdecimal() else 1


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
    if kind == "class" and number.isdecimal():
        for one in row.predictions:
            if one.index == int(number):
                return f"for {one.name}"
        if row.label is not None and row.label_index == int(number):
            return f"for {row.label}"
    return f"for {kind} {number}".rstrip()


def flag_text(one: StoredMap) -> str:
    """Say what a flagged map is, in two words."""
    if "zero" in one.flags:
        return "all zero"
    if "constant" in one.flags:
        return "constant"
    return "no positive value"
