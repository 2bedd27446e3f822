"""Class names: of ImageNet, from a file, and whether they fit the model's output."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from exporter.errors import ModelError, reason

IMAGENET_HOMONYMS = frozenset({"cardigan", "crane", "maillot"})
"""Names that two of ImageNet's classes bear: dog and jacket, bird and machine, two swimsuits."""


def plain(name: str) -> str:
    """Return a name as it is compared: case-folded, runs of space, ``_`` and ``-`` as one space.

    >>> plain("Egyptian_cat ")
    'egyptian cat'
    """
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def synonyms(name: str) -> tuple[str, ...]:
    """Return the plain names in a class name such as ``tench, Tinca tinca``.

    >>> synonyms("tench, Tinca tinca")
    ('tench', 'tinca tinca')
    """
    parts = (plain(part) for part in name.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the short English names of ImageNet's 1000 classes, by index (torchvision's list)."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes by index, or () where timm is not there."""
    try:
        timm_data: Any = importlib.import_module("timm.data")
    except ImportError:
        return ()
    return tuple(timm_data.ImageNetInfo("imagenet-1k").label_names())


def is_imagenet(classes: Sequence[str]) -> bool:
    """Say whether these are ImageNet's 1000 classes in their usual order.

    Names may be torchvision's, or lists of synonyms that begin with the same words; a few
    spellings differ between the lists that go around, so 95% have to agree.
    """
    if len(classes) != 1000:
        return False
    agree = sum(
        plain(ours) in synonyms(theirs)
        for ours, theirs in zip(imagenet_classes(), classes, strict=True)
    )
    return agree >= 950


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names from a file: one per line, or a JSON list.

    Raises:
        ModelError: if the file cannot be read, is empty, or holds something other than names.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the class names {str(file)!r} cannot be read: {reason(error)}") from None
    if file.suffix.lower() == ".json" or text.lstrip().startswith("["):
        names = _from_json(file, text)
    else:
        names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise ModelError(f"the class names {str(file)!r} hold no name; write one per line")
    for number, name in enumerate(names):
        if not name:
            raise ModelError(
                f"class {number} of {str(file)!r} has no name; a line is a class, by its index"
            )
    return tuple(names)


def _from_json(file: Path, text: str) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise ModelError(f"the class names {str(file)!r} are not JSON: {error}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"the class names {str(file)!r} must be a JSON list of texts")
    return [name.strip() for name in names]


def check_classes(classes: Sequence[str], outputs: int) -> None:
    """Refuse class names that the model's output has no room for, or too few of them.

    Args:
        classes: class names by index; empty means that none are known, which always fits.
        outputs: number of values per row of the output.

    Raises:
        ModelError: if there are names and their number is not ``outputs``.
    """
    if classes and len(classes) != outputs:
        raise ModelError(
            f"there are {len(classes)} class names and the model gives {outputs} values; "
            "--classes must name each of them, in their order"
        )
