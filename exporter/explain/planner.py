"""Group map methods into as few passes through the model as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.maps import Method
from exporter.maps.needs import counted


@dataclass(frozen=True, slots=True)
class Pass:
    """One trip through the model.

    Attributes:
        methods: the map methods that it serves; empty where only predictions and activations are
            wanted.
        layers: the layers that are captured for them.
        forwards: forward passes.
        backwards: backward passes over that forward's graph, one per target; 0 where no method
            needs a gradient, and the forward then records no graph.
        own: for methods that run the model themselves, what they run, in words; the counts are then
            those of the shared pass that they begin with, none.
    """

    methods: tuple[str, ...]
    layers: tuple[str, ...]
    forwards: int = 1
    backwards: int = 0
    own: str = ""

    @property
    def sentence(self) -> str:
        """Say what the pass does, in words."""
        if self.own:
            return f"{self.own} for {', '.join(self.methods)}"
        back = "no backward" if self.backwards == 0 else counted(self.backwards, "backward")
        what = ", ".join(self.methods) or "predictions and activations"
        where = f" at {', '.join(self.layers)}" if self.methods and self.layers else ""
        return f"{counted(self.forwards, 'forward')} and {back} for {what}{where}"


def plan_passes(
    methods: Sequence[Method], layers: Sequence[str] = (), *, targets: int = 1
) -> tuple[Pass, ...]:
    """Plan the passes of one batch.

    Every method that reads activations and gradients of the plain model shares one pass, at all
    layers: one forward, and one backward per target if any of them needs a gradient. There is this
    pass even for no methods: predictions come from it. Methods that run the model themselves (a
    changed backward rule, perturbed inputs) follow, those that share their passes together.

    Args:
        methods: in the order asked for.
        layers: in execution order.
        targets: targets explained per image.

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
    own: dict[object, list[Method]] = {}
    for method in methods:
        if method.needs.passes:
            alike = method.needs.passes if method.needs.passes.shared else method.name
            own.setdefault(alike, []).append(method)
    shared = Pass(
        methods=tuple(method.name for method in methods if not method.needs.passes),
        layers=tuple(layers) if any(method.reads_layers for method in methods) else (),
        backwards=targets if gradients else 0,
    )
    later = (
        Pass(tuple(m.name for m in group), (), forwards=0, own=group[0].sentence(targets))
        for group in own.values()
    )
    return (shared, *later)
