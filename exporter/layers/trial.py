"""The one trial that planning asks: what a model does with one image, forward and backward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import (
    After,
    Changes,
    LayerName,
    guest,
    hooked,
    named_layers,
    on_gradient,
    watch_changes,
)
from exporter.containers import rebuild
from exporter.errors import ExporterError, ModelError
from exporter.guard import is_shortage, user_code
from exporter.layers.layout import Layout, Reshape, read_layout
from exporter.targets import is_detections, locate_output, watching

_SHORT = "free memory, or explain on another device"


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


@dataclass(frozen=True, slots=True)
class Plane:
    """One output, or part of one, that lies in a plane for each image.

    Attributes:
        name: the layer's name, as a capture has it.
        position: number of its call among the trial's calls.
        layout: how it lies.
        means: (N, C), over rows and columns; None for tokens, and where it has no floating point.
    """

    name: LayerName
    position: int
    layout: Layout
    means: Tensor | None = field(default=None, compare=False)

    @property
    def area(self) -> int:
        """Number of pixels of the plane."""
        return self.layout.height * self.layout.width

    @property
    def depth(self) -> int:
        """Number of dots in the module's name."""
        return self.name.module.count(".")


@dataclass(frozen=True, slots=True)
class Trial:
    """What one forward and backward of a model show; everything that planning asks is read from it.

    Attributes:
        module: the model.
        example: (N, C, H, W), what it was given.
        calls: every call of a module, in the order in which they returned.
        output: what the model gave, detached; a tensor requires grad where its own did.
        path: where the explained tensor is asked for inside it; None lets it be found.
        reshape: the user's function from a layer's output to (N, C, H, W).
        planes: by name, every output or part of one that has a plane per image, in execution order.
        reached: names of those whose spatial positions the output depends on; None where no
            backward could tell, or none was asked for.
        changes: what the forward changed besides.
    """

    module: nn.Module
    example: Tensor
    calls: tuple[Call, ...]
    output: Any
    path: str | None
    reshape: Reshape | None
    planes: Mapping[str, Plane]
    reached: frozenset[str] | None
    changes: Changes = field(default_factory=Changes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the example."""
        return self.example.shape[-2], self.example.shape[-1]


def run_trial(
    module: nn.Module,
    example: Tensor,
    *,
    output: str | None = None,
    reshape: Reshape | None = None,
    backward: bool = True,
) -> Trial:
    """Run a model once, forward and backward, and note what planning asks; it is left as it was.

    The backward shows which layers the explained output depends on, position by position: a vision
    transformer's last block, for one, gives the output its class token only, so no map can be made
    there. What is differentiated is a fixed mixture of all outputs, so that a layer which any class
    depends on counts. A model that runs only without a graph is run again without one.

    Args:
        module: the model.
        example: (N, C, H, W) on the model's device; one image is enough.
        output: path of the explained tensor inside the model's output; None guesses as
            `locate_output` does.
        reshape: reads a layer's output as (N, C, H, W); None, or where it does not fit, the type
            and the shape say how.
        backward: whether there is one; `choose_layers` needs it for ``auto``.

    Raises:
        ModelError: if the forward or the backward fails, memory runs out, or the model cannot
            be run as a `guest`.
    """
    with guest(module), watching(module):
        try:
            return _run(module, example, output, reshape, backward, graph=True)
        except ModelError as error:
            # What autograd refuses is a RuntimeError; anything else is the model's own failure.
            if not isinstance(error.__cause__, RuntimeError) or is_shortage(error):
                raise
            return _run(module, example, output, reshape, backward, graph=False)


def _run(
    module: nn.Module,
    example: Tensor,
    path: str | None,
    reshape: Reshape | None,
    backward: bool,
    *,
    graph: bool,
) -> Trial:
    calls: list[Call] = []
    began: list[int] = []
    counts: Counter[str] = Counter()
    planes: dict[str, Plane] = {}
    reached: set[str] = set()
    running = True

    def before(_module: nn.Module, _inputs: Any) -> None:
        began.append(len(calls))

    def after(name: str) -> After:
        def hook(child: nn.Module, _inputs: Any, output: Any) -> Any:
            counts[name] += 1
            start = began.pop()
            if not running:
                return None  # a checkpointed block runs again in the backward
            call = Call(LayerName(name, counts[name]), child, len(calls), start)
            calls.append(call)
            return rebuild(output, partial(look, call))

        return hook

    def look(call: Call, part: str, tensor: Tensor) -> Tensor:
        call.shapes[part] = tuple(tensor.shape)
        if tensor.is_floating_point() or tensor.is_quantized:
            call.carries[part] = tensor.requires_grad
        plane = _plane(call, part, tensor, example, reshape)
        if plane is not None:
            planes[str(plane.name)] = plane
        if not tensor.requires_grad:
            return tensor
        # A clone, as in a capture: a module may hand on an inner one's tensor that nothing reads
        # from there, and the inner one's gradient is not its own.
        own = tensor.clone()
        if plane is not None:
            on_gradient(own, partial(receive, plane))
        return own

    def receive(plane: Plane, gradient: Tensor) -> None:
        if bool((plane.layout.spatial(gradient) != 0).any()):
            reached.add(str(plane.name))

    layers = named_layers(module)
    leaf = example.clone() if example.is_inference() else example.detach()
    afterwards = [(child, after(name)) for name, child in layers.items()]
    with hooked(afterwards, [(child, before) for child in layers.values()]):
        shape = " × ".join(str(side) for side in example.shape)
        given, name = f"an input of {shape}", type(module).__name__
        with (
            user_code(f"a trial forward of {name}", given, memory=_SHORT),
            torch.set_grad_enabled(graph),
            watch_changes(module) as changes,
        ):
            output = module(leaf.requires_grad_() if graph else leaf)
        running = False
        with user_code(f"a trial backward of {name}", given, memory=_SHORT):
            told = graph and backward and _differentiated(output, path, leaf)
    shown = rebuild(output, lambda _path, own: own.detach().requires_grad_(own.requires_grad))
    dependent = frozenset(reached) if told and reached else None
    return Trial(module, example, tuple(calls), shown, path, reshape, planes, dependent, changes)


def _plane(
    call: Call, part: str, tensor: Tensor, example: Tensor, reshape: Reshape | None
) -> Plane | None:
    """Return how a tensor lies in the plane, where it does for each image."""
    size = (int(example.shape[-2]), int(example.shape[-1]))
    layout = read_layout(tensor, size, reshape, None if part else call.module)
    # Windows and regions multiply the batch: such an output is not one plane per image.
    if layout is None or len(tensor) != len(example):
        return None
    means = None
    if layout.kind != "tokens" and tensor.is_floating_point():
        means = layout.spatial(tensor.detach()).mean((2, 3))
    name = LayerName(call.layer.module, call.layer.call, part)
    return Plane(name, call.position, layout, means)


def _differentiated(output: object, path: str | None, leaf: Tensor) -> bool:
    """Run a backward of all outputs, and say whether there was one: quantised modules have none."""
    if path is None and is_detections(output):
        return False  # a box depends on its level alone; `choose_stages` keeps to the trunk
    try:
        explained, _ = locate_output(output, path)
        mixture = torch.cos(torch.arange(explained.numel(), device=explained.device))
        torch.autograd.grad((explained.flatten() * mixture).sum(), leaf)
    except (ExporterError, RuntimeError) as error:
        if is_shortage(error):
            raise
        return False
    return True
