"""One trial forward: which modules are called, in which order, and what each gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.guest import refuse_scripted
from exporter.errors import ExporterError, ModelError, one_line


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module, as its forward returned.

    Attributes:
        name: qualified name; the second call of a module is ``name#2``.
        module: the module.
        start: how many calls had returned when this one began; those at or after it and before
            this call are inside it.
        shapes: shape with the batch of each tensor that it gave, by suffix: ``""`` for the output
            itself, ``[0]`` or ``[key]`` for a part of a tuple or mapping.
    """

    name: str
    module: nn.Module
    start: int
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one forward did.

    Attributes:
        calls: every call, in the order in which they returned.
        output: what the model gave.
        size: (height, width) of the example.
        batch: number of images in the example.
    """

    calls: tuple[Call, ...]
    output: Any
    size: tuple[int, int]
    batch: int


@contextmanager
def visit(module: nn.Module, *, graph: bool = False) -> Iterator[None]:
    """Keep a model in eval and without gradients, and leave it as it was.

    Training flags are set one by one, not through ``train()``, which some models override with side
    effects; the random state is restored, also on the model's CUDA device. With ``graph`` autograd
    records, whatever the caller has switched off.
    """
    flags = [(child, child.training) for child in module.modules()]
    parameter = next(module.parameters(), None)
    on_cuda = parameter is not None and parameter.is_cuda
    devices = [parameter.device] if parameter is not None and on_cuda else []
    try:
        for child, _ in flags:
            child.training = False
        with (
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(torch.is_inference_mode_enabled() and not graph),
            torch.set_grad_enabled(graph),
        ):
            yield
    finally:
        for child, flag in flags:
            child.training = flag


def run_trial(
    module: nn.Module,
    example: Tensor,
    watch: Callable[[str, nn.Module, tuple[Any, ...], Any], Any] | None = None,
    *,
    graph: bool = False,
) -> Trial:
    """Run one forward under ``visit`` and note every call of every submodule.

    Args:
        module: the model.
        example: (N, C, H, W) on the model's device; one image is enough.
        watch: called with name, module, positional inputs and output of each call; what it returns
            takes the output's place, unless it is None.
        graph: whether autograd records the forward (see `visit`).

    Raises:
        ModelError: if the forward fails, with what it said, or the model is TorchScript.
    """
    refuse_scripted(module)
    calls: list[Call] = []
    open_calls: list[int] = []
    counts: dict[str, int] = {}
    handles: list[Any] = []

    def before(_module: nn.Module, _inputs: Any) -> None:
        open_calls.append(len(calls))

    def after(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(child: nn.Module, inputs: Any, output: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            numbered = name if counts[name] == 1 else f"{name}#{counts[name]}"
            shapes = {suffix: tuple(part.shape) for suffix, part in parts(output)}
            calls.append(Call(numbered, child, open_calls.pop(), shapes))
            return None if watch is None else watch(numbered, child, inputs, output)

        return hook

    try:
        for name, child in module.named_modules():
            if name:
                handles.append(child.register_forward_pre_hook(before, prepend=True))
                handles.append(child.register_forward_hook(after(name)))
        with visit(module, graph=graph):
            output = module(example)
    except ExporterError:
        raise
    except Exception as error:
        shape = " × ".join(str(side) for side in example.shape)
        raise ModelError(
            f"a trial forward of {type(module).__name__} on an input of {shape} failed: "
            f"{one_line(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    height, width = (int(side) for side in example.shape[-2:])
    return Trial(tuple(calls), output, (height, width), len(example))


def parts(value: Any, suffix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of a module's output with its suffix, ``""``, ``[0]`` or ``[key]``."""
    if isinstance(value, Tensor):
        yield suffix, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from parts(part, f"{suffix}[{key}]")
    elif isinstance(value, (tuple, list)):
        for position, part in enumerate(value):
            yield from parts(part, f"{suffix}[{position}]")
