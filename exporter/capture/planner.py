"""Group map methods into as few passes through the model as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Needs(Protocol):
    """What the planner asks of a method's needs (see `exporter.maps.Needs`)."""

    @property
    def gradients(self) -> bool:
        """Whether the target's gradient at the layers is needed."""


class Planned(Protocol):
    """What the planner asks of a method (see `exporter.maps.Method`)."""

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def needs(self) -> Needs:
        """What it is computed from."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One trip through the model.

    Attributes:
        methods: the map methods that it serves; empty where only predictions and activations are
            wanted.
        layers: the layers that are captured for them.
        forwards: forward passes.
        backwards: backward passes over that forward's graph, one a target; 0 where no method needs
            a gradient, and the forward then records no graph.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    forwards: int = 1
    backwards: int = 0

    @property
    def sentence(self) -> str:
        """Say what the pass does, in words."""
        back = "no backward" if self.backwards == 0 else _count(self.backwards, "backward")
        what = ", ".join(self.methods) or "predictions and activations"
        where = f" at {', '.join(self.layers)}" if self.methods and self.layers else ""
        return f"{_count(self.forwards, 'forward')} and {back} for {what}{where}"


def plan_passes(
    methods: Sequence[Planned], layers: Sequence[str] = (), *, targets: int = 1
) -> tuple[Pass, ...]:
    """Plan the passes of one batch.

    Every method that reads activations and gradients of the plain model shares one pass, at all
    layers: one forward, and one backward a target if any of them needs a gradient. There is one
    pass even for no methods: predictions come from it. A method with a model of its own (a changed
    backward rule, perturbed inputs) would get a pass of its own here.

    Args:
        methods: in the order asked for.
        layers: in execution order.
        targets: targets explained an image.

    Returns:
        The passes, in the order in which they are run.

    Examples:
        >>> from exporter.maps import get_methods
        >>> plan_passes(get_methods(["gradcam", "layercam"]), ["layer3", "layer4"])[0].sentence
        'one forward and one backward for gradcam, layercam at layer3, layer4'
        >>> plan_passes(get_methods(["eigencam"]), ["layer4"])[0].sentence
        'one forward and no backward for eigencam at layer4'
    """
    gradients = any(method.needs.gradients for method in methods)
    return (
        Pass(
            methods=tuple(method.name for method in methods),
            layers=tuple(layers),
            backwards=targets if gradients else 0,
        ),
    )


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"
