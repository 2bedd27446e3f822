"""Which layers are explained: those asked for, or the model's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from exporter.capture.trial import Trial, parts, run_trial
from exporter.errors import LayerError, choices
from exporter.layers.layout import Layout, Reshape, read_layout
from exporter.layers.names import expand, is_pattern, split_suffix
from exporter.layers.reach import reached_layers
from exporter.layers.stages import Candidate, choose_stages

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


def choose_layers(
    module: nn.Module,
    example: Tensor,
    wanted: Sequence[str],
    *,
    single: bool = True,
    output: str | None = None,
    reshape: Reshape | None = None,
) -> LayerChoice:
    """Find the layers that are meant, by one trial that leaves the model as it was.

    The trial is a forward, and for ``auto`` a backward too: a layer is taken only where the output
    depends on its places.

    Args:
        module: the model.
        example: (N, C, H, W) on the model's device; one image is enough.
        wanted: exact names (``layer4``, ``relu#2`` for its second call, ``layer4[0]`` or
            ``layer4[key]`` for a part of its output), globs (``layer?``, ``features.*``, ``**``
            across dots), ``@Type``, or ``auto`` for the stages: the last layer of each spatial
            resolution, the four deepest.
        single: whether a layer asked for by name may have a plane of a single pixel, which has
            channels but no map.
        output: path of the explained tensor inside the model's output; None guesses as
            `locate_output` does.
        reshape: reads a layer's output as (N, C, H, W); None, or where it does not fit, the shape
            says how.

    Returns:
        The layers in execution order with the reason and their layouts. Of globs and types only
        those that have a plane of more than one pixel are taken.

    Raises:
        LayerError: if a layer is unknown, is never called, or has no plane, or none has.
        ModelError: if the forward fails.
    """
    given: dict[str, Layout] = {}

    def watch(call: str, child: nn.Module, _inputs: tuple[Any, ...], returned: Any) -> None:
        for suffix, tensor in parts(returned):
            size = (example.shape[-2], example.shape[-1])
            layout = read_layout(tensor, size, reshape, child if suffix == "" else None)
            if layout is not None:
                given[call + suffix] = layout

    trial = run_trial(module, example, watch)
    candidates = {candidate.name: candidate for candidate in _candidates(trial, given)}
    modules = {name: child for name, child in module.named_modules() if name}
    taken: set[str] = set()
    reasons: list[str] = []
    for text in wanted:
        if text == AUTO:
            layouts = {name: candidate.layout for name, candidate in candidates.items()}
            reached = reached_layers(module, example, layouts, output=output)
            names, reason = choose_stages(
                module, trial, tuple(candidates.values()), reached, output=output
            )
        elif is_pattern(text):
            names, reason = _matching(text, modules, candidates)
        else:
            names, reason = (_exact(text, module, modules, trial, candidates),), "as asked for"
            if not single and _pixels(candidates[names[0]]) == 1:
                raise LayerError(
                    f"the layer {text!r} gives no plane of more than one pixel; see exporter "
                    "layers for those that do"
                )
        taken.update(names)
        if reason not in reasons:
            reasons.append(reason)
    if not taken:
        raise LayerError("no layer was asked for; give --layer auto or a layer's name")
    names = tuple(name for name in candidates if name in taken)
    return LayerChoice(names, "; ".join(reasons), {name: candidates[name].layout for name in names})


def _candidates(trial: Trial, given: Mapping[str, Layout]) -> list[Candidate]:
    """List every output, or part of one, that has a plane, in execution order."""
    found = []
    for position, call in enumerate(trial.calls):
        for suffix, shape in call.shapes.items():
            layout = given.get(call.name + suffix)
            # Windows and regions multiply the batch: such an output is not one plane an image.
            if layout is not None and shape[0] == trial.batch:
                found.append(Candidate(call.name + suffix, position, layout))
    return found


def _matching(
    text: str, modules: Mapping[str, nn.Module], candidates: Mapping[str, Candidate]
) -> tuple[tuple[str, ...], str]:
    meant = set(expand(text, modules))
    names = tuple(
        name
        for name, candidate in candidates.items()
        if split_suffix(name)[0] in meant and _pixels(candidate) > 1
    )
    if not names:
        raise LayerError(
            f"none of the {len(meant)} layers that {text!r} means gives a plane of more than one "
            "pixel; see exporter layers for those that do"
        )
    return names, f"those that {text} means"


def _pixels(candidate: Candidate) -> int:
    return candidate.layout.height * candidate.layout.width


def _exact(
    text: str,
    module: nn.Module,
    modules: Mapping[str, nn.Module],
    trial: Trial,
    candidates: Mapping[str, Candidate],
) -> str:
    name, suffix = split_suffix(text)
    if name not in modules:
        # The same module under a second name: hooks know it by its first.
        aliases = dict(module.named_modules(remove_duplicate=False))
        first = {id(child): known for known, child in modules.items()}
        name = first.get(id(aliases.get(name)), name)
    expand(name, modules)
    text = name + suffix.replace("#1", "", 1) if suffix.split("[")[0] == "#1" else name + suffix
    if text in candidates:
        return text
    calls = {call.name: call for call in trial.calls}
    if name not in calls:
        raise LayerError(
            f"the layer {name!r} is never called in a forward pass (its container does its work, "
            "or the model does not use it); choose another, see exporter layers"
        )
    numbered = text.split("[")[0]
    if numbered not in calls:
        times = sum(call.split("#")[0] == name for call in calls)
        raise LayerError(
            f"the layer {name!r} is called {times} times a forward, so {text!r} is not"
        )
    shapes = calls[numbered].shapes
    parts = [numbered + part for part in shapes if numbered + part in candidates]
    if parts == [numbered]:
        raise LayerError(
            f"the output of {numbered!r} is one tensor and has no part {text[len(numbered) :]!r}; "
            f"write {numbered}"
        )
    if parts:
        raise LayerError(f"the output of {numbered!r} has parts; {choices(text, parts)}")
    part = shapes.get(text[len(numbered) :])
    said = "no tensor" if part is None else f"shape {tuple(part)}"
    raise LayerError(
        f"the layer {text!r} gives {said}, which is no plane of rows and columns for each image; "
        "choose a layer before the pooling, or auto"
    )
