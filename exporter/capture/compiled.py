"""The shared pass compiled once, by torch.compile: what layers return without any hook.

The compiled function returns the model's output and what the layers returned. To each layer whose
gradient is wanted it adds a tensor of zeros that it is given: the gradient of a score with respect
to the zeros is the one with respect to the layer's output, and nothing before the shallowest of
them is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.guest import guest
from exporter.capture.hooks import Recording
from exporter.capture.names import find_layer
from exporter.capture.passes import Captured, Score, capture, differentiate, plain
from exporter.capture.precision import precision_of
from exporter.containers import rebuild
from exporter.errors import LayerError
from exporter.guard import is_shortage

BACKEND = "inductor"
"""What torch.compile compiles with; tests take one that needs no compiler."""


class CompiledCapture:
    """`capture` for batches of one size, compiled as it is first called.

    Attributes:
        given_up: whether memory ran out, so that batches are captured without being compiled.
    """

    def __init__(self, images: int) -> None:
        """Take the number of images per batch; a shorter batch is filled up with its last image."""
        self._images = images
        self._seeing: _Seeing | None = None
        self._zeros: dict[str, Tensor] = {}
        self._run: Callable[..., Any] | None = None
        self._layout = torch.contiguous_format
        self.given_up = False

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        layers: Sequence[str],
        score: Score,
        *,
        gradients: bool | Collection[str] = True,
    ) -> Captured:
        """Run the model; the arguments and what is returned are those of `capture`.

        Where memory runs out, this batch and the ones after it are captured as they are without
        being compiled, so that they can be cut into halves.

        Raises:
            LayerError: if a layer is called more than once or gives more than one tensor.
            Exception: what torch.compile raises where it cannot compile the whole model.
        """
        graph = frozenset(layers if gradients is True else gradients or ())
        if self.given_up:
            return capture(model, inputs, layers, score, gradients=gradients)
        with guest(model):
            if self._run is None:
                self._see(model, inputs[:1], layers, graph)
            try:
                return self._capture(model, inputs, layers, score, graph)
            except Exception as error:
                self.given_up = is_shortage(error)
                raise

    def _see(
        self, model: nn.Module, image: Tensor, layers: Sequence[str], graph: Collection[str]
    ) -> None:
        """Learn from one image what the layers give, and prepare the compiled function."""
        twice = [f"{name}#2" for name in layers]
        # Not differentiated: only shapes, types and memory formats are asked for.
        seen = capture(model, image, [*layers, *twice], lambda _output: (), gradients=False)
        for name in layers:
            if name not in seen.activations or f"{name}#2" in seen.activations:
                raise LayerError(
                    f"the layer {name!r} gives several tensors, none, or is called more than once, "
                    "which cannot be captured in a compiled model: leave it out, or --compile"
                )
        for name in graph:
            like = seen.activations[name]
            zeros = like.new_zeros((self._images, *like.shape[1:]))
            self._zeros[name] = zeros.contiguous(memory_format=_layout(like)).requires_grad_()
        self._layout = _layout(image)
        self._seeing = _Seeing(model, layers)
        self._run = torch.compile(self._seeing, backend=BACKEND, fullgraph=True, dynamic=False)

    def _capture(
        self,
        model: nn.Module,
        inputs: Tensor,
        layers: Sequence[str],
        score: Score,
        graph: Collection[str],
    ) -> Captured:
        assert self._seeing is not None
        assert self._run is not None
        number, precision = len(inputs), precision_of(model)
        with (
            precision.autocast(inputs.device),
            self._seeing.everywhere(),
            # A backward per target reads the same graph, so that none may free its buffers.
            torch._functorch.config.patch(donated_buffer=False),
        ):
            output, kept = self._run(_filled(inputs, self._images, self._layout), self._zeros)

        def own(_path: str, tensor: Tensor) -> Tensor:
            whole = tensor.ndim and len(tensor) == self._images and number < self._images
            return tensor[:number] if whole else tensor

        output = rebuild(precision.leave(output), own)
        recording = Recording({name: find_layer(model, name) for name in layers}, frozenset(graph))
        recording.tensors = {name: self._zeros[name] for name in kept if name in graph}
        missing: dict[str, str] = {}
        reached: Mapping[str, Tensor] = {}
        if graph:
            reached = differentiate(recording, list(recording.tensors), score(output), missing)
        return Captured(
            output=rebuild(output, lambda _path, tensor: plain(tensor)),
            activations={name: plain(tensor[:number]) for name, tensor in kept.items()},
            gradients={name: precision.unscaled(g[:, :number]) for name, g in reached.items()},
            missing=missing,
            asked={name: (name,) for name in kept},
        )


class _Seeing(nn.Module):
    """A model that also returns what some of its layers return."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.zeros: Mapping[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self._layers = {
            name: model.get_submodule(find_layer(model, name).module) for name in layers
        }

    def forward(self, inputs: Tensor, zeros: Mapping[str, Tensor]) -> Any:
        """Run the model, without the hooks on itself."""
        self.zeros, self.kept = zeros, {}
        output = self.model.forward(inputs)
        return output, dict(self.kept)

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Look at the layers: each calls its forward through a function of ours meanwhile."""
        with ExitStack() as undo:
            for name, layer in self._layers.items():
                # An own one is not the class's: some libraries wrap the forward like this.
                own = {"forward": layer.forward} if "forward" in vars(layer) else {}
                layer.forward = self._through(name, layer.forward)
                undo.callback(vars(layer).update, own)
                undo.callback(vars(layer).pop, "forward")
            yield

    def _through(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def look(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if name in self.zeros:
                output = output + self.zeros[name]
            self.kept[name] = output
            # What follows may write to it in place.
            return output.clone()

        return look


def _filled(inputs: Tensor, images: int, layout: torch.memory_format) -> Tensor:
    """Return a batch of so many images, the last one repeated, laid out as every other batch."""
    batch = inputs.new_empty((images, *inputs.shape[1:])).contiguous(memory_format=layout)
    batch[: len(inputs)] = inputs
    batch[len(inputs) :] = inputs[-1:]
    return batch


def _layout(values: Tensor) -> torch.memory_format:
    last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
