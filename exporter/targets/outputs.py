"""Which tensor inside the model's output is explained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from exporter.containers import parts
from exporter.errors import TargetError, choices, kind_of

_USUAL = (
    "logits",
    "out",
    "output",
    "predictions",
    "prediction",
    "scores",
    "pred",
    "pooler_output",
    "image_embeds",
)


def locate_output(output: Any, path: str | None) -> tuple[Tensor, str]:
    """Find the tensor to explain in what a model returned.

    Args:
        output: a tensor, or tuples, lists, mappings (transformers' ``ModelOutput`` is one),
            dataclasses and plain objects of them, however nested.
        path: where it is: ``""`` for the output itself, otherwise keys, attribute names and
            positions joined by dots, such as ``0``, ``logits`` or ``out.0``. None takes the tensor
            with a usual name (``logits``, ``out``, …), else the first floating-point one.

    Returns:
        The tensor and its path; a tensor without axes as a row of one, and (N, K, 1, 1) as (N, K).

    Raises:
        TargetError: if there is no tensor there; it lists the paths that have one.
    """
    tensors = dict(_tensors(output, ""))
    if path is not None:
        if path in tensors:
            return _with_axis(tensors[path]), path
        if not path and tensors:
            raise TargetError(
                f"the model's output is {kind_of(output)}, not a tensor; "
                f"choose a part of it with --output: {', '.join(tensors)}"
            )
        if tensors.keys() == {""}:
            raise TargetError(
                f"the model's output is one tensor and has no part {path!r}; leave out --output"
            )
        raise TargetError(f"the model's output has no tensor at {path!r}; {choices(path, tensors)}")
    floating = [where for where, tensor in tensors.items() if tensor.is_floating_point()]
    # A loss has no axis for the images.
    floating = [where for where in floating if tensors[where].ndim] or floating
    if not floating:
        raise TargetError(
            f"the model's output is {kind_of(output)} and holds no floating-point tensor to "
            "explain; let it return its scores as one"
        )
    usual = (where for name in _USUAL for where in floating if where.split(".")[-1] == name)
    path = next(usual, floating[0])
    return _with_axis(tensors[path]), path


def _with_axis(tensor: Tensor) -> Tensor:
    if tensor.shape[2:] == (1, 1):  # a convolutional head's plane of one position
        return tensor.flatten(1)
    return tensor if tensor.ndim else tensor.reshape(1)


def check_rows(rows: int, images: int, path: str | None) -> None:
    """Refuse an output that does not have a row for each image.

    Args:
        rows: length of its first axis.
        images: how many the model was given.
        path: of the explained tensor, if any.

    Raises:
        TargetError: if these differ.
    """
    if rows != images:
        where = f" at {path!r}" if path else ""
        said = ((rows, "row"), (images, "image"))
        counts = (f"{count} {word}{'s' * (count != 1)}" for count, word in said)
        raise TargetError(
            f"the model's output{where} has {' for '.join(counts)}, where there is one per image; "
            "name another part with --output, or give a function as the target (module:function)"
        )


def say_guess(output: Any, path: str) -> str:
    """Say which part of an output was taken, where there was a choice; else return ``""``."""
    paths = [where for where, tensor in _tensors(output, "") if tensor.is_floating_point()]
    if len(paths) < 2:
        return ""
    others = ", ".join(where for where in paths if where != path)
    return f"the output {path!r} is explained; --output names another ({others})"


def logits_behind(output: Any, path: str) -> str:
    """Return the path of the logits whose softmax an output's part is, or ``""``."""
    values = dict(_tensors(output, ""))[path]
    for other, tensor in _tensors(output, ""):
        same = tensor.shape == values.shape and tensor.is_floating_point() and other != path
        if same and torch.allclose(tensor.softmax(1), values, atol=1e-4):
            return other
    return ""


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor with its path; a named tuple's fields go by name and by position."""
    if isinstance(value, Tensor):
        yield path, value
        return
    held = parts(value)
    if names := getattr(value, "_fields", ()):
        held = [*zip(names, value, strict=True), *held]
    elif not held and type(value).__module__ != "builtins":
        # A plain object, such as a SimpleNamespace: what it holds under public names.
        held = [(n, v) for n, v in getattr(value, "__dict__", {}).items() if isinstance(v, Tensor)]
    for key, part in held:
        yield from _tensors(part, f"{path}.{key}" if path else str(key))
