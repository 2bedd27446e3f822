"""What is recorded of channels, batch by batch: of layers, and of the features of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from exporter.capture import (
    Captured,
    Statistics,
    Strongest,
    all_channels,
    channel_statistics,
    strongest_channels,
)
from exporter.layers import Encoder
from exporter.layers.planes import Planes
from exporter.records import FEATURES

Recorded = Mapping[str, tuple[Statistics, Strongest | None]]


@dataclass(frozen=True)
class Recording:
    """Which layers are recorded, and how much of them.

    Attributes:
        planes: how layers lie in the plane.
        layers: layers whose channels are reduced and whose strongest channels are kept.
        channels: how many of these per image; 0 keeps statistics only.
        stage: a layer all of whose channels are carried; none where empty.
        encoder: from a layer to features, which are recorded as the channels of `FEATURES`.
    """

    planes: Planes
    layers: tuple[str, ...] = ()
    channels: int = 0
    stage: str = ""
    encoder: Encoder | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """The layers that have to be captured."""
        own = (*self.layers, self.stage, self.encoder.layer if self.encoder else "")
        return tuple(name for name in own if name)

    def __call__(
        self, captured: Captured, inputs: Tensor
    ) -> tuple[Recorded, tuple[str, Strongest] | None]:
        """Return what is recorded of a batch, and the layer that is carried whole.

        Raises:
            LayerError: if the encoder fails.
        """
        recorded, stage = {}, None
        wanted = set(self.layers)
        for name, activation in captured.activations.items():
            asked = captured.asked[name]
            encodes = self.encoder is not None and self.encoder.layer in asked
            if wanted.isdisjoint(asked) and self.stage not in asked and not encodes:
                continue
            plane = self.planes.read(name, activation, inputs)
            if not wanted.isdisjoint(asked):
                recorded[name] = self._record(plane)
            if self.stage and self.stage in asked:
                stage = stage or (self.stage, all_channels(plane))
            if self.encoder is not None and encodes:
                recorded[FEATURES] = self._record(self.encoder(plane))
        return recorded, stage

    def _record(self, activation: Tensor) -> tuple[Statistics, Strongest | None]:
        statistics, kept = channel_statistics(activation), self.channels
        return statistics, strongest_channels(activation, statistics.mean, kept) if kept else None
