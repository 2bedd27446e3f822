"""The user's encoder: a layer's activations become features, as of a sparse autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from exporter.doors import load_function
from exporter.errors import LayerError
from exporter.guard import user_code
from exporter.layers.choice import choose_layers
from exporter.layers.trial import Trial
from exporter.records import FEATURES


class Encoder:
    """A function of the user's from (N, C, H, W) of a layer to features (N, F, H, W).

    Attributes:
        layer: the layer that it reads.
    """

    def __init__(
        self, spec: str, trial: Trial, explained: tuple[str, ...], recorded: tuple[str, ...] = ()
    ) -> None:
        """Find the function and the layer.

        Args:
            spec: ``module:function`` or ``path/file.py:function``; before it ``LAYER=``, where it
                is not the deepest explained layer.
            trial: of the model.
            explained: the explained layers.
            recorded: those whose channels are recorded.

        Raises:
            LayerError: if there is no such layer, or one called as the features are.
            ConfigError: if there is no such function.
        """
        layer, _, function = spec.rpartition("=")
        self._who = f"the encoder {function!r}"
        self._function = load_function(function)
        names = choose_layers(trial, (layer,)).names if layer else explained[-1:]
        if len(names) != 1:
            called = f"{layer!r} are {len(names)} layers" if layer else "no layer is explained"
            raise LayerError(f"{called}, and {self._who} reads one; name it: LAYER={function}")
        if FEATURES in (*explained, *recorded):
            raise LayerError(
                f"the model has a layer {FEATURES!r}, as what {self._who} gives is called; name "
                "other layers with --layer and --activation, such as the last one inside it"
            )
        self.layer = names[0]

    def __call__(self, activation: Tensor) -> Tensor:
        """Return the features.

        Raises:
            LayerError: if the function fails, or gives something else.
        """
        if activation.dtype != torch.float64:
            activation = activation.to(torch.float32)
        with user_code(self._who, error=LayerError):
            features = self._function(activation)
        given = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        images = len(activation)
        if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != images:
            raise LayerError(
                f"{self._who} gave {given} for {tuple(activation.shape)} of {self.layer!r}; let it "
                "give (N, F, H, W), a channel per feature"
            )
        return features.detach()
