"""The hooks: keep what named layers return, and begin the graph at the shallowest of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from exporter.capture.names import LayerName, find_layer
from exporter.containers import rebuild

After = Callable[[nn.Module, Any, Any], Any]
"""Given a module, its positional inputs and its output; what it returns, unless None, replaces the
output."""
Before = Callable[[nn.Module, Any], None]
"""Given a module and its positional inputs."""


@contextmanager
def hooked(
    after: Iterable[tuple[nn.Module, After]], before: Iterable[tuple[nn.Module, Before]] = ()
) -> Iterator[None]:
    """Call functions around the forwards of modules; every hook is removed on leaving.

    Args:
        after: modules, and what is called when one returns.
        before: modules, and what is called when one begins, ahead of the user's own hooks.
    """
    handles: list[Any] = []
    try:
        for module, begin in before:
            handles.append(module.register_forward_pre_hook(begin, prepend=True))
        for module, end in after:
            handles.append(module.register_forward_hook(end))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Recording:
    """What the hooks keep during a forward.

    Attributes:
        wanted: the layers asked for, by the names they were asked for by.
        tensors: by name, in the order in which the layers ran; those with a graph are the ones
            to differentiate with respect to.
        asked: the requests that each kept name answers.
    """

    wanted: Mapping[str, LayerName]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    asked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _calls: dict[str, int] = field(default_factory=dict)
    _replaying: bool = False

    @property
    def changed(self) -> tuple[str, ...]:
        """Names whose tensor was later written to in place: no longer what the layer returned."""
        return tuple(
            name
            for name, version in self._versions.items()
            if self.tensors[name]._version != version
        )

    def forget(self, name: str) -> None:
        """Drop a kept tensor."""
        del self.tensors[name], self._versions[name]

    def replay(self) -> None:
        """Expect modules to be called again, by a checkpoint's recomputation: keep nothing new."""
        self._replaying = True
        self._calls.clear()

    def call(self, module: str) -> int:
        """Count one call of a module and return its number, from 1."""
        self._calls[module] = self._calls.get(module, 0) + 1
        return self._calls[module]

    def calls(self, module: str) -> int:
        """Return how often a module has been called."""
        return self._calls.get(module, 0)

    def keep(self, name: str, asked: tuple[str, ...], tensor: Tensor, graph: bool) -> Tensor:
        """Keep a layer's output and return what the rest of the model is given instead.

        That is a clone: an in-place operation that follows would overwrite the output, and autograd
        would refuse it on a leaf. Values and gradients are those of the model without hooks.
        """
        if tensor.is_quantized:
            # Levels of a quantised module, as the numbers they stand for; no gradient flows there.
            kept = tensor.dequantize()
        elif not graph or tensor.is_inference():
            kept = tensor.detach()
        else:
            # No parameter requires grad, so without this nothing is recorded: the graph begins.
            kept = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
            tensor = kept
        if not self._replaying:
            self.tensors[name] = kept
            self.asked[name] = asked
            if not kept.is_inference():
                self._versions[name] = kept._version
        return tensor.clone()


@contextmanager
def record_layers(model: nn.Module, wanted: Sequence[str], graph: Set[str]) -> Iterator[Recording]:
    """Hook the wanted layers; every hook is removed on leaving.

    Args:
        model: in eval mode with frozen parameters (see `guest`).
        wanted: names of layers.
        graph: names of those to differentiate with respect to; the others only keep their values.

    Yields:
        The recording, filled by the model's forward.

    Raises:
        LayerError: if a name is no layer of the model.
    """
    recording = Recording({text: find_layer(model, text) for text in wanted})
    modules = dict(model.named_modules())
    by_module: dict[str, dict[str, LayerName]] = {}
    for text, name in recording.wanted.items():
        by_module.setdefault(name.module, {})[text] = name
    after = [
        (modules[module], _keep(recording, module, layers, graph))
        for module, layers in by_module.items()
    ]
    with hooked(after):
        yield recording


def _keep(
    recording: Recording, module: str, layers: dict[str, LayerName], graph: Set[str]
) -> After:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        call = recording.call(module)
        here = {text: name for text, name in layers.items() if name.call == call}
        if not here:
            return None

        def change(path: str, tensor: Tensor) -> Tensor:
            asked = tuple(text for text, name in here.items() if name.path in ("", path))
            if not asked or not (tensor.is_floating_point() or tensor.is_quantized):
                return tensor
            # The exact request before the one for the whole container.
            exact = (text for text, name in here.items() if name.path == path)
            name = next(exact, str(LayerName(module, call, path)))
            return recording.keep(name, asked, tensor, not graph.isdisjoint(asked))

        return rebuild(output, change)

    return hook
