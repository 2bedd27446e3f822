"""The registry of map methods: one function and one decorator each.

A method is a function of the `Terms` of a layer; one that has to run the model itself is given a
`PassContext` instead. It gives a raw, signed map; what it shows, its formula and whether its
definition ends in a ReLU are data on the method, applied by whoever draws it. The module is longer
than 300 lines for the documentation of `Method` and of the decorator.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeVar

from torch import Tensor

from exporter.doors import MAPS, load_plugin, load_reference, plugins
from exporter.errors import MapError, choices
from exporter.guard import user_code
from exporter.maps.needs import SMOOTH, Needs, Setting, Value, settings_of, store_settings
from exporter.records import MethodRecord

Kind = Literal["weights", "map", "pass"]
Compute = Callable[..., Tensor]
ComputeT = TypeVar("ComputeT", bound=Compute)


@dataclass(frozen=True, slots=True)
class Method:
    """One registered map method, called as ``method(terms)`` or ``method(context)``.

    What is not described here is as `method` was told.

    Attributes:
        record: what a report says of it; its settings are text.
        compute: the function. Each image is computed by itself.
        declared: its settings, those of the function first.
        settings: their values.
    """

    name: str
    record: MethodRecord
    needs: Needs
    kind: Kind
    compute: Compute
    channelwise: bool = True
    aliases: tuple[str, ...] = ()
    fuse: str = ""
    homogeneous: bool = True
    declared: Mapping[str, Setting] = field(default_factory=dict)
    settings: Mapping[str, Value] = field(default_factory=dict)

    def __call__(self, given: object) -> Tensor:
        """Compute it from a layer's `Terms`, or from a `PassContext`, with its settings."""
        if self.compute.__module__.startswith("exporter."):
            return self.compute(given, **self.own_settings)
        with user_code(f"the map {self.name!r}", error=MapError):
            return self.compute(given, **self.own_settings)

    @property
    def own_settings(self) -> dict[str, Value]:
        """The settings of the function, without those of the store."""
        return {
            name: value for name, value in self.settings.items() if not self.declared[name].of_store
        }

    @property
    def smoothed(self) -> bool:
        """Whether its map is averaged with that of the mirrored image, mirrored back."""
        return self.settings.get("smooth") == "flips"

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
        backward = needs.gradients or (needs.passes is not None and needs.passes.backwards != 0)
        return not (backward or needs.classifier or needs.attention)

    def sentence(self, targets: int = 1) -> str:
        """Say which passes of its own it runs; ``""`` for none."""
        passes, attention = self.needs.passes, self.needs.attention
        return passes.sentence(self.own_settings, targets, attention=attention) if passes else ""


_REGISTERED: dict[str, Method] = {}

LIBRARIES = {"captum": "exporter.maps.of_captum", "zennit": "exporter.maps.of_zennit"}
"""What finds the methods of a library by name, as in ``captum:DeepLift``."""

LEFT_OUT = {
    "lxt": "LXT changes torch's own modules for every model in the process, so its AttnLRP is not "
    "available here; for transformers, use chefer or legrad",
}
"""Libraries that have none, and why."""

METHODS: Mapping[str, Method] = MappingProxyType(_REGISTERED)
"""Every registered method by name, in the order in which they are listed to people."""


