"""Globs and types, which mean several layers (one name: `exporter.capture.names`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from exporter.capture import QUOTED, quoted, unquoted
from exporter.errors import LayerError, choices


def is_pattern(text: str) -> bool:
    """Say whether a text is a glob or a type rather than one name."""
    plain = re.sub(rf"{QUOTED}|\[[^\[\]]*\]", "", text)
    return text.startswith("@") or "*" in plain or "?" in plain


def expand(text: str, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Find the modules that a glob, ``@Type`` or exact name means.

    ``*`` and ``?`` stay within one part of a name, ``**`` crosses the dots: ``features.*`` is the
    children of ``features``, ``features.**`` everything in it. ``@Conv2d`` is every module of a
    class called so, subclasses by that name included. A name that a module has is that module, and
    parts in double quotes are taken as they are.

    Args:
        text: what the user wrote, without call or part suffix.
        modules: modules by qualified name.

    Raises:
        LayerError: if nothing is meant by it.
    """
    if text in modules:
        return (text,)
    if text.startswith("@"):
        wanted = text[1:]
        names = tuple(
            name
            for name, module in modules.items()
            if wanted in (base.__name__ for base in type(module).__mro__[:-1])
            and wanted not in ("Module", "object")
        )
        types = dict.fromkeys("@" + type(module).__name__ for module in modules.values())
        if not names:
            raise LayerError(f"the model has no layer of type {wanted!r}; {choices(text, types)}")
        return names
    rule = re.compile(_regex(text), re.DOTALL)
    names = tuple(name for name in modules if rule.fullmatch(name))
    if not names:
        raise LayerError(f"the model has no layer {text!r}; {choices(text, map(quoted, modules))}")
    return names


def _regex(glob: str) -> str:
    parts = re.split(rf"({QUOTED}|\*\*|\*|\?)", glob)
    rules = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return "".join(rules.get(part, re.escape(unquoted(part))) for part in parts)
