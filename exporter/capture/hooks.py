"""The hooks: keep what named layers return, and begin the graph at the shallowest of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from exporter.containers import rebuild
from exporter.errors import LayerError, choices

_NAME = re.compile(r"(?P<module>.*?)(?:#(?P<call>\d+))?(?P<path>(?:\[[^\[\]]*\])*)", re.DOTALL)


@dataclass(frozen=True)
class Wanted:
    """One layer asked for.

    Attributes:
        name: as asked for, such as ``encoder#2[0]``.
        module: the module's qualified name.
        call: which of its calls, from 1.
        path: which element of what it returns; ``""`` for the tensor, or every one in a container.
    """

    name: str
    module: str
    call: int
    path: str


@dataclass
class Recording:
    """What the hooks keep during a forward.

    Attributes:
        tensors: by name, in the order in which the layers ran; those with a graph are the ones
            to differentiate with respect to.
        asked: the requests that each kept name answers.
    """

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


def find_layers(model: nn.Module, names: Sequence[str]) -> tuple[Wanted, ...]:
    """Resolve layer names: ``layer4``, ``relu#2`` (second call), ``block[0]``, ``block[key]``.

    Args:
        model: whose modules are meant.
        names: each once.

    Returns:
        What is wanted, in the order of ``names``.

    Raises:
        LayerError: if no module has that name, or another module's name is another name for it.
    """
    modules = dict(model.named_modules())
    modules.pop("", None)
    return tuple(_find(model, modules, name) for name in dict.fromkeys(names))


def _find(model: nn.Module, modules: dict[str, nn.Module], name: str) -> Wanted:
    if name in modules:
        return Wanted(name, name, 1, "")
    match = _NAME.fullmatch(name)
    module = match["module"] if match else name
    if match and module in modules:
        call = int(match["call"] or 1)
        if call < 1:
            raise LayerError(
                f"the layer {name!r} counts calls from 1; write {module!r} or '{module}#2'"
            )
        return Wanted(name, module, call, match["path"])
    again = dict(model.named_modules(remove_duplicate=False)).get(module)
    for first, other in modules.items():
        if other is again:
            raise LayerError(
                f"the layer {name!r} is the same module as {first!r}; its calls are"
                f" {first!r}, '{first}#2' and so on"
            )
    raise LayerError(f"the model has no layer {name!r}; {choices(module, modules)}")


@contextmanager
def record_layers(
    model: nn.Module, wanted: Sequence[Wanted], graph: Collection[str]
) -> Iterator[Recording]:
    """Hook the wanted layers; every hook is removed on leaving.

    Args:
        model: in eval mode with frozen parameters (see `guest`).
        wanted: from `find_layers`.
        graph: names of those to differentiate with respect to; the others only keep their values.

    Yields:
        The recording, filled by the model's forward.
    """
    recording = Recording()
    modules = dict(model.named_modules())
    by_module: dict[str, list[Wanted]] = {}
    for layer in wanted:
        by_module.setdefault(layer.module, []).append(layer)
    handles = [
        modules[name].register_forward_hook(_hook(recording, name, layers, graph))
        for name, layers in by_module.items()
    ]
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _hook(recording: Recording, module: str, layers: list[Wanted], graph: Collection[str]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        call = recording.call(module)
        here = [layer for layer in layers if layer.call == call]
        if not here:
            return None
        label = module if call == 1 else f"{module}#{call}"

        def change(path: str, tensor: Tensor) -> Tensor:
            asked = tuple(layer.name for layer in here if layer.path in ("", path))
            if not asked or not (tensor.is_floating_point() or tensor.is_quantized):
                return tensor
            # The exact request before the one for the whole container.
            name = next((layer.name for layer in here if layer.path == path), f"{label}{path}")
            return recording.keep(name, asked, tensor, any(one in graph for one in asked))

        return rebuild(output, change)

    return hook
