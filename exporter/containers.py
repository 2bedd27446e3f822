"""Walk through what a module returns: tensors, and tuples, lists, dicts and dataclasses of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, MutableMapping
from types import NoneType
from typing import Any

from torch import Tensor

_PLAIN = (str, int, float, NoneType)
_BRACKETS = re.compile(r'[\[\]"]')


def rebuild(value: Any, change: Callable[[str, Tensor], Any], path: str = "") -> Any:
    """Replace the tensors inside a value and leave everything else as it is.

    Args:
        value: a tensor, or tuples (named ones too), lists, mappings and dataclasses around tensors;
            anything else is handed back unchanged.
        change: called with a tensor's path (``""``, ``[0]``, ``[logits]``, ``[0][1]``) and the
            tensor; returns what takes its place.
        path: where ``value`` itself stands.

    Returns:
        The value with the replacements, of the same type; the very same object where ``change``
        returned every tensor unchanged. The given containers are never written to.

    Examples:
        >>> import torch
        >>> value = {"a": torch.ones(1), "b": (2, torch.ones(1))}
        >>> rebuild(value, lambda path, tensor: tensor + 1 if path == "[b][1]" else tensor)
        {'a': tensor([1.]), 'b': (2, tensor([2.]))}
    """
    if isinstance(value, Tensor):
        return change(path, value)
    changed: dict[Any, Any] = {}
    for key, part in parts(value):
        if isinstance(part, _PLAIN):
            continue
        new = rebuild(part, change, path + step(key))
        if new is not part:
            changed[key] = new
    return _replaced(value, changed) if changed else value


def step(key: object) -> str:
    """Return a key's step of a path, in quotes where the key has brackets or quotes itself.

    >>> step(0), step("logits"), step("a[0]")
    ('[0]', '[logits]', '["a[0]"]')
    """
    text = str(key)
    return f"[{json.dumps(text, ensure_ascii=False) if _BRACKETS.search(text) else text}]"


def tensors(value: Any) -> dict[str, Tensor]:
    """Return every tensor inside a value by its path (see `rebuild`)."""
    held: dict[str, Tensor] = {}
    rebuild(value, held.setdefault)
    return held


def parts(value: Any) -> list[tuple[Any, Any]]:
    """Return what a container holds, by key, position or field; nothing for anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return []


def _replaced(value: Any, changed: Mapping[Any, Any]) -> Any:
    if isinstance(value, tuple):
        items = [changed.get(index, item) for index, item in enumerate(value)]
        # A named tuple takes its fields one by one, every other tuple takes an iterable.
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, Mapping) and not isinstance(value, MutableMapping):
        return type(value)({**value, **changed})  # type: ignore[call-arg]
    new = copy.copy(value)
    for key, item in changed.items():
        if isinstance(value, (list, MutableMapping)):
            # A transformers ModelOutput is a mapping and a dataclass: its __setitem__ sets both.
            new[key] = item
        else:
            object.__setattr__(new, key, item)
    return new
