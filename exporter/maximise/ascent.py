"""Activation maximisation: pictures, made from noise, that excite chosen channels most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.capture import find_layer, guest, record_layers, relu_rule
from exporter.errors import ConfigError, LayerError, choices
from exporter.layers.layout import Reshape
from exporter.layers.planes import Planes
from exporter.maximise.parametrisation import PRIORS, Parametrisation, Size
from exporter.memory import in_halves
from exporter.records import OUTPUT
from exporter.targets import locate_output

TOGETHER = 8
"""Most pictures that are made at the same time, and that are stored in one file."""


@dataclass(frozen=True)
class AscentSettings:
    """How pictures are made.

    Attributes:
        prior: ``fourier``, ``total-variation`` or ``none`` (see `Parametrisation`).
        steps: steps of Adam.
        size: rows and columns in pixels; None takes those of the model's view.
        jitter: most pixels a picture is shifted by before a step, around its edges; None shifts by
            up to half its size, so anywhere.
        zoom: largest share by which it is made larger or smaller before a step.
        weight: of the total variation, which only that prior has.
        rate: Adam's step size.
        seed: of the noise, the shifts and the zooms.
    """

    prior: str = "fourier"
    steps: int = 128
    size: int | None = None
    jitter: int | None = None
    zoom: float = 0.15
    weight: float = 4.0
    rate: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a prior that there is not, with the names of those that there are."""
        if self.prior not in PRIORS:
            raise ConfigError(f"no prior is called {self.prior!r}; {choices(self.prior, PRIORS)}")


@dataclass(frozen=True)
class Maximised:
    """Pictures that excite channels, one each.

    Attributes:
        layer: the layer, or ``output``.
        channels: the channels or classes, K of them.
        pictures: uint8 (K, H, W, C), RGB for three channels.
        before: float64 (K,), the channel's mean over its positions, of the noise it began with.
        after: float64 (K,), the same of the picture.
        peak: float64 (K,), the channel's largest value, of the picture.
    """

    layer: str
    channels: tuple[int, ...]
    pictures: NDArray[np.uint8] = field(repr=False)
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    peak: NDArray[np.float64]


def maximise(
    module: nn.Module,
    layer: str,
    channels: Sequence[int],
    *,
    settings: AscentSettings | None = None,
    together: int = TOGETHER,
    view: tuple[int, int] = (224, 224),
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    output: str | None = None,
    reshape: Reshape | None = None,
) -> Maximised:
    """Make a picture for each channel that maximises its mean activation over its positions.

    What is learnt, and how it is kept from being noise, is the prior's: see `Parametrisation`.
    Before each step the picture is shifted and zoomed at random, so that no detail counts which
    only one position of the model's grid sees. A step goes up the gradient of the activation at the
    picture, divided by its own root mean square (a model whose activations are a thousandth as
    large gives the same pictures), less that of the prior's cost. While a channel says nothing at
    all and no gradient reaches its picture, closed ReLUs let positive gradients through (the
    deconvnet rule), so that a channel is found that noise leaves silent. Source: Olah, Mordvintsev,
    Schubert: Feature Visualization, Distill 2017.

    Every channel's picture is made by itself, whichever others are made with it, up to the rounding
    of a batch. On one machine the same channels and settings give the same bytes on the CPU.

    Args:
        module: the model, on its device; it is left as it was.
        layer: a layer with planes of channels, or with a row of values per image; ``output`` is the
            model's own output, and its channels are classes.
        channels: numbers of channels or classes.
        settings: how; None takes the defaults.
        together: most pictures that are made at the same time.
        view: rows and columns of the pictures where the settings have no size.
        mean: of each channel of the input, in [0, 1] units, which is subtracted from it.
        std: what it is then divided by.
        output: path of the logits inside the model's output, for ``output``.
        reshape: from the layer's output to (N, C, H, W), where its shape does not tell.

    Returns:
        The pictures and what the channels say to them.

    Raises:
        LayerError: if the layer is unknown or never runs, has no channels, or not these.
    """
    settings = settings or AscentSettings()
    channels = [int(channel) for channel in channels]
    if not channels or together < 1:
        raise LayerError(
            f"{len(channels)} channels of {layer!r}, {together} at a time, make no picture; name "
            "at least one channel, and make at least one picture at a time"
        )
    height, width = (settings.size, settings.size) if settings.size else view
    floating = (p for p in module.parameters() if p.is_floating_point())
    like = next(floating, torch.empty(0)).new_empty(0)
    # Half precision has too few digits for small steps, and no Fourier transform.
    fine = like if like.dtype == torch.float64 else like.float()
    with guest(module):
        centre, spread = (torch.tensor(part).to(fine)[:, None, None] for part in (mean, std))
        ascent = _Ascent(
            _values_of(module, layer, output, reshape),
            layer,
            settings,
            Size(len(mean), height, width),
            fine,
            centre,
            spread,
            like.dtype,
        )
        parts = [
            part
            for start in range(0, len(channels), together)
            for part in in_halves(
                lambda some: ascent.run(channels[some]), min(together, len(channels) - start), start
            )
        ]
    pictures, before, after, peak = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Maximised(layer, tuple(channels), pictures, before, after, peak)


def check_channels(layer: str, channels: Sequence[int], count: int) -> None:
    """Raise if a layer (or the output) with ``count`` channels has not one of these.

    Raises:
        LayerError: with the bad number and the valid ones.
    """
    for channel in channels:
        if not 0 <= channel < count:
            what = f"the layer {layer!r} has no channel"
            what = "the model has no class" if layer == OUTPUT else what
            raise LayerError(f"{what} {channel}; it has {count}, 0 to {count - 1}")


