"""The hooks: keep what named layers return, and begin the graph at the shallowest of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.names import LayerName, find_layer, named_layers
from exporter.containers import rebuild

After = Callable[[nn.Module, Any, Any], Any]
"""Given a module, its positional inputs and its output; what it returns, unless None, replaces the
output."""
Before = Callable[[nn.Module, Any], Any]
"""Given a module and its positional inputs; what it returns, unless None, replaces them."""


@contextmanager
def hooked(
    after: Iterable[tuple[nn.Module, After]],
    before: Iterable[tuple[nn.Module, Before]] = (),
    *,
    always: bool = False,
) -> Iterator[None]:
    """Call functions around the forwards of modules; every hook is removed on leaving.

    Args:
        after: modules, and what is called when one returns.
        before: modules, and what is called when one begins, ahead of the user's own hooks.
        always: whether ``after`` is called where a forward fails, too, with the output None.
    """
    with ExitStack() as undo:
        for module, begin in before:
            undo.callback(module.register_forward_pre_hook(begin, prepend=True).remove)
        for module, end in after:
            undo.callback(module.register_forward_hook(end, always_call=always).remove)
        yield


def on_gradient(tensor: Tensor, receive: Callable[[Tensor], None]) -> None:
    """Call a function with a tensor's gradient as a backward reaches it.

    A hook, not a kept gradient: those of all layers together would not fit into memory. Where a
    backward gives none (a quantised layer, a function of the user's own) it is not called.
    """

    def hook(gradient: Tensor | None) -> None:
        if gradient is not None:
            receive(gradient)

    tensor.register_hook(hook)  # type: ignore[no-untyped-call]


@dataclass
class Recording:
    """What the hooks keep during a forward.

    Attributes:
        wanted: the layers asked for, by the names they were asked for by.
        graph: names of those to differentiate with respect to.
        tensors: by name, in the order in which the layers ran; those with a graph are the ones
            to differentiate with respect to.
        asked: the requests that each kept name answers.
        calls: how often each module has been called.
        silenced: names of those whose gradient is wanted and that ran while nothing was recorded.
        replaying: whether modules are called again by a checkpoint's recomputation, so that nothing
            new is kept.
    """

    wanted: Mapping[str, LayerName]
    graph: Set[str]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    asked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    silenced: set[str] = field(default_factory=set)
    replaying: bool = False
    _versions: dict[str, int] = field(default_factory=dict)

    def forget_changed(self) -> list[str]:
        """Drop tensors that were written to in place: no longer what the layers returned."""
        versions = self._versions.items()
        names = [name for name, version in versions if self.tensors[name]._version != version]
        for name in names:
            del self.tensors[name]
        return names

    def replay(self) -> None:
        """Expect modules to be called again, from the first call on."""
        self.replaying = True
        self.calls.clear()

    def returned(self, module: str, output: Any) -> Any:
        """Keep what is wanted of what a module returned, and return what takes its place."""
        self.calls[module] += 1
        call = self.calls[module]
        here = {
            text: name
            for text, name in self.wanted.items()
            if name.module == module and name.call == call
        }

        def change(path: str, tensor: Tensor) -> Tensor:
            asked = tuple(text for text, name in here.items() if name.path in ("", path))
            if not asked or not (tensor.is_floating_point() or tensor.is_quantized):
                return tensor
            # The exact request before the one for the whole container.
            exact = (text for text, name in here.items() if name.path == path)
            return self._keep(next(exact, str(LayerName(module, call, path))), asked, tensor)

        return rebuild(output, change) if here else None

    def _keep(self, name: str, asked: tuple[str, ...], tensor: Tensor) -> Tensor:
        """Keep a layer's output and return what the rest of the model is given instead.

        That is a clone: an in-place operation that follows would overwrite the output, and autograd
        would refuse it on a leaf. Values and gradients are those of the model without hooks.
        """
        if tensor.is_quantized:
            # Levels of a quantised module, as the numbers they stand for; no gradient flows there.
            kept = tensor.dequantize()
        elif self.graph.isdisjoint(asked) or tensor.is_inference():
            kept = tensor.detach()
        else:
            # No parameter requires grad, so without this nothing is recorded: the graph begins.
            kept = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
            tensor = kept
            if not torch.is_grad_enabled():
                self.silenced.add(name)
        if not self.replaying:
            self.tensors[name] = kept
            self.asked[name] = asked
            if not kept.is_inference():
                self._versions[name] = kept._version
        return tensor.clone()


@contextmanager
def record_layers(model: nn.Module, wanted: Sequence[str], graph: Set[str]) -> Iterator[Recording]:
    """Hook the wanted layers; every hook is removed on leaving.

    Those of ``graph`` are differentiated with respect to; the others only keep their values.

    Yields:
        The recording, filled by the model's forward.

    Raises:
        LayerError: if a name is no layer of the model.
    """
    modules = named_layers(model)
    recording = Recording({text: find_layer(model, text, modules) for text in wanted}, graph)

    def keep(name: str) -> After:
        return lambda _module, _inputs, output: recording.returned(name, output)

    names = dict.fromkeys(name.module for name in recording.wanted.values())
    with hooked([(modules[name], keep(name)) for name in names]):
        yield recording
