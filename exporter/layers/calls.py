"""Every call of a model's modules during a forward, and what each returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from exporter.capture import After, LayerName, hooked, named_layers
from exporter.containers import rebuild


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module, as its forward returned.

    Attributes:
        layer: the module's name and the number of the call.
        module: the module.
        position: its number among the calls.
        start: how many calls had returned when this one began; those at or after it and before
            this call are inside it.
        taken: shape with the batch of its first argument, where that is a tensor.
        shapes: shape with the batch of each tensor that it gave, by path: ``""`` for the output
            itself, ``[0]`` or ``[key]`` for a part of a container.
        carries: by path of each floating-point one, whether a gradient flows from it to the input.
    """

    layer: LayerName
    module: nn.Module
    position: int
    start: int
    taken: tuple[int, ...] | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    carries: dict[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The module's name; of its second call ``name#2``."""
        return self.layer.numbered

    def part(self, path: str) -> LayerName:
        """Return the name that a capture has for a part of what it returned."""
        return LayerName(self.layer.module, self.layer.call, path)


@contextmanager
def watching_calls(
    module: nn.Module, look: Callable[[Call, str, Tensor], Tensor]
) -> Iterator[tuple[list[Call], Callable[[], None]]]:
    """Note every call of a model's modules; hooks are removed on leaving.

    ``look`` is given a call, the path of a tensor in what it returned, and the tensor; what it
    returns takes its place.

    Yields:
        The calls in the order in which they return, and what ends the noting: a checkpointed block
        runs again in a backward.
    """
    calls: list[Call] = []
    began: list[tuple[int, Any]] = []
    counts: Counter[str] = Counter()
    over: list[bool] = []

    def before(_module: nn.Module, inputs: Any) -> None:
        first = inputs[0] if isinstance(inputs, tuple) and inputs else None
        began.append((len(calls), tuple(first.shape) if isinstance(first, Tensor) else None))

    def after(name: str) -> After:
        def hook(child: nn.Module, _inputs: Any, output: Any) -> Any:
            counts[name] += 1
            start, taken = began.pop()
            if over:
                return None
            call = Call(LayerName(name, counts[name]), child, len(calls), start, taken)
            calls.append(call)
            return rebuild(output, partial(look, call))

        return hook

    layers = named_layers(module)
    afterwards = [(child, after(name)) for name, child in layers.items()]
    with hooked(afterwards, [(child, before) for child in layers.values()]):
        yield calls, lambda: over.append(True)
