"""What a map method is computed from: tensors, passes that it runs by itself, and its settings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from exporter.errors import MapError

Value = int | float | str
"""A setting's value."""


@dataclass(frozen=True, slots=True)
class Passes:
    """The passes that a method runs by itself, on each image.

    Attributes:
        forwards: forward passes: a number, the name of the setting that says it, or for what there
            is one each, such as ``per channel``.
        backwards: backward passes per forward pass and target, likewise.
        of: what goes through the model, where it is not the image itself, such as ``noisy images``.
        after_layer: whether only what follows the layer is run.
        relu_rule: the backward rule of the ReLUs: ``guided``, ``deconvnet``, or ``""`` for their
            derivative.
        shared: whether it is the image's own `PassContext.input_gradients`, which is run once for
            all methods with the same rule.
        least: settings with which the method runs as few passes as it can, for a trial; not
            needed where ``forwards`` names a setting.

    Examples:
        >>> Passes(forwards=8, backwards=1, of="noisy images").sentence({})
        '8 forwards of noisy images and, for each, one backward to the input'
    """

    forwards: int | str = 1
    backwards: int | str = 0
    of: str = ""
    after_layer: bool = False
    relu_rule: Literal["", "guided", "deconvnet"] = ""
    shared: bool = False
    least: Mapping[str, Value] = field(default_factory=dict, hash=False)

    def sentence(
        self, settings: Mapping[str, Value], targets: int = 1, *, attention: bool = False
    ) -> str:
        """Say it in words, before the sizes are known.

        Args:
            settings: the method's own settings.
            targets: targets per image.
            attention: whether attention weights are kept.
        """
        words = [_number(self.forwards, settings, "forward")]
        words += ["without fused attention"] * attention + ["after the layer"] * self.after_layer
        words += [f"of {self.of}"] * bool(self.of)
        if self.backwards:
            words.append("and" if self.forwards == 1 else "and, for each,")
            words.append(_number(self.backwards, settings, "backward", targets))
            words += ["to the input"] * (not self.after_layer and not attention)
        words += [f"through {self.relu_rule} ReLUs"] * bool(self.relu_rule)
        listed = ", ".join(f"{name}={value}" for name, value in settings.items())
        return " ".join(words) + (f" ({listed})" if listed else "")


def _number(number: int | str, settings: Mapping[str, Value], noun: str, targets: int = 1) -> str:
    if isinstance(number, str) and number.startswith("per "):
        return f"one {noun} {number}" + (" and target" if targets > 1 else "")
    return counted(targets * int(settings[number] if isinstance(number, str) else number), noun)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method is computed from.

    Attributes:
        activations: the layer's output.
        gradients: the target's gradient at the layer, so a backward pass.
        classifier: the target's rows of the linear layer that follows global average pooling.
        attention: the attention weights of every block of a transformer.
        passes: for a method that runs the model itself, what it runs.

    Examples:
        >>> Needs(gradients=True).cost
        'one backward pass, shared with every other method that uses gradients'
    """

    activations: bool = True
    gradients: bool = False
    classifier: bool = False
    attention: bool = False
    passes: Passes | None = None

    @property
    def cost(self) -> str:
        """Say what a method costs that runs nothing by itself."""
        if self.gradients:
            return "one backward pass, shared with every other method that uses gradients"
        return "no backward pass"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples:
        >>> counted(1, "forward"), counted(3, "backward")
        ('one forward', '3 backwards')
    """
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


SIZE = 56
"""Spatial positions of a stored pixel map along the input's longer side, averaged by area."""

REDUCTIONS = ("sum", "sum-abs", "max-abs")
"""How the channels of a pixel map become the one that is stored."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: a default, whose type is the setting's, and the words it may be.

    A default that is a word, with no words given, may be any; whoever takes it says which is right.
    One of the store is not given to the function, nor is `SMOOTH`; a numbered one may be a whole
    number besides.
    """

    default: Value
    words: tuple[str, ...] = ()
    of_store: bool = False
    numbered: bool = False

    @property
    def wanted(self) -> str:
        """Say which values are right."""
        if self.words:
            return f"one of {', '.join(self.words)}" + ", or a number from 0" * self.numbered
        kind = "whole number" if isinstance(self.default, int) else "number"
        return f"a {kind} that is not negative, such as {self.default}"

    def parse(self, text: str) -> Value:
        """Return the value that a text says.

        Raises:
            ValueError: if it says none that is right.
        """
        if self.numbered and text.isdecimal():
            return int(text)
        if self.words:
            return self.words[self.words.index(text)]  # ValueError where it is none of them
        if isinstance(self.default, str):
            return text
        value = type(self.default)(text)
        if not math.isfinite(value) or value < 0:
            raise ValueError(text)
        return value


SMOOTH: Mapping[str, Setting] = {"smooth": Setting("none", ("none", "flips"), of_store=True)}
"""The setting of every map, whichever its function: what it is averaged over."""


def settings_of(compute: Callable[..., Any], name: str) -> dict[str, Setting]:
    """Read a method's settings off its function: all parameters but the first.

    Raises:
        MapError: if one has no default, or is neither a number nor a word of a ``Literal``.
    """
    _, *parameters = inspect.signature(compute).parameters.values()
    declared = {}
    for parameter in parameters:
        default, words, numbered = parameter.default, (), False
        if isinstance(default, str):
            # Evaluated alone: other annotations may name what is imported for type checkers only.
            alone = SimpleNamespace(__annotations__={"it": parameter.annotation})
            hint = get_type_hints(alone, getattr(compute, "__globals__", {})).get("it")
            numbered = int in get_args(hint)  # int | Literal["mean"]
            hint = next((kind for kind in get_args(hint) if get_origin(kind) is Literal), hint)
            words = get_args(hint) if get_origin(hint) is Literal else ()
        elif parameter.annotation in (float, "float") and isinstance(default, int):
            default = float(default)
        if isinstance(default, bool) or not (isinstance(default, int | float) or words):
            raise MapError(
                f"the map {name!r} cannot be registered: its setting {parameter.name!r} needs a "
                "default that is a number, or a word of a Literal"
            )
        declared[parameter.name] = Setting(default, words, numbered=numbered)
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
