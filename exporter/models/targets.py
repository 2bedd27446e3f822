"""Targets: which scalar of the output is explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exporter.errors import TargetError, choices
from exporter.models.classes import plain, synonyms

_KINDS = ("predicted", "label", "value")


@dataclass(frozen=True, slots=True)
class Target:
    """Which scalar of the output is explained.

    Attributes:
        kind: ``predicted`` (largest logit), ``label`` (the image's own class, the predicted one
            where it is not known), ``top`` (the k largest), ``class`` (one index) or ``value``
            (the only output of a regression).
        index: the class of ``class``, otherwise None.
        k: how many scalars an image has.
    """

    kind: str
    index: int | None = None
    k: int = 1


def parse_target(text: str, classes: Sequence[str]) -> Target:
    """Read a target as the command line writes it.

    Args:
        text: ``predicted``, ``label``, ``value``, ``top-3``, a class index (``281``,
            ``class:281``) or a class name (``tiger cat``, ``class:tiger cat``). A number is always
            an index.
        classes: class names by index, or empty.

    Raises:
        TargetError: if it is none of these, or the name is that of several classes.

    >>> parse_target("top-3", ())
    Target(kind='top', index=None, k=3)
    >>> parse_target("Tiger_Cat", ["tabby", "tiger cat"])
    Target(kind='class', index=1, k=1)
    """
    wanted = text.strip()
    if wanted in _KINDS:
        return Target(wanted)
    if top := re.fullmatch(r"top-?(\d+)", wanted):
        k = int(top[1])
        if k < 1:
            raise TargetError(f"the target {text!r} asks for no class; write top-1 or more")
        return Target("top", k=k)
    name = wanted.removeprefix("class:").strip()
    if re.fullmatch(r"\d+", name):
        index = int(name)
        if classes and index >= len(classes):
            raise TargetError(
                f"the model has no class {index}; it has those from 0 to {len(classes) - 1}"
            )
        return Target("class", index=index)
    return Target("class", index=_index_of(name, classes))


def _index_of(name: str, classes: Sequence[str]) -> int:
    exact = [index for index, known in enumerate(classes) if known == name]
    found = exact or [i for i, known in enumerate(classes) if plain(name) in synonyms(known)]
    if len(found) == 1:
        return found[0]
    if found:
        raise TargetError(
            f"{name!r} is the name of {len(found)} classes; "
            f"give the index: {', '.join(str(index) for index in found)}"
        )
    if not classes:
        raise TargetError(
            f"the target {name!r} is none of predicted, label, top-K, value or a class index, "
            "and the model has no class names; give them with --classes"
        )
    raise TargetError(
        f"there is no target or class {name!r}; {choices(name, [*_KINDS, 'top-3', *classes])}"
    )


def target_indices(target: Target, logits: Tensor, labels: Tensor) -> Tensor:
    """Choose the columns of the logits that are explained, without waiting for the device.

    Args:
        target: what is explained.
        logits: (N, K).
        labels: int64 (N,) on the same device, -1 where the image's class is not known.

    Returns:
        int64 (N, T) on that device; T is ``target.k``, and at most K.

    Raises:
        TargetError: if the shape of the logits does not fit the target.
    """
    if logits.dim() != 2:
        raise TargetError(
            f"the output has shape {tuple(logits.shape)} and a target needs (images, values); "
            "choose another part of it with --output"
        )
    rows, columns = logits.shape
    if target.kind == "value":
        if columns != 1:
            raise TargetError(
                f"the target 'value' is for one output and the model gives {columns}; "
                "use predicted, label, top-K or a class index"
            )
        return torch.zeros((rows, 1), dtype=torch.int64, device=logits.device)
    if target.kind == "class":
        if target.index is None or target.index >= columns:
            raise TargetError(
                f"the model has no class {target.index}; it gives {columns} values, from 0 to "
                f"{columns - 1}"
            )
        return torch.full((rows, 1), target.index, dtype=torch.int64, device=logits.device)
    if target.kind == "top":
        return logits.detach().topk(min(target.k, columns), dim=1).indices
    predicted = logits.detach().argmax(dim=1, keepdim=True)
    if target.kind == "label":
        return torch.where(labels[:, None] < 0, predicted, labels[:, None])
    return predicted
