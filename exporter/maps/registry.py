"""The registry of map methods: one function and one decorator each.

A method is a pure function over tensors that capture hands over: activations A (N, C, H, W), the
gradient g of the target with respect to them (N, C, H, W), or the rows of a linear classifier
(N, C). It gives a raw, signed map; what it shows, its formula and whether its definition ends in a
ReLU are data on the method, applied by whoever draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from exporter.errors import MapError, choices
from exporter.records import MethodRecord

Kind = Literal["weights", "map"]
Compute = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method is computed from.

    Attributes:
        activations: the layer's output.
        gradients: the target's gradient at the layer, so a backward pass.
        classifier: the target's rows of the linear layer that follows global average pooling.
    """

    activations: bool = True
    gradients: bool = False
    classifier: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """One registered map method.

    Attributes:
        name: registry name, such as ``gradcam++``.
        record: what a report says of it.
        needs: what it is computed from.
        kind: ``weights``: ``compute`` gives channel weights (N, C) and the map is Σ_c w_c A_c, done
            for several methods in one product; ``map``: ``compute`` gives the map (N, H, W).
        compute: called as ``compute(activations, other)``, where ``other`` is the gradients, the
            classifier's rows (N, C), or None, as ``needs`` says. Each image is computed by itself.
        channelwise: whether the channels do not see one another: the weight of a channel depends on
            that channel alone, or the map is a sum over channels of maps of one channel each. Such
            a method is computed on slices of channels that stay in the processor's cache.
        aliases: other names that are understood.
    """

    name: str
    record: MethodRecord
    needs: Needs
    kind: Kind
    compute: Compute
    channelwise: bool = True
    aliases: tuple[str, ...] = ()


_REGISTERED: dict[str, Method] = {}

METHODS: Mapping[str, Method] = MappingProxyType(_REGISTERED)
"""Every method by name, in the order in which they are listed to people."""


def method(
    record: MethodRecord,
    *,
    needs: Needs,
    kind: Kind,
    channelwise: bool = True,
    aliases: Iterable[str] = (),
) -> Callable[[Compute], Compute]:
    """Register a map method; used as a decorator, it returns the function unchanged.

    Args:
        record: what a report says of it; ``record.name`` becomes the registry name.
        needs: what the function is computed from.
        kind: ``weights`` if the function gives (N, C) channel weights, ``map`` if (N, H, W).
        channelwise: whether the channels do not see one another (see `Method`).
        aliases: other names that are understood, besides those that differ in case or punctuation.

    Raises:
        MapError: if the name, or an alias, is already taken.
    """

    def register(compute: Compute) -> Compute:
        new = Method(record.name, record, needs, kind, compute, channelwise, tuple(aliases))
        taken = _spellings()
        for name in (new.name, *new.aliases):
            if (other := taken.get(_plain(name))) is not None:
                raise MapError(
                    f"the map {new.name!r} cannot be registered: {name!r} already means {other!r};"
                    " choose another name"
                )
        _REGISTERED[new.name] = new
        return compute

    return register


def get_methods(names: Iterable[str]) -> tuple[Method, ...]:
    """Look up methods by name or alias, each once, in the order asked for.

    Case, ``-``, ``_`` and spaces do not matter, and a ``+`` may be written ``p`` or ``plus``.

    Args:
        names: such as ``["gradcam", "GradCAM++"]``; a single string is one name.

    Returns:
        The methods.

    Raises:
        MapError: if a name is unknown; it says which names are close.

    Examples:
        >>> [found.name for found in get_methods(["Grad-CAM", "gradcampp", "eigen_cam"])]
        ['gradcam', 'gradcam++', 'eigencam']
    """
    spellings = _spellings()
    found: dict[str, Method] = {}
    for name in (names,) if isinstance(names, str) else names:
        known = spellings.get(_plain(name)) if isinstance(name, str) else None
        if known is None:
            raise MapError(f"no map is called {name!r}; {choices(str(name), METHODS, limit=20)}")
        found[known] = METHODS[known]
    return tuple(found.values())


def _plain(name: str) -> str:
    lowered = name.lower().replace("plus", "p").replace("+", "p")
    return lowered.translate({ord(mark): None for mark in "-_ "})


def _spellings() -> dict[str, str]:
    return {
        _plain(spelling): entry.name
        for entry in _REGISTERED.values()
        for spelling in (entry.name, *entry.aliases)
    }
