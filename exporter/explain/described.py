"""Which passes of the model a batch takes, in words."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.maps import Method
from exporter.maps.needs import counted


def describe_passes(
    methods: Sequence[Method], layers: Sequence[str] = (), *, targets: int = 1
) -> tuple[str, ...]:
    """Say which passes a batch takes, in the order in which they are run.

    Every method that reads activations and gradients of the plain model shares one pass, at all
    layers: one forward, and one backward per target if any of them needs a gradient. There is this
    pass even for no methods: predictions come from it. Methods that run the model themselves (a
    changed backward rule, perturbed inputs) follow, those that share their passes together.

    Examples:
        >>> from exporter.maps import get_methods
        >>> describe_passes(get_methods(["gradcam", "layercam"]), ["layer3", "layer4"])[0]
        'one forward and one backward for gradcam, layercam at layer3, layer4'
        >>> describe_passes(get_methods(["eigencam"]), ["layer4"])[0]
        'one forward and no backward for eigencam at layer4'
    """
    shared = ", ".join(method.name for method in methods if not method.needs.passes)
    read = layers if any(method.reads_layers for method in methods) else ()
    gradients = any(method.needs.gradients for method in methods)
    back = counted(targets, "backward") if gradients else "no backward"
    where = f" at {', '.join(read)}" if shared and read else ""
    smoothed = ", ".join(method.name for method in methods if method.smoothed)
    own: dict[object, list[Method]] = {}
    for method in methods:
        if method.needs.passes:
            alike = method.needs.passes if method.needs.passes.shared else method.name
            own.setdefault(alike, []).append(method)
    return (
        f"one forward and {back} for {shared or 'predictions and activations'}{where}",
        *(
            f"{group[0].sentence(targets)} for {', '.join(method.name for method in group)}"
            for group in own.values()
        ),
        *[f"the same of the mirrored images for {smoothed}"] * bool(smoothed),
    )
