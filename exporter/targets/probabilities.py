"""Whether an output holds probabilities already: by its numbers, and by what the model ends in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from exporter.errors import TargetError, choices

Given = Literal["logits", "probability", "value"]
"""What an output's numbers are."""
READ_AS = ("auto", *get_args(Given))
"""How they can be asked to be read."""

_SHAPING = frozenset(
    {
        *("Clone", "Alias", "ToCopy", "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"),
        *("Select", "Slice", "Transpose", "Permute", "T", "Expand"),
        *("UpsampleBilinear2D", "UpsampleNearest2D"),
    }
)
"""Functions after which probabilities are still probabilities."""


def last_function(values: Tensor) -> str:
    """Return the last function that made a tensor, but for what only moves or resizes it.

    >>> last_function(torch.ones(2, 1, requires_grad=True).sigmoid().squeeze(1))
    'Sigmoid'
    """
    node: Any = values.grad_fn
    while node is not None:
        name = re.sub(r"Backward\d*$", "", type(node).__name__)
        if name not in _SHAPING:
            return name
        node = node.next_functions[0][0]
    return ""


def shares(values: Tensor) -> bool:
    """Say whether values (N, K, …) are at least 0 and sum to 1 over their second axis."""
    if values.ndim not in (2, 4) or values.shape[1] < 2 or values.is_meta:
        return False
    total = values.detach().cpu().double().sum(1)
    near = max(1e-3, values.shape[1] * torch.finfo(values.dtype).eps)
    return bool((values >= 0).all() and ((total - 1).abs() <= near).all())


def read_numbers(values: Tensor, asked: str, ends: Callable[[], str]) -> tuple[Given, str]:
    """Say what an output's numbers are, and why, where they are not logits.

    Args:
        values: the explained output of one image.
        asked: one of `READ_AS`; ``auto`` for what the numbers show.
        ends: says the last function of the model (see `last_function`); asked where the numbers
            alone do not tell.

    Raises:
        TargetError: if probabilities are asked for and the numbers are none, or ``asked`` is none
            of `READ_AS`.
    """
    if asked not in READ_AS:
        raise TargetError(f"the reading {asked!r} is unknown; {choices(asked, READ_AS)}")
    known = not values.is_meta
    within = known and bool(((values >= 0) & (values <= 1)).all())
    if asked == "probability":
        if known and not within:
            low, high = float(values.min()), float(values.max())
            raise TargetError(
                f"the output holds values from {low:.3g} to {high:.3g}, which are not "
                "probabilities; use --reading logits"
            )
        return "probability", "the output is read as probabilities, as asked for"
    if asked in ("logits", "value"):
        return ("logits" if asked == "logits" else "value"), ""
    why = ""
    if shares(values):
        why = "at least 0, and their sum is 1"
    elif within and ends() == "Sigmoid":
        why = "the model ends in a sigmoid"
    if why:
        return "probability", (
            f"the output holds probabilities already ({why}): they are explained and shown as they "
            "are; --reading logits reads them as logits"
        )
    if known and shares(values.exp()):
        return "logits", (
            "the output holds logarithms of probabilities: that of a class is explained; --target "
            "prob:predicted explains its probability"
        )
    unsure = within and values.numel() > 1
    return "logits", (
        "all values of the first image's output lie between 0 and 1 and are read as logits; if "
        "they are probabilities, give --reading probability"
    ) * unsure