def method(
    name: str,
    *,
    title: str = "",
    shows: str,
    formula: str,
    kind: Kind,
    needs: Needs = Needs(),  # noqa: B008 - frozen
    relu: bool = False,
    paper: str = "",
    url: str = "",
    cost: str = "",
    caveats: str = "",
    channelwise: bool = True,
    aliases: Iterable[str] = (),
    fuse: str = "",
    homogeneous: bool = True,
    pixel: str = "",
) -> Callable[[ComputeT], ComputeT]:
    """Register a map method; used as a decorator, it returns the function unchanged.

    The function's parameters after the first are the method's settings: they have defaults, numbers
    or one of the words of a ``Literal``.

    Args:
        name: registry name, which ``--map`` and `compute_maps` understand.
        title: name as a paper writes it; the registry name if left out.
        shows: what the map shows, one sentence.
        formula: the formula, in Unicode text.
        kind: ``weights`` if the function gives channel weights (N, C), whose sum Σ_c w_c A_c is
            done for several methods in one product; ``map`` if it gives the map (N, H, W); ``pass``
            if it runs the model itself: it is given a `PassContext` and gives (N, T, h, w), or
            (N, T, C, H, W) with ``pixel``.
        needs: what the function is computed from; only the activations if left out.
        relu: whether the definition ends in a ReLU, which the function leaves out.
        paper: authors, title, venue, year.
        url: where to find the paper.
        cost: what it costs, in words; derived from the needs if left out.
        caveats: how it misleads, in a sentence or two.
        channelwise: whether the channels are independent: the weight of a channel depends on
            that channel alone, or the map is a sum over channels of maps of one channel each.
        aliases: other names that are understood, besides those that differ in case or punctuation.
        fuse: ``mean``, ``max`` or ``product`` for a method whose single map fuses all layers;
            ``""`` for one with a map at each.
        homogeneous: whether twice the gradient (without one, twice the activations) gives twice
            the map, so that a map too small for its layer is known as rounding noise.
        pixel: for a map at the input's resolution, how its channels become the one that is stored:
            ``sum``, ``sum-abs`` or ``max-abs``.

    Raises:
        MapError: if the name, or an alias, is already taken, or a setting has no default.

    Examples:
        >>> from exporter.maps import Needs, Terms
        >>> @method(
        ...     "maxgrad",
        ...     shows="Where those channels are active whose gradient is large somewhere.",
        ...     formula="M = Σ_c w_c · A_c, w_c = max_xy g_c",
        ...     kind="weights",
        ...     needs=Needs(gradients=True),
        ... )
        ... def maxgrad(terms: Terms) -> Tensor:
        ...     return terms.g.amax((2, 3))
        >>> METHODS["maxgrad"].record.cost
        'one backward pass, shared with every other method that uses gradients'
    """

    def register(compute: ComputeT) -> ComputeT:
        declared = settings_of(compute, name) | (store_settings(pixel) if pixel else {})
        values = {setting: entry.default for setting, entry in declared.items()}
        record = MethodRecord(
            name=name,
            title=title or name,
            shows=shows,
            formula=formula,
            paper=paper,
            url=url,
            cost=cost or needs.cost,
            caveats=caveats,
            relu=relu,
            pixel=bool(pixel),
            settings=_text(values),
            attended=bool(needs.attention),
        )
        known = tuple(aliases)
        _refuse_taken((name, *known), compute)
        _REGISTERED[name] = Method(
            name,
            record,
            needs,
            kind,
            compute,
            channelwise,
            known,
            fuse,
            homogeneous,
            declared,
            values,
        )
        return compute

    return register


def get_methods(names: Iterable[str]) -> tuple[Method, ...]:
    """Look up methods by name or alias, each once, in the order asked for.

    Case, ``-``, ``_`` and spaces do not matter, and a ``+`` may be written ``p`` or ``plus``. What
    follows a colon changes the method's settings. Methods that are not registered yet are looked
    for among the plug-ins, and may be named by where their function stands.

    Args:
        names: such as ``["gradcam", "GradCAM++", "smoothgrad:samples=8,noise=0.1"]``, or
            ``path/file.py:function``, or ``captum:DeepLift`` and ``zennit:epsilon_plus_flat``; a
            single string is one name.

    Returns:
        The methods, with the settings that will be used.

    Raises:
        MapError: if a name or setting is unknown, with those that are close, if a setting's value
            is not of its kind, or if a method is asked for with different settings.
        ConfigError: if a plug-in cannot be loaded.

    Examples:
        >>> [method.name for method in get_methods(["Grad-CAM", "gradcampp", "eigen_cam"])]
        ['gradcam', 'gradcam++', 'eigencam']
    """
    methods: dict[str, Method] = {}
    for text in (names,) if isinstance(names, str) else names:
        wanted, settings = _look_up(str(text))
        wanted = _set(wanted, settings) if settings else wanted
        if methods.setdefault(wanted.name, wanted).settings != wanted.settings:
            raise MapError(
                f"the map {wanted.name!r} is asked for with different settings; a run has each map "
                "once, so make two runs and compare them"
            )
    return tuple(methods.values())


