"""Class names: of ImageNet, a config or a file, and which labels of an image set are known."""

from __future__ import annotations

import importlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from exporter.errors import ModelError, reason
from exporter.records import plain, synonyms

_HOMONYMS = ("cardigan", "crane", "maillot")
"""Names that two of ImageNet's classes bear: dog and jacket, bird and machine, two swimsuits."""


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
    pairs = zip(imagenet_classes(), classes, strict=True)
    return sum(plain(ours) in synonyms(theirs) for ours, theirs in pairs) >= 950


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names from a file: one per line, or a JSON list.

    Raises:
        ModelError: if the file cannot be read, is empty, or holds something other than names.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        as_json = file.suffix.lower() == ".json" or text.lstrip().startswith("[")
        names = json.loads(text) if as_json else text.rstrip().splitlines()
    except json.JSONDecodeError as error:
        raise ModelError(f"the class names {str(file)!r} are not JSON: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the class names {str(file)!r} cannot be read: {reason(error)}") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"the class names {str(file)!r} must be a JSON list of texts")
    names = [name.strip() for name in names]
    if not names:
        raise ModelError(f"the class names {str(file)!r} hold no name; write one per line")
    if "" in names:
        raise ModelError(
            f"class {names.index('')} of {str(file)!r} has no name; a line is a class, by its index"
        )
    return tuple(names)


def configured_classes(module: nn.Module) -> tuple[str, ...]:
    """Return the class names in the config of transformers' classifiers and detectors, or ().

    Those that the library puts where nobody named any (``LABEL_0``) are none. Other heads have
    outputs of another kind, whatever names their config holds.
    """
    kinds = [kind.__name__ for kind in type(module).__mro__]
    heads = ("ForImageClassification", "ForSemanticSegmentation", "ForObjectDetection")
    named = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(named, Mapping) or not any(head in kind for head in heads for kind in kinds):
        return ()
    names = tuple(str(named.get(index, "")) for index in range(len(named)))
    unnamed = tuple(f"LABEL_{index}" for index in range(len(named)))
    return () if "" in names or names == unnamed else names


def check_classes(classes: Sequence[str], outputs: int) -> None:
    """Refuse class names, where there are any, that are not as many as the output's values.

    Raises:
        ModelError: if there are names and their number is not ``outputs``.
    """
    if classes and len(classes) != outputs:
        raise ModelError(
            f"there are {len(classes)} class names and the model gives {outputs} values; "
            "--classes must name each of them, in their order"
        )


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
    named: dict[str, set[int]] = defaultdict(set)
    for index, name in enumerate(classes):
        for synonym in synonyms(name):
            named[synonym].add(index)
    if imagenet:
        # Lists of names resolve these one way or the other; a folder's name does not say which.
        named |= {homonym: {-1, -2} for homonym in _HOMONYMS}
    meant = {
        label: {by_synset[label]}
        if label in by_synset
        else set[int]().union(*(named[name] for name in synonyms(label)))
        for label in distinct
    }
    known = {label: min(indices) for label, indices in meant.items() if len(indices) == 1}
    ways = {"WordNet id" if label in by_synset else "name" for label in known}
    ambiguous = [label for label, indices in meant.items() if len(indices) > 1]
    reason = (
        "the label"
        if len(distinct) == 1 == len(known)
        else f"{len(known)} of {len(distinct)} labels"
    )
    reason += " is a class of the model" if len(known) == 1 else " are classes of the model"
    if ways:
        reason += f", by {' and '.join(sorted(ways))}"
    if ambiguous:
        reason += f"; the name of several classes: {', '.join(ambiguous[:5])}"
    if imagenet and not synsets and any(re.fullmatch(r"n\d{8}", label) for label in distinct):
        reason += "; WordNet ids are matched where timm is installed"
    if not known:
        reason += ": labels are shown as text and no accuracy is computed"
    return LabelMatch(known, reason)
