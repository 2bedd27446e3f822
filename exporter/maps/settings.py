"""A method's settings: the parameters of its function, typed, as people write them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from exporter.errors import MapError
from exporter.maps.needs import Value

SIZE = 56
"""Spatial positions of a stored pixel map along the input's longer side, averaged by area."""

REDUCTIONS = ("sum", "sum-abs", "max-abs")
"""How the channels of a pixel map become the one that is stored."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        default: its usual value, whose type is the setting's.
        words: the words it may be, where it is one of several.
        of_store: whether it is for the store, which the function is not given.
    """

    default: Value
    words: tuple[str, ...] = ()
    of_store: bool = False

    @property
    def wanted(self) -> str:
        """Say which values are right."""
        if self.words:
            return f"one of {', '.join(self.words)}"
        whole = isinstance(self.default, int)
        kind = "a whole number that is not negative" if whole else "a number that is not negative"
        return f"{kind}, such as {self.default}"

    def parse(self, text: str) -> Value:
        """Return the value that a text says.

        Raises:
            ValueError: if it says none that is right.
        """
        if self.words:
            return self.words[self.words.index(text)]  # ValueError where it is none of them
        value = type(self.default)(text)
        if isinstance(value, str) or not math.isfinite(value) or value < 0:
            raise ValueError(text)
        return value


def settings_of(compute: Callable[..., Any], name: str) -> dict[str, Setting]:
    """Read a method's settings off its function: all parameters but the first.

    Raises:
        MapError: if one has no default, or is neither a number nor a word of a ``Literal``.
    """
    _, *parameters = inspect.signature(compute).parameters.values()
    declared = {}
    for parameter in parameters:
        default, words = parameter.default, ()
        if isinstance(default, str):
            # Evaluated alone: other annotations may name what is imported for type checkers only.
            alone = SimpleNamespace(__annotations__={"it": parameter.annotation})
            hint = get_type_hints(alone, getattr(compute, "__globals__", {})).get("it")
            words = get_args(hint) if get_origin(hint) is Literal else ()
        elif parameter.annotation in (float, "float") and isinstance(default, int):
            default = float(default)
        if isinstance(default, bool) or not (isinstance(default, int | float) or words):
            raise MapError(
                f"the map {name!r} cannot be registered: its setting {parameter.name!r} needs a "
                "default that is a number, or a word of a Literal"
            )
        declared[parameter.name] = Setting(default, words)
    return declared


def store_settings(reduce: str) -> dict[str, Setting]:
    """Return the settings of a map at the input's resolution: how it is stored.

    Raises:
        MapError: if there is no such reduction.
    """
    if reduce not in REDUCTIONS:
        raise MapError(f"pixel is {reduce!r}; choose one of {', '.join(REDUCTIONS)}")
    return {
        "reduce": Setting(reduce, REDUCTIONS, of_store=True),
        "size": Setting(SIZE, of_store=True),
    }
