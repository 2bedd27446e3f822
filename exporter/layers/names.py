"""What the user writes for layers: exact names, globs and types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from exporter.errors import LayerError, choices

_SUFFIXED = re.compile(r"(?P<name>[^#\[\]]+)(#(?P<call>\d+))?(?P<parts>(\[[^\[\]]+\])*)")


def is_pattern(text: str) -> bool:
    """Say whether a text is a glob or a type rather than one name."""
    return text.startswith("@") or "*" in text or "?" in text


def expand(text: str, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Find the modules that a glob, ``@Type`` or exact name means.

    ``*`` and ``?`` stay within one part of a name, ``**`` crosses the dots: ``features.*`` is the
    children of ``features``, ``features.**`` everything in it. ``@Conv2d`` is every module of a
    class called so, subclasses by that name included.

    Args:
        text: what the user wrote, without call or part suffix.
        modules: modules by qualified name.

    Raises:
        LayerError: if nothing is meant by it.
    """
    if text.startswith("@"):
        wanted = text[1:]
        found = tuple(
            name
            for name, module in modules.items()
            if wanted in (base.__name__ for base in type(module).__mro__[:-1])
            and wanted not in ("Module", "object")
        )
        types = dict.fromkeys("@" + type(module).__name__ for module in modules.values())
        if not found:
            raise LayerError(f"the model has no layer of type {wanted!r}; {choices(text, types)}")
        return found
    if is_pattern(text):
        rule = re.compile(_regex(text))
        found = tuple(name for name in modules if rule.fullmatch(name))
    else:
        found = (text,) if text in modules else ()
    if not found:
        raise LayerError(f"the model has no layer {text!r}; {choices(text, modules)}")
    return found


def split_suffix(text: str) -> tuple[str, str]:
    """Split ``relu#2[0]`` into the module's name and what follows it (``#2[0]``).

    Raises:
        LayerError: if the text is no layer's name.
    """
    match = _SUFFIXED.fullmatch(text)
    if match is None:
        raise LayerError(
            f"{text!r} is not a layer's name; write it as in layer4, relu#2 (its second call) or "
            "layer4[0] (a part of its output)"
        )
    name = match["name"]
    return name, text[len(name) :]


def join_shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    """Write sizes as ``56×56, 28×28``."""
    return ", ".join("×".join(str(side) for side in shape) for shape in shapes)


def _regex(glob: str) -> str:
    parts = re.split(r"(\*\*|\*|\?)", glob)
    rules = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return "".join(rules.get(part, re.escape(part)) for part in parts)
