"""Which layers are explained: those asked for, or the model's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from exporter.capture import (
    LayerName,
    expand,
    first_names,
    is_pattern,
    named_layers,
    parse_name,
    quoted,
)
from exporter.errors import LayerError, choices
from exporter.layers.layout import Layout, notes_of
from exporter.layers.stages import choose_stages
from exporter.layers.trial import Plane, Trial

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The layers taken.

    Attributes:
        names: in execution order, shallow to deep.
        reason: why these, one line.
        layouts: how each one's output is read as (N, C, H, W), by the name that a capture of it
            has (``block[0]`` for a part of a container).
    """

    names: tuple[str, ...]
    reason: str
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which of them are read by their shape alone, a sentence each."""
        return notes_of(self.layouts)


def choose_layers(trial: Trial, wanted: Sequence[str], *, single: bool = True) -> LayerChoice:
    """Find the layers that are meant.

    Args:
        trial: of the model; for ``auto``, with its backward.
        wanted: exact names (``layer4``, ``relu#2`` for its second call, ``layer4[0]`` or
            ``layer4[key]`` for a part of its output), globs (``layer?``, ``features.*``, ``**``
            across dots), ``@Type``, or ``auto`` for the stages: the last layer of each spatial
            resolution, the four deepest.
        single: whether a layer asked for by name may have a plane of a single pixel, which has
            channels but no map.

    Returns:
        The layers in execution order with the reason and their layouts. Of globs and types only
        those that have a plane of more than one pixel are taken.

    Raises:
        LayerError: if a layer is unknown, is never called, or has no plane, or none has.
    """
    modules = named_layers(trial.module)
    taken: set[str] = set()
    reasons: dict[str, None] = {}
    for text in wanted:
        if text == AUTO:
            names, reason = choose_stages(trial)
        elif text not in modules and is_pattern(text):
            names, reason = _matching(text, modules, trial), f"those that {text} means"
        else:
            names, reason = (_exact(text, modules, trial),), "as asked for"
            if not single and trial.planes[names[0]].area == 1:
                raise LayerError(
                    f"the layer {text!r} gives no plane of more than one pixel; see exporter "
                    "layers for those that do"
                )
        taken.update(names)
        reasons[reason] = None
    if not taken:
        raise LayerError("no layer was asked for; give --layer auto or a layer's name")
    layouts = {name: plane.layout for name, plane in trial.planes.items() if name in taken}
    return LayerChoice(tuple(layouts), "; ".join(reasons), layouts)


def _matching(text: str, modules: Mapping[str, nn.Module], trial: Trial) -> tuple[str, ...]:
    meant = set(expand(text, modules))
    names = tuple(
        name
        for name, plane in trial.planes.items()
        if plane.name.module in meant and plane.area > 1 and not _guessed_tokens(plane)
    )
    if not names:
        raise LayerError(
            f"none of the {len(meant)} layers that {text!r} means gives a plane of more than one "
            "pixel; see exporter layers for those that do"
        )
    return names


def _guessed_tokens(plane: Plane) -> bool:
    return plane.layout.kind == "tokens" and not plane.layout.shown


def _exact(text: str, modules: Mapping[str, nn.Module], trial: Trial) -> str:
    asked = parse_name(text, modules)
    # The same module under a second name: hooks know it by its first.
    module = first_names(trial.module).get(asked.module, asked.module)
    if module not in modules:
        raise LayerError(f"the model has no layer {text!r}; {choices(text, map(quoted, modules))}")
    name = LayerName(module, asked.call, asked.path)
    if (plane := trial.planes.get(str(name))) is not None:
        if _guessed_tokens(plane):
            raise LayerError(
                f"the layer {text!r} gives {plane.layout.shape[0]} tokens per image, and nothing "
                "shows that they are a grid (they do not follow a patch that is moved over the "
                "image); choose another, or give --reshape, a function to (N, C, H, W)"
            )
        return str(name)
    calls = {call.name: call for call in trial.calls if call.layer.module == module}
    if not calls:
        raise LayerError(
            f"the layer {module!r} is never called in a forward pass (its container does its work, "
            "or the model does not use it); choose another, see exporter layers"
        )
    numbered = name.numbered
    if numbered not in calls:
        times = "once" if len(calls) == 1 else f"{len(calls)} times"
        raise LayerError(
            f"the layer {module!r} is called {times} per forward pass, so there is no {text!r}"
        )
    shapes = calls[numbered].shapes
    parts = [numbered + path for path in shapes if numbered + path in trial.planes]
    if parts == [numbered]:
        raise LayerError(
            f"the output of {numbered!r} is one tensor and has no part {name.path!r}; "
            f"write {numbered}"
        )
    if parts:
        raise LayerError(f"the output of {numbered!r} has parts; {choices(str(name), parts)}")
    shape = shapes.get(name.path)
    said = "no tensor" if shape is None else f"shape {shape}"
    raise LayerError(
        f"the layer {str(name)!r} gives {said}, which is not a plane of rows and columns for each "
        "image; choose a layer before the pooling, or auto"
    )
