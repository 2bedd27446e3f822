"""The one trial that planning asks: what a model does with one image, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from exporter.capture import Call, LayerName, guest, trace_forward
from exporter.errors import ModelError
from exporter.layers.layout import Layout, Reshape, read_layout
from exporter.targets import is_detections, locate_output, watching


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
    """

    module: nn.Module
    example: Tensor
    calls: tuple[Call, ...]
    output: object
    path: str | None
    reshape: Reshape | None
    planes: Mapping[str, Plane]
    reached: frozenset[str] | None

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
        ModelError: if the forward fails, or the model cannot be run as a `guest`.
    """
    with guest(module), watching(module):
        try:
            return _run(module, example, output, reshape, backward, graph=True)
        except ModelError as error:
            # What autograd refuses is a RuntimeError; anything else is the model's own failure.
            if not isinstance(error.__cause__, RuntimeError):
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
    size = (int(example.shape[-2]), int(example.shape[-1]))
    planes: dict[str, Plane] = {}
    reached: set[str] = set()

    def look(call: Call, part: str, tensor: Tensor) -> Callable[[Tensor], None] | None:
        layout = read_layout(tensor, size, reshape, None if part else call.module)
        # Windows and regions multiply the batch: such an output is not one plane per image.
        if layout is None or len(tensor) != len(example):
            return None
        means = None
        if layout.kind != "tokens" and tensor.is_floating_point():
            means = layout.spatial(tensor.detach()).mean((2, 3))
        name = LayerName(call.layer.module, call.layer.call, part)
        planes[str(name)] = Plane(name, call.position, layout, means)

        def receive(gradient: Tensor) -> None:
            if bool((layout.spatial(gradient) != 0).any()):
                reached.add(str(name))

        return receive

    def explain(returned: object) -> Tensor | None:
        if not backward or (path is None and is_detections(returned)):
            return None  # a box depends on its level alone; `choose_stages` keeps to the trunk
        explained, _ = locate_output(returned, path)
        mixture = torch.cos(torch.arange(explained.numel(), device=explained.device))
        return (explained.flatten() * mixture).sum()

    seen = trace_forward(module, example, look, explain, graph=graph)
    dependent = frozenset(reached) if seen.differentiated and reached else None
    return Trial(module, example, seen.calls, seen.output, path, reshape, planes, dependent)