def all_methods() -> Mapping[str, Method]:
    """Return every method by name, those of installed plug-ins (entry points) included.

    Raises:
        ConfigError: if a plug-in cannot be loaded, or registers a name that is already taken.
        MapError: if a plug-in's entry point is not a map.
    """
    for entry in plugins(MAPS).values():
        _registered(load_plugin(entry), entry.value)
    return METHODS


def borrowed_methods() -> Mapping[str, tuple[Method, ...] | str]:
    """Return the methods of each library of `LIBRARIES`, or why there are none."""
    there: dict[str, tuple[Method, ...] | str] = {}
    for library, place in LIBRARIES.items():
        module = importlib.import_module(place)
        try:
            there[library] = tuple(module.method_named(name) for name in module.names())
        except MapError as error:
            there[library] = str(error)
    return there


def _look_up(text: str) -> tuple[Method, str]:
    """Return the method that a text names, and what it says of the settings."""
    called, _, settings = text.partition(":")
    if called in LEFT_OUT:
        raise MapError(LEFT_OUT[called])
    if called in LIBRARIES:
        name, _, settings = settings.partition(":")
        module = importlib.import_module(LIBRARIES[called])
        return module.method_named(name), settings
    reference = re.fullmatch(r"(.+\.py:\w+|[\w.]+:\w+)(?::(.*))?", text)
    if _plain(called) not in _spellings():
        if reference:
            function = load_reference(reference[1], "map", MapError)
            return _registered(function, reference[1]), reference[2] or ""
        all_methods()
    known = _spellings().get(_plain(called))
    if known is None:
        raise MapError(f"no map is called {called!r}; {choices(called, METHODS, limit=20)}")
    return known, settings


def _registered(function: object, reference: str) -> Method:
    """Return the method of a function that somebody else's code defines."""
    for entry in METHODS.values():
        if entry.compute is function:
            return entry
    raise MapError(f"{reference!r} is not a map; decorate the function with @exporter.method(…)")


def _set(method: Method, text: str) -> Method:
    """Return the method with the settings written as ``name=value,name=value``."""
    settings, declared = dict(method.settings), {**SMOOTH, **method.declared}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in declared:
            there = choices(name, declared)
            raise MapError(f"the map {method.name!r} has no setting {name!r}; {there}")
        try:
            settings[name] = declared[name].parse(value)
        except ValueError:
            raise MapError(
                f"the setting {name!r} of {method.name!r} is {value!r}; give "
                f"{declared[name].wanted}"
            ) from None
    record = replace(method.record, settings=_text(settings))
    if settings.get("smooth") == "flips":
        record = replace(record, cost=f"{record.cost}; all of it again for the mirrored image")
    return replace(method, record=record, declared=declared, settings=settings)


def _text(settings: Mapping[str, Value]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}


def _refuse_taken(names: Iterable[str], compute: Compute) -> None:
    """Refuse names that are taken; the same function defined again replaces itself."""
    new, *_ = names
    for name in names:
        other = _spellings().get(_plain(name))
        if other and _whose(other.compute) != _whose(compute):
            raise MapError(
                f"the map {new!r} cannot be registered: {name!r} already means {other.name!r};"
                " choose another name"
            )


def _whose(function: Compute) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _plain(name: str) -> str:
    lowered = name.lower().replace("plus", "p").replace("+", "p")
    return lowered.translate({ord(mark): None for mark in "-_ "})


def _spellings() -> dict[str, Method]:
    return {
        _plain(spelling): entry
        for entry in METHODS.values()
        for spelling in (entry.name, *entry.aliases)
    }
