"""The one trial that planning asks: what a model does with one image, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import (
    Changes,
    LayerName,
    guest,
    in_full_float32,
    on_gradient,
    watch_changes,
)
from exporter.containers import rebuild
from exporter.errors import ExporterError, ModelError
from exporter.guard import AGAIN, backward, is_shortage, user_code
from exporter.layers.askew import Steps, doubted, has_quarters, lies_askew, steps_to
from exporter.layers.calls import Call, watching_calls
from exporter.layers.layout import Layout, Reshape, read_layout
from exporter.layers.settling import Seen, settled
from exporter.targets import all_shares, is_detections, last_function, locate_output, watching

_SEEN = 8
"""Calls of the first layer that are held against the image."""
_SHORT = "free memory, or explain on another device"
_DEEP = "it has 3-D convolutions, as models of videos and volumes have; give a model of 2-D images"


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
        return self.layout.area

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
        silent: names of those whose gradient is zero everywhere, which it may be for this image
            only.
        changes: what the forward changed besides.
        ends: the last function of the model, where a graph tells it (see `last_function`).
        untold: why no moved patch could show how outputs lie; empty where it could.
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
    ends: str = ""
    untold: str = ""
    silent: frozenset[str] = frozenset()

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
    graph: bool = True,
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
        graph: whether it is recorded what carries gradients, as a backward needs.

    Raises:
        ModelError: if the forward or the backward fails, memory runs out, or the model cannot
            be run as a `guest`.
    """
    with guest(module), watching(module), in_full_float32():
        try:
            return _run(module, example, output, reshape, backward, graph=graph)
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
    seen: dict[str, Seen] = {}
    touched: dict[str, Tensor] = {}
    first: list[tuple[nn.Module, Tensor]] = []
    size = (int(example.shape[-2]), int(example.shape[-1]))

    def look(call: Call, part: str, tensor: Tensor) -> Tensor:
        call.shapes[part] = tuple(tensor.shape)
        if tensor.is_floating_point() or tensor.is_quantized:
            call.carries[part] = tensor.requires_grad
        own = None if part else call.module
        layout = read_layout(tensor, len(example), size, reshape, own)
        if layout is not None:
            seen[str(call.part(part))] = Seen(call, part, layout, _means(tensor, layout))
        if not tensor.requires_grad:
            return tensor
        # Of the first layer every call: a model may see its image and, again, a mirrored one.
        if layout and has_quarters(layout) and all(call.module is other for other, _ in first):
            first.append((call.module, layout.spatial(tensor)))
        # A clone, as in a capture: a module may hand on an inner one's tensor that nothing reads
        # from there, and the inner one's gradient is not its own.
        copy = tensor.clone()
        if layout is not None:
            on_gradient(copy, partial(receive, str(call.part(part)), layout))
        return copy

    def receive(name: str, layout: Layout, gradient: Tensor) -> None:
        touched[name] = layout.touched(gradient)

    leaf = example.clone() if example.is_inference() else example.detach()
    with watching_calls(module, look) as (calls, end):
        name = type(module).__name__
        given = f"an input of {' × '.join(map(str, example.shape))}"
        deep = any(isinstance(part, nn.Conv3d) for part in module.modules())
        advice = _DEEP if deep else AGAIN
        with (
            user_code(f"a trial forward of {name}", given, advice=advice, memory=_SHORT),
            torch.set_grad_enabled(graph),
            watch_changes(module) as changes,
        ):
            output = module(leaf.requires_grad_() if graph else leaf)
        end()
        ends = ""
        with (
            user_code(f"reading the output of {name}", given, advice=AGAIN, memory=_SHORT),
            suppress(ExporterError),
        ):
            ends = last_function(locate_output(output, path)[0])
        with user_code(f"a trial backward of {name}", given, advice=AGAIN, memory=_SHORT):
            askew = any(lies_askew(plane, leaf) for _, plane in first[:_SEEN])
            told = graph and backward and _differentiated(output, path, leaf)
    shown = rebuild(output, lambda _path, own: own.detach().requires_grad_(own.requires_grad))
    if askew:  # no type shows where a plane lies
        seen = {name: replace(each, layout=doubted(each.layout)) for name, each in seen.items()}
    steps = Steps() if askew else steps_to(output)
    layouts, untold = settled(module, example, seen, () if askew else calls, steps)
    planes = {
        name: Plane(
            each.call.part(each.part), each.call.position, layout, each.means.get(layout.kind)
        )
        for name, layout in layouts.items()
        for each in (seen[name],)
    }
    reached = {name for name, plane in planes.items() if plane.layout.reached(touched.get(name))}
    known = frozenset(reached) if told and reached else None
    came = planes.keys() & touched.keys() - reached if known else set[str]()
    silent = frozenset(name for name in came if not touched[name].any())
    called = tuple(calls)
    return Trial(
        module, example, called, shown, path, reshape, planes, known, changes, ends, untold, silent
    )


def _means(tensor: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Return (N, C), over rows and columns, for each way in which the layout may be settled."""
    if layout.kind == "tokens" or not tensor.is_floating_point():
        return {}
    values = tensor.detach()
    if layout.kind == "given":
        return {"given": layout.spatial(values).mean((2, 3))}
    return {"nchw": values.mean((2, 3)), "nhwc": values.mean((1, 2))}


def _differentiated(output: Any, path: str | None, leaf: Tensor) -> bool:
    """Run a backward of all outputs, and say whether there was one: quantised modules have none."""
    boxes = path is None and is_detections(output)
    try:
        explained = all_shares(output) if boxes else locate_output(output, path)[0]
        if explained is None:
            return False  # a box depends on its level alone; `choose_stages` keeps to the trunk
        mixture = torch.cos(torch.arange(explained.numel(), device=explained.device))
        with backward():
            torch.autograd.grad((explained.flatten() * mixture).sum(), leaf)
    except ExporterError:
        return False
    return True
