"""The registry of map methods: one function and one decorator each.

A method is a pure function over tensors that capture hands over: activations A (N, C, H, W), the
gradient g of the target with respect to them (N, C, H, W), or the rows of a linear classifier
(N, C). One that has to run the model itself is given a `PassContext` instead. It gives a raw,
signed map; what it shows, its formula and whether its definition ends in a ReLU are data on the
method, applied by whoever draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from exporter.errors import MapError, choices
from exporter.records import MethodRecord

Kind = Literal["weights", "map", "pass"]
Compute = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method is computed from.

    Attributes:
        activations: the layer's output.
        gradients: the target's gradient at the layer, so a backward pass.
        classifier: the target's rows of the linear layer that follows global average pooling.
        passes: for a method that runs the model itself, what it runs, in words that fill in its
            settings, ``{targets}`` (2) and ``{backwards}`` ("2 backwards"): "one forward and
            {backwards} through guided ReLUs". Methods with the same words share those passes.
        attention: the attention weights of every block of a transformer.
    """

    activations: bool = True
    gradients: bool = False
    classifier: bool = False
    passes: str = ""
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """One registered map method.

    Attributes:
        name: registry name, such as ``gradcam++``.
        record: what a report says of it.
        needs: what it is computed from.
        kind: ``weights``: ``compute`` gives channel weights (N, C) and the map is Σ_c w_c A_c, done
            for several methods in one product; ``map``: ``compute`` gives the map (N, H, W);
            ``pass``: ``compute`` is given a `PassContext` and gives (N, T, h, w), or
            (N, T, C, H, W) where ``record.pixel``.
        compute: called as ``compute(activations, other)``, where ``other`` is the gradients, the
            classifier's rows (N, C), or None, as ``needs`` says; ``compute(context)`` for a pass.
            Each image is computed by itself.
        channelwise: whether the channels do not see one another: the weight of a channel depends on
            that channel alone, or the map is a sum over channels of maps of one channel each. Such
            a method is computed on slices of channels that stay in the processor's cache.
        aliases: other names that are understood.
        fuse: how the maps of the layers become its one map; ``""`` where each layer has its own.
    """

    name: str
    record: MethodRecord
    needs: Needs
    kind: Kind
    compute: Compute
    channelwise: bool = True
    aliases: tuple[str, ...] = ()
    fuse: str = ""

    @property
    def at_layers(self) -> bool:
        """Whether it has a map at each layer, rather than one of the input or of all blocks."""
        return not (self.record.pixel or self.needs.attention)

    @property
    def reads_layers(self) -> bool:
        """Whether a layer has to be captured for it."""
        return self.at_layers or self.needs.activations or self.needs.gradients

    @property
    def only_forward(self) -> bool:
        """Whether it takes forwards and the outputs of layers alone, of any modules."""
        needs = self.needs
        backward = needs.gradients or "backward" in needs.passes
        return not (backward or needs.classifier or needs.attention)

    def passes(self, targets: int) -> str:
        """Say which passes of its own it runs; ``""`` for none."""
        backwards = "one backward" if targets == 1 else f"{targets} backwards"
        return self.needs.passes.format(
            targets=targets, backwards=backwards, **self.record.settings
        )


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
    fuse: str = "",
) -> Callable[[Compute], Compute]:
    """Register a map method; used as a decorator, it returns the function unchanged.

    Args:
        record: what a report says of it; ``record.name`` becomes the registry name.
        needs: what the function is computed from.
        kind: ``weights`` if the function gives (N, C) channel weights, ``map`` if (N, H, W),
            ``pass`` if it runs the model itself.
        channelwise: whether the channels do not see one another (see `Method`).
        aliases: other names that are understood, besides those that differ in case or punctuation.
        fuse: ``mean``, ``max`` or ``product`` for a method whose one map is that of all layers
            fused; ``""`` for one with a map at each.

    Raises:
        MapError: if the name, or an alias, is already taken.
    """

    def register(compute: Compute) -> Compute:
        new = Method(record.name, record, needs, kind, compute, channelwise, tuple(aliases), fuse)
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

    Case, ``-``, ``_`` and spaces do not matter, and a ``+`` may be written ``p`` or ``plus``. What
    follows a colon changes the method's settings.

    Args:
        names: such as ``["gradcam", "GradCAM++", "smoothgrad:samples=8,noise=0.1"]``; a single
            string is one name.

    Returns:
        The methods; the record of each has the settings that will be used.

    Raises:
        MapError: if a name or setting is unknown, with those that are close, or if a setting's
            value is not of its kind.

    Examples:
        >>> [found.name for found in get_methods(["Grad-CAM", "gradcampp", "eigen_cam"])]
        ['gradcam', 'gradcam++', 'eigencam']
    """
    spellings = _spellings()
    found: dict[str, Method] = {}
    for name in (names,) if isinstance(names, str) else names:
        called, _, settings = str(name).partition(":")
        known = spellings.get(_plain(called))
        if known is None:
            raise MapError(f"no map is called {called!r}; {choices(called, METHODS, limit=20)}")
        found[known] = _set(METHODS[known], settings) if settings else METHODS[known]
    return tuple(found.values())


def _set(method: Method, text: str) -> Method:
    """Return the method with the settings written as ``name=value,name=value``."""
    settings = dict(method.record.settings)
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in settings:
            there = choices(name, settings) if settings else "it has none"
            raise MapError(f"the map {method.name!r} has no setting {name!r}; {there}")
        wrong = _wrong(settings[name], value)
        if wrong:
            raise MapError(
                f"the setting {name!r} of {method.name!r} is {value!r}; give {wrong},"
                f" such as {settings[name]}"
            )
        settings[name] = value
    return replace(method, record=replace(method.record, settings=settings))


def _wrong(like: str, value: str) -> str:
    """Return what kind of value is right, or ``""`` where this one is."""
    for kind, word in ((int, "a whole number that is not negative"), (float, "a number")):
        try:
            kind(like)
        except ValueError:
            continue
        try:
            return "" if kind(value) >= 0 else word
        except ValueError:
            return word
    return "" if value else "a word"


def _plain(name: str) -> str:
    lowered = name.lower().replace("plus", "p").replace("+", "p")
    return lowered.translate({ord(mark): None for mark in "-_ "})


def _spellings() -> dict[str, str]:
    return {
        _plain(spelling): entry.name
        for entry in _REGISTERED.values()
        for spelling in (entry.name, *entry.aliases)
    }
