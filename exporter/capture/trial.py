"""One trial forward: which modules are called, in which order, and what each gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from exporter.capture.hooks import After, hooked
from exporter.capture.names import LayerName, named_layers
from exporter.containers import rebuild
from exporter.errors import ExporterError
from exporter.guard import user_code

Look = Callable[["Call", str, Tensor], "Callable[[Tensor], None] | None"]
"""Given a call, the path of a tensor in what it returned, and the tensor; what it returns is called
with the tensor's gradient."""
Explain = Callable[[Any], "Tensor | None"]
"""From the model's output to the scalar to differentiate, None for none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module, as its forward returned.

    Attributes:
        layer: the module's name and the number of the call.
        module: the module.
        position: its number among the calls.
        start: how many calls had returned when this one began; those at or after it and before
            this call are inside it.
        shapes: shape with the batch of each tensor that it gave, by path: ``""`` for the output
            itself, ``[0]`` or ``[key]`` for a part of a container.
        carries: by path of each floating-point one, whether a gradient flows from it to the input.
    """

    layer: LayerName
    module: nn.Module
    position: int
    start: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    carries: dict[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The module's name; of its second call ``name#2``."""
        return self.layer.numbered


class Traced(NamedTuple):
    """What one forward did.

    Attributes:
        calls: every call, in the order in which they returned.
        output: what the model gave, detached; a tensor requires grad where its own did.
        differentiated: whether a backward ran through.
    """

    calls: tuple[Call, ...]
    output: Any
    differentiated: bool


def trace_forward(
    model: nn.Module, example: Tensor, look: Look, explain: Explain, *, graph: bool
) -> Traced:
    """Run one forward and note every call of every submodule; after it, one backward.

    With a graph, what follows a layer is given a clone of its output, as in a capture: a module may
    hand on an inner one's tensor that nothing reads from there, and the inner one's gradient is
    not its own.

    Args:
        model: a guest: eval, frozen (see `guest`).
        example: (N, C, H, W) on the model's device.
        look: called with every tensor as a layer returns it, before anything writes to it.
        explain: from the output to the scalar whose gradient ``look``'s answers are called with.
        graph: whether autograd records the forward.

    Raises:
        ModelError: if the forward fails, with what it said.
    """
    calls: list[Call] = []
    began: list[int] = []
    counts: dict[str, int] = {}
    running = True

    def before(_module: nn.Module, _inputs: Any) -> None:
        began.append(len(calls))

    def after(name: str) -> After:
        def hook(child: nn.Module, _inputs: Any, output: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            start = began.pop()
            if not running:
                return None  # a checkpointed block runs again in the backward
            call = Call(LayerName(name, counts[name]), child, len(calls), start)
            calls.append(call)
            return rebuild(output, lambda path, tensor: _looked_at(call, path, tensor, look))

        return hook

    layers = named_layers(model)
    leaf = example.clone() if example.is_inference() else example.detach()
    differentiated = False
    with hooked(
        [(child, after(name)) for name, child in layers.items()],
        [(child, before) for child in layers.values()],
    ):
        shape = " × ".join(str(side) for side in example.shape)
        trial = f"a trial forward of {type(model).__name__}"
        with user_code(trial, f"an input of {shape}"), torch.set_grad_enabled(graph):
            output = model(leaf.requires_grad_().clone() if graph else leaf)
        running = False
        if graph:
            differentiated = _differentiated(explain, output, leaf)
    held = rebuild(output, lambda _path, own: own.detach().requires_grad_(own.requires_grad))
    return Traced(tuple(calls), held, differentiated)


def _looked_at(call: Call, path: str, tensor: Tensor, look: Look) -> Tensor:
    call.shapes[path] = tuple(tensor.shape)
    if tensor.is_floating_point() or tensor.is_quantized:
        call.carries[path] = tensor.requires_grad
    receive = look(call, path, tensor)
    if not tensor.requires_grad:
        return tensor
    own = tensor.clone()
    if receive is not None:
        # A hook, not a kept gradient: those of all layers together would not fit.
        own.register_hook(receive)  # type: ignore[no-untyped-call]
    return own


def _differentiated(explain: Explain, output: Any, leaf: Tensor) -> bool:
    """Run the backward, and say whether there was one: quantised modules have none."""
    try:
        scalar = explain(output)
        if scalar is None:
            return False
        torch.autograd.grad(scalar, leaf)
    except (ExporterError, RuntimeError):
        return False
    return True
