"""The activations that are maximised: those of a layer's channels, or of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from exporter.capture import find_layer, record_layers
from exporter.errors import LayerError
from exporter.layers.layout import Reshape
from exporter.layers.planes import Planes
from exporter.records import OUTPUT
from exporter.targets import locate_output


class ActivationRecorder:
    """Runs a model and gives the activations of a layer, or of its output, channel by channel."""

    def __init__(
        self,
        module: nn.Module,
        layer: str,
        *,
        output: str | None = None,
        reshape: Reshape | None = None,
    ) -> None:
        """Find the layer.

        Args:
            module: the model, in eval, its parameters frozen (see `exporter.capture.guest`).
            layer: name of the layer, or ``output`` (a layer of that name is ``output#1``).
            output: path of the logits inside the model's output.
            reshape: from the layer's output to (N, C, H, W), where its shape does not tell.

        Raises:
            LayerError: if the layer is unknown.
        """
        self._module = module
        self._layer = layer
        self._path = output
        self._planes = Planes(module, reshape=reshape)
        if layer != OUTPUT:
            find_layer(module, layer)

    def values(self, inputs: Tensor) -> Tensor:
        """Return every channel's activations, (N, K, P): P positions, one for a row of values.

        Raises:
            LayerError: if the layer does not run, or gives no channels per image.
            TargetError: if the model's output is not where it should be.
        """
        raw = self._raw(inputs)
        if raw.ndim == 1 and len(raw) == len(inputs):
            raw = raw[:, None]
        if raw.ndim == 2 and len(raw) == len(inputs):
            return raw[:, :, None]
        return self._planes.read(self._layer, raw, inputs).flatten(2)

    def _raw(self, inputs: Tensor) -> Tensor:
        if self._layer == OUTPUT:
            return locate_output(self._module(inputs), self._path)[0]
        with record_layers(self._module, (self._layer,), {self._layer}) as recording:
            self._module(inputs)
        if len(recording.tensors) != 1:
            many = ", ".join(recording.tensors)
            raise LayerError(
                f"the layer {self._layer!r} gives several tensors; choose one of {many}"
                if many
                else f"the layer {self._layer!r} is never called in a forward pass, or gives no "
                "tensor, so none of its channels can be maximised; see exporter layers"
            )
        return next(iter(recording.tensors.values()))

    def channels(self, inputs: Tensor) -> int:
        """Return how many channels the layer has, and make sure that they see the pixels.

        Raises:
            LayerError: if no gradient flows from them to the inputs, or as `values` does.
        """
        free = inputs.detach().clone().requires_grad_()
        values = self.values(free)
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), [free], allow_unused=True)
        if gradient is None:
            raise LayerError(
                f"no gradient flows from {self._layer!r} to the pixels (the model is quantised, or "
                "cuts it off), so none of its channels can be maximised"
            )
        return values.shape[1]

    def check(self, channels: Sequence[int], count: int) -> None:
        """Raise if there is no such channel.

        Raises:
            LayerError: with the bad number and the valid ones.
        """
        for channel in channels:
            if not 0 <= channel < count:
                what = (
                    "the model has no class"
                    if self._layer == OUTPUT
                    else (f"the layer {self._layer!r} has no channel")
                )
                raise LayerError(f"{what} {channel}; it has {count}, 0 to {count - 1}")