def _values_of(
    module: nn.Module, layer: str, output: str | None, reshape: Reshape | None
) -> Callable[[Tensor], Tensor]:
    """Return what runs a model and gives a layer's activations, (N, K, P) at P positions."""
    planes = Planes(module, reshape=reshape)
    if layer != OUTPUT:
        find_layer(module, layer)

    def raw(inputs: Tensor) -> Tensor:
        if layer == OUTPUT:
            return locate_output(module(inputs), output)[0]
        with record_layers(module, (layer,), {layer}) as recording:
            module(inputs)
        if len(recording.tensors) == 1:
            return next(iter(recording.tensors.values()))
        raise LayerError(several_or_none(layer, tuple(recording.tensors)))

    def values(inputs: Tensor) -> Tensor:
        tensor = raw(inputs)
        if tensor.ndim in (1, 2) and len(tensor) == len(inputs):
            return tensor.reshape(len(inputs), -1, 1)
        return planes.read(layer, tensor, inputs).flatten(2)

    return values


def several_or_none(layer: str, names: Sequence[str]) -> str:
    """Say why a layer that gives several floating-point tensors, or none, cannot be maximised."""
    if names:
        return f"the layer {layer!r} gives several tensors; choose one of {', '.join(names)}"
    return (
        f"the layer {layer!r} is never called in a forward pass, or gives no tensor, so none of "
        "its channels can be maximised; see exporter layers"
    )


def no_gradient(layer: str) -> str:
    """Say that a layer's channels cannot be maximised, for want of a gradient."""
    return (
        f"no gradient flows from {layer!r} to the pixels (the model is quantised, or cuts it off), "
        "so none of its channels can be maximised"
    )


@dataclass(frozen=True)
class _Ascent:
    """Makes a few pictures together."""

    values: Callable[[Tensor], Tensor]
    layer: str
    settings: AscentSettings
    size: Size
    fine: Tensor
    mean: Tensor
    std: Tensor
    dtype: torch.dtype

    def run(self, channels: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return pictures uint8 (K, H, W, C), and before, after and peak (K,), on the host."""
        settings = self.settings
        seeds = [(settings.seed * 1_000_003 + channel) % 2**63 for channel in channels]
        parametrisation = Parametrisation(
            settings.prior, self.size, seeds, self.fine, weight=settings.weight
        )
        optimiser = torch.optim.Adam([parametrisation.parameters], lr=settings.rate)
        with torch.no_grad():
            before = self._says(parametrisation.pictures(), channels).mean(1)
        draw = torch.Generator().manual_seed(settings.seed)
        for _ in range(settings.steps):
            pictures = parametrisation.pictures()
            ascent = self._gradient(pictures.detach(), channels, draw)
            ascent = ascent - parametrisation.cost(pictures.detach())
            (gradient,) = torch.autograd.grad(pictures, [parametrisation.parameters], [ascent])
            parametrisation.parameters.grad = -gradient
            optimiser.step()
        with torch.no_grad():
            shown = (parametrisation.pictures() * 255).round()
            said = self._says(shown / 255, channels)
        pixels = shown.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        # float64 on the host: not every device has it.
        before, after, peak = (v.cpu().double() for v in (before, said.mean(1), said.amax(1)))
        return pixels.cpu(), before, after, peak

    def _says(self, pictures: Tensor, channels: Sequence[int]) -> Tensor:
        """Return what picture k's own channel says at each place, (K, P)."""
        values = self.values(((pictures - self.mean) / self.std).to(self.dtype))
        check_channels(self.layer, channels, values.shape[1])
        own = [row[channel] for row, channel in zip(values, channels, strict=True)]
        return torch.stack(own).to(self.fine.dtype)

    def _gradient(self, pictures: Tensor, channels: Sequence[int], draw: torch.Generator) -> Tensor:
        """Return the gradient at each picture, its root mean square 1; 0 where there is none."""
        share = torch.rand((), generator=draw, dtype=torch.float64).item()
        zoom = 1 + self.settings.zoom * (2 * share - 1)
        rows, columns = (
            self._move(side, zoom, draw) for side in (self.size.height, self.size.width)
        )
        free = pictures.requires_grad_()

        def gradient() -> tuple[Tensor, Tensor]:
            values = self._says(rows @ free @ columns.T, channels).mean(1)
            if not values.requires_grad:
                raise LayerError(no_gradient(self.layer))
            return torch.autograd.grad(values.sum(), [free])[0], values.detach()

        ascent, said = gradient()
        # Not where it is loud: a ReLU6 that is at 6 everywhere has no gradient either.
        silent = ((ascent == 0).flatten(1).all(1) & (said <= 0))[:, None, None, None]
        if silent.any():
            with relu_rule("deconvnet"):
                ascent = torch.where(silent, gradient()[0], ascent)
        size = ascent.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return torch.where(size > 0, ascent / size, 0.0).nan_to_num(0.0, 0.0, 0.0)

    def _move(self, side: int, zoom: float, draw: torch.Generator) -> Tensor:
        """Return what a picture's rows or columns are multiplied with to shift and zoom it.

        (side, side): bilinear samples of a periodic line, around its middle.
        """
        most = side // 2 if self.settings.jitter is None else self.settings.jitter
        shift = int(torch.randint(-most, most + 1, (), generator=draw))
        middle = (side - 1) / 2
        own = torch.arange(side)
        at = (own.double() - middle) * zoom + middle + shift
        low = at.floor()
        matrix = torch.zeros(side, side, dtype=torch.float64)
        matrix[own, low.long() % side] += 1 - (at - low)
        matrix[own, (low.long() + 1) % side] += at - low
        return matrix.to(self.fine.dtype).to(self.fine.device)
