"""A model that can be built, and those that the user's own code builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from exporter.doors import load_reference
from exporter.errors import ModelError, kind_of
from exporter.guard import AGAIN, user_code
from exporter.models.classes import configured_classes
from exporter.models.preprocessing import default_for
from exporter.records import Preprocessing

DEFAULT = "DEFAULT"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be built.

    Attributes:
        name: short name.
        weights: name of the weights that ``build`` loads.
        build: builds the model: with those weights, or bare where told so and then with another
            number of classes where one is given; bare models take their numbers from the random
            state.
        preprocessing: of a built model.
        classes: class names of a built model that has its usual number of classes, or empty.
        resizable: whether ``build`` takes a number of classes.
        own: whether it is the user's code, so that only the numbers say which model it is.
    """

    name: str
    weights: str
    build: Callable[[bool, int | None], nn.Module]
    preprocessing: Callable[[nn.Module], Preprocessing] = default_for
    classes: Callable[[nn.Module], tuple[str, ...]] = configured_classes
    resizable: bool = False
    own: bool = False


def from_factory(spec: str, weights: str) -> Source:
    """Return the model of a factory: ``package.module:factory`` or ``path/file.py:factory``.

    The factory is a callable without required arguments that returns an ``nn.Module``, or is itself
    one. Weights other than ``DEFAULT`` and ``none`` are handed over as ``weights=``.
    """
    factory = load_reference(spec, "factory", ModelError)
    options: dict[str, Any] = {}
    if weights not in (DEFAULT, NONE):
        if isinstance(factory, nn.Module) or "weights" not in _parameters(factory):
            raise ModelError(
                f"the factory {spec!r} takes no weights, so it cannot give {weights!r}; "
                "leave out --weights or give --checkpoint FILE"
            )
        options["weights"] = weights
    called = not isinstance(factory, nn.Module)
    required = _parameters(factory, required=True) if called else ()
    if needed := [name for name in required if name not in options]:
        raise ModelError(
            f"the factory {spec!r} needs {', '.join(map(repr, needed))}, and is called without "
            "arguments; give defaults, or name a function that calls it with its arguments"
        )

    def build(bare: bool, _classes: int | None) -> nn.Module:
        module = factory
        if not isinstance(factory, nn.Module):
            with user_code(f"the factory {spec!r}", advice=AGAIN):
                module = factory(**({} if bare else options))
        if not isinstance(module, nn.Module):
            raise ModelError(f"the factory {spec!r} gave {kind_of(module)}, not a torch.nn.Module")
        return module

    named = {DEFAULT: "as the factory gives them", NONE: NONE}.get(weights, weights)
    return Source(spec.rpartition(":")[2], named, build, own=True)


def _parameters(factory: Any, *, required: bool = False) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return ()
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(
        name
        for name, own in parameters.items()
        if not required or (own.default is own.empty and own.kind not in free)
    )
