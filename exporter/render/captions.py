"""What is written in pictures of an image: which one it is, what was said, what went wrong."""

from __future__ import annotations

from exporter.errors import TargetError
from exporter.paths import without_folders
from exporter.records import Row, StoredMap, parse_target


def caption(row: Row) -> str:
    """Say which image it is and what the model said: ``path · label · prediction score``."""
    parts = [without_folders(row.path)]
    if row.label is not None:
        parts.append(f"label {row.label}")
    if row.predictions:
        parts.append(f"{row.predictions[0].name} {row.predictions[0].score:.2f}")
    return " · ".join(parts)


def target_text(target: str, row: Row) -> str:
    """Name what a map explains as people do: ``for`` and `target_name`."""
    return f"for {target_name(target, row)}"


def target_name(target: str, row: Row) -> str:
    """Name a map's target: the class's name where the row's predictions have it."""
    names = {} if row.label_index is None else {row.label_index: row.label}
    names |= {prediction.index: prediction.name for prediction in row.predictions}
    try:
        read = parse_target(target, ())
    except TargetError:  # a run may come from anywhere
        read = None
    if read is None or read.kind != "class":
        return target.replace(":", " ")
    return read.words(names)


def flag_text(stored: StoredMap) -> str:
    """Say what a flagged map is, in two words."""
    words = {"nan": "not a number", "zero": "all zero", "constant": "constant", "noise": "noise"}
    return next((said for flag, said in words.items() if flag in stored.flags), "no positive value")
