"""Models from the user's own code: a factory in a module or a file."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from exporter.doors import load_reference
from exporter.errors import ModelError, kind_of
from exporter.guard import user_code
from exporter.models.preprocessing import default_for
from exporter.models.source import DEFAULT, NONE, Source


def from_factory(spec: str, weights: str) -> Source:
    """Return the model of a factory: ``package.module:factory`` or ``path/file.py:factory``.

    The factory is a callable without required arguments that returns an ``nn.Module``, or is itself
    one. Weights other than ``DEFAULT`` and ``none`` are handed over as ``weights=``.

    Raises:
        ModelError: if the module or factory is not there.
    """
    factory = load_reference(spec, "factory", ModelError)
    attribute = spec.rpartition(":")[2]
    options: dict[str, Any] = {}
    if weights not in (DEFAULT, NONE):
        if isinstance(factory, nn.Module) or "weights" not in _parameters(factory):
            raise ModelError(
                f"the factory {spec!r} takes no weights, so it cannot give {weights!r}; "
                "leave out --weights or give --checkpoint FILE"
            )
        options["weights"] = weights

    def build(bare: bool, _classes: int | None) -> nn.Module:
        module = factory
        if not isinstance(factory, nn.Module):
            with user_code(f"the factory {spec!r}"):
                module = factory(**({} if bare else options))
        if not isinstance(module, nn.Module):
            raise ModelError(f"the factory {spec!r} gave {kind_of(module)}, not a torch.nn.Module")
        return module

    named = {DEFAULT: "as the factory gives them", NONE: NONE}.get(weights, weights)
    return Source(attribute, named, build, default_for, lambda _: (), own=True)


def _parameters(factory: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return ()
