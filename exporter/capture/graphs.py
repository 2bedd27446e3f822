"""The graph that autograd recorded: its steps, and those that can be differentiated only once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# What every backward is that `once_differentiable` decorates.
_ONCE = once_differentiable(lambda _: None).__code__


def graph_nodes(outputs: Iterable[Tensor]) -> Iterator[Any]:
    """Give every step of the graph behind some tensors, once, the last ones first."""
    waiting: list[Any] = [output.grad_fn for output in outputs]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
            yield node


@contextmanager
def derived_once(outputs: Iterable[Tensor]) -> Iterator[set[str]]:
    """Look for functions of the user's own through which no second derivative goes.

    Autograd itself is silent about them where the gradient that they are given is a constant: what
    they add to the second derivative is then missing.

    Yields:
        The names of such functions that a backward inside the block, with ``create_graph``, has
        gone through: those that `once_differentiable` decorates, and those that read a tensor with
        a graph and give a gradient without one.
    """
    names: set[str] = set()

    def watch(node: Any, function: Any) -> Any:
        def look(given: tuple[Tensor | None, ...], _: object) -> None:
            constant = not any(each is not None and each.requires_grad for each in given)
            read = any(each is not None and each.requires_grad for each in node.saved_tensors)
            if (constant and read) or _is_once(function):
                names.add(function.__qualname__.rpartition(".")[2])

        return node.register_hook(look)

    with ExitStack() as undo:
        for node in graph_nodes(outputs):
            function = getattr(type(node), "_forward_cls", None)
            if function is not None:
                undo.callback(watch(node, function).remove)
        yield names


def _is_once(function: type[torch.autograd.Function]) -> bool:
    return any(
        getattr(getattr(function, name), "__code__", None) is _ONCE for name in ("backward", "vjp")
    )
