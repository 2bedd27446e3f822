"""Which layers the explained output depends on, place by place: one backward shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.trial import run_trial, visit
from exporter.containers import rebuild
from exporter.errors import ModelError, TargetError
from exporter.layers.layout import Layout
from exporter.targets.detection import is_detections
from exporter.targets.outputs import locate_output


def reached_layers(
    module: nn.Module, example: Tensor, layouts: Mapping[str, Layout], *, output: str | None = None
) -> frozenset[str] | None:
    """Find the layers whose places have a gradient that is not zero, by one trial backward.

    A vision transformer's last block, for one, gives the output its class token only: no place of
    an image has a gradient there, and no map can be made. What is differentiated is a fixed mixture
    of all outputs, so that a layer which any class depends on counts.

    Args:
        module: the model; left as it was.
        example: (N, C, H, W) on the model's device; one image is enough.
        layouts: by layer's name, with its call and part suffix, how its output is read.
        output: path of the explained tensor inside the model's output.

    Returns:
        Their names; None where the trial can say nothing: the model carries no gradients, or those
        of all layers are zero (a head whose weights are zero).
    """
    reached: set[str] = set()

    def note(name: str, layout: Layout) -> Any:
        def hook(gradient: Tensor) -> None:
            # A hook, not a kept gradient: those of all layers together would not fit.
            if bool((layout.spatial(gradient) != 0).any()):
                reached.add(name)

        return hook

    def watch(call: str, _child: nn.Module, _inputs: tuple[Any, ...], given: Any) -> Any:
        def followed(suffix: str, tensor: Tensor) -> Tensor:
            layout = layouts.get(call + suffix)
            if layout is None or not tensor.requires_grad:
                return tensor
            # A clone, as in a capture: a module may hand on an inner one's tensor that nothing
            # reads from there, and the inner one's gradient is not its own.
            own = tensor.clone()
            own.register_hook(note(call + suffix, layout))  # type: ignore[no-untyped-call]
            return own

        return rebuild(given, followed)

    with torch.inference_mode(False), torch.enable_grad():
        leaf = example.detach().clone().requires_grad_()
        try:
            # In eval mode to the end: a checkpointed block runs its forward again in the backward.
            with visit(module, graph=True):
                trial = run_trial(module, leaf, watch, graph=True)
                if output is None and is_detections(trial.output):
                    # A box depends on its level alone; `choose_stages` keeps to the trunk.
                    return None
                explained, _ = locate_output(trial.output, output)
                mixture = torch.cos(torch.arange(explained.numel(), device=explained.device))
                torch.autograd.grad((explained.flatten() * mixture).sum(), leaf)
        except (ModelError, TargetError, RuntimeError):
            # Quantised and scripted modules, and weights made under inference mode, have none.
            return None
    return frozenset(reached) or None
