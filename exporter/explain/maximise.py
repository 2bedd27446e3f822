"""Activation maximisation: pictures, made from noise, that excite chosen channels most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.capture import guest, relu_rule
from exporter.capture.hooks import Wanted, find_layers
from exporter.errors import LayerError
from exporter.explain.layers import View, as_grid

TOGETHER = 8
"""Pictures that are made at the same time."""


@dataclass(frozen=True)
class Maximised:
    """Pictures that excite channels, one each.

    Attributes:
        layer: the layer.
        channels: the channels, K of them.
        pictures: uint8 (K, size, size, C), RGB for three channels.
        before: float64 (K,), what the channel says to the noise it began with.
        after: float64 (K,), what it says to the picture.
    """

    layer: str
    channels: tuple[int, ...]
    pictures: NDArray[np.uint8]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def maximise(
    module: nn.Module,
    layer: str,
    channels: Sequence[int],
    *,
    steps: int = 128,
    size: int = 224,
    seed: int = 0,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    rate: float = 0.05,
) -> Maximised:
    """Make a picture for each channel that maximises its mean activation over the layer's places.

    A picture is the sigmoid of an inverse Fourier transform; its spectrum, divided by the frequency
    so that all frequencies are learnt alike, is what Adam changes. Before each step the picture is
    shifted at random by up to a sixteenth of its size, around its edges (it is periodic). In the
    first eighth of the steps a closed ReLU lets positive gradients through (the deconvnet rule), so
    that a channel which the noise leaves silent is found at all. Source: Olah, Mordvintsev,
    Schubert: Feature Visualization, Distill 2017.

    Every channel's picture is made by itself: it is the same whichever channels it is made with. On
    one machine the same seed gives the same pictures.

    Args:
        module: the model, on its device; it is left as it was.
        layer: a layer with planes of channels, or with a row of values an image (then a channel is
            a class).
        channels: numbers of channels or classes.
        steps: steps of Adam.
        size: rows and columns of the pictures, in pixels.
        seed: of the noise and the shifts.
        mean: a value a channel of the input, in [0, 1] units, that the model's input is less.
        std: what it is then divided by.
        rate: Adam's step size.

    Returns:
        The pictures and what the channels say to them.

    Raises:
        LayerError: if the layer is unknown or never runs, has no channels, or not these.
    """
    (wanted,) = find_layers(module, (layer,))
    where = next((one for one in module.parameters() if one.is_floating_point()), torch.empty(0))
    parts = []
    with guest(module):
        for start in range(0, len(channels), TOGETHER):
            some = list(channels[start : start + TOGETHER])
            maker = _Maker(module, wanted, some, size=size, seed=seed, where=where)
            parts.append(maker.make(steps, rate, mean, std))
    pictures, before, after = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return Maximised(layer, tuple(channels), pictures, before, after)


class _Maker:
    """Makes a few pictures together."""

    def __init__(
        self,
        module: nn.Module,
        wanted: Wanted,
        channels: Sequence[int],
        *,
        size: int,
        seed: int,
        where: Tensor,
    ) -> None:
        self._module = module
        self._name = wanted.module
        self._call = wanted.call
        self._layer = wanted.name
        self._channels = channels
        self._size = size
        self._seed = seed
        self._where = where

    def make(
        self, steps: int, rate: float, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures uint8 (K, H, W, C), and the objectives before and after, on the host."""
        spectrum = self._noise(len(mean)).requires_grad_()
        weigh = _weights(self._size).to(self._where)
        centre = torch.tensor(mean).to(self._where)[:, None, None]
        spread = torch.tensor(std).to(self._where)[:, None, None]
        optimiser = torch.optim.Adam([spectrum], lr=rate)
        shifts = self._shifts(steps)

        def picture() -> Tensor:
            waves = torch.view_as_complex(spectrum * weigh)
            made: Tensor = torch.fft.irfft2(waves, s=(self._size, self._size), norm="ortho")
            return made.sigmoid()

        def says(image: Tensor) -> Tensor:
            return self._objective((image - centre) / spread)

        with torch.no_grad():
            before = says(picture())
        for step, (down, right) in enumerate(shifts):
            rule: AbstractContextManager[None] = nullcontext()
            if step < steps // 8:
                rule = relu_rule("deconvnet")
            with rule:
                gain = says(picture().roll((down, right), (2, 3))).sum()
                # Of the gain, not of a loss: the rule lets positive gradients through.
                (uphill,) = torch.autograd.grad(gain, [spectrum])
                spectrum.grad = -uphill
            optimiser.step()
        with torch.no_grad():
            shown = (picture() * 255).round()
            after = says(shown / 255)
        pixels = shown.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return pixels.cpu(), before.double().cpu(), after.double().cpu()

    def _noise(self, colours: int) -> Tensor:
        rows = []
        for channel in self._channels:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + channel)
            shape = (colours, self._size, self._size // 2 + 1, 2)
            rows.append(torch.randn(shape, generator=generator, dtype=torch.float64))
        return (torch.stack(rows) * 0.01).to(self._where)

    def _shifts(self, steps: int) -> list[list[int]]:
        most = max(1, self._size // 16)
        generator = torch.Generator().manual_seed(self._seed)
        found: list[list[int]] = torch.randint(
            -most, most + 1, (steps, 2), generator=generator
        ).tolist()
        return found

    def _objective(self, inputs: Tensor) -> Tensor:
        """Return the mean activation (K,) of picture k's own channel."""
        kept: list[Tensor] = []
        handle = dict(self._module.named_modules())[self._name].register_forward_hook(
            self._keeping(kept)
        )
        try:
            self._module(inputs)
        finally:
            handle.remove()
        if not kept or kept[0].shape[0] != len(inputs):
            raise LayerError(
                f"the layer {self._layer!r} gives no tensor a picture, so none of its channels can"
                " be maximised; choose a layer that gives (C, H, W), tokens or a row of values"
            )
        raw = kept[0]
        values = raw if raw.ndim == 2 else as_grid(raw, self._layer, View.of(inputs)).mean((2, 3))
        for channel in self._channels:
            if not 0 <= channel < values.shape[1]:
                raise LayerError(
                    f"the layer {self._layer!r} has no channel {channel}; it has"
                    f" {values.shape[1]}, 0 to {values.shape[1] - 1}"
                )
        pairs = zip(values, self._channels, strict=True)
        return torch.stack([row[channel] for row, channel in pairs])

    def _keeping(self, kept: list[Tensor]) -> Callable[..., None]:
        calls = 0

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == self._call and isinstance(output, Tensor):
                # A clone: an operation in place may follow.
                kept.append(output.clone())

        return keep


def _weights(size: int) -> Tensor:
    """Return what the spectrum is multiplied with, (size, size // 2 + 1, 1): 1 / frequency.

    The transform is orthonormal, so that pictures of every size begin alike.
    """
    rows = torch.fft.fftfreq(size, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(size, dtype=torch.float64)[None, :]
    frequency = (rows.square() + columns.square()).sqrt().clamp_min(1 / size)
    weights: Tensor = (1 / frequency / 4)[..., None]
    return weights
