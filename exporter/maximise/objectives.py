"""Which channels pictures are made for: requests held against the model, and against the run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from torch import Tensor, nn

from exporter.capture import first_names, guest
from exporter.errors import ExporterError, LayerError, ModelError, TargetError
from exporter.layers.layout import Reshape
from exporter.maximise.ascent import TOGETHER, AscentSettings
from exporter.maximise.recorder import ActivationRecorder
from exporter.maximise.requests import DIGITS, Request
from exporter.records import OUTPUT, own_name
from exporter.targets import Target, parse_target


@dataclass(frozen=True)
class Wanted:
    """Channels of one layer of the model at hand.

    Attributes:
        layer: its name, or ``output``.
        channels: those named, each once.
        strongest: how many of the strongest, known after the pass.
        settings: how the pictures are made.
    """

    layer: str
    channels: tuple[int, ...]
    strongest: int
    settings: AscentSettings


@dataclass(frozen=True)
class Group:
    """Channels whose pictures are stored together.

    Attributes:
        layer: name of the layer, or ``output``.
        channels: at most `TOGETHER`.
        settings: how the pictures are made.
    """

    layer: str
    channels: tuple[int, ...]
    settings: AscentSettings


def settle(
    request: Request,
    module: nn.Module,
    example: Tensor,
    *,
    explained: Sequence[str] = (),
    recorded: Sequence[str] = (),
    classes: Sequence[str] = (),
    output: str | None = None,
    reshape: Reshape | None = None,
) -> tuple[Wanted, ...]:
    """Hold a request against the model, by a forward of a picture of its size.

    Args:
        request: what is asked.
        module: the model; it is left as it was.
        example: (1, C, H, W), as the model takes it.
        explained: what ``auto`` stands for.
        recorded: layers whose strongest channels will be known.
        classes: class names by index, or empty.
        output: path of the logits inside the model's output.
        reshape: from a layer's output to (N, C, H, W).

    Returns:
        What is wanted, a layer each.

    Raises:
        LayerError: if a layer is unknown or has no such channel, or its strongest are not known.
        TargetError: if a class is unknown.
        ModelError: if the model takes no pictures of the size asked for.
    """
    if request.layer == "auto":
        layers = [_told_apart(name) for name in explained]
    else:
        layers = [_first_name(module, request.layer)]
    if not layers:
        raise LayerError(
            "--maximise auto means the explained layers, and there are none; name a layer"
        )
    if request.settings.size:
        side = request.settings.size
        example = example[:1, :, :1, :1].expand(1, -1, side, side)
    settled = []
    for layer in layers:
        with guest(module):
            recorder = ActivationRecorder(module, layer, output=output, reshape=reshape)
            count = _count(recorder, example, request)
        if request.strongest and layer != OUTPUT and own_name(layer) not in recorded:
            raise LayerError(
                f"the strongest channels of {layer!r} will not be known, because it has no plane "
                f"that is recorded; name channels from 0 to {count - 1}"
            )
        names = classes if layer == OUTPUT else ()
        numbers = [
            number
            for part in request.chosen
            for number in _numbers(part, layer, names, recorder=recorder, count=count)
        ]
        channels = tuple(dict.fromkeys(numbers))
        recorder.check(channels, count)
        settled.append(Wanted(layer, channels, min(request.strongest, count), request.settings))
    return tuple(settled)


def _told_apart(layer: str) -> str:
    """Return how a layer of the model is asked for: `own_name` the other way round."""
    return f"{OUTPUT}#1" if layer == OUTPUT else layer


def _first_name(module: nn.Module, layer: str) -> str:
    """Return the name that a layer is recorded by, of those that it is known by.

    A module's second name is its first, and its first call its name; ``output`` is the model's own.
    """
    if layer in (OUTPUT, f"{OUTPUT}#1"):
        return layer
    plain = layer.removesuffix("#1")
    return _told_apart(first_names(module).get(plain, plain))


def _count(recorder: ActivationRecorder, example: Tensor, request: Request) -> int:
    try:
        return recorder.channels(example)
    except ExporterError:
        raise
    except Exception as error:  # Whatever a model says to pictures of a size that is not its own.
        size = request.settings.size
        if not size:
            raise
        said = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"the model takes no pictures of {size} × {size} pixels "
            f"({said}); leave size out of --maximise"
        ) from error


def _numbers(
    part: str, layer: str, classes: Sequence[str], *, recorder: ActivationRecorder, count: int
) -> range | tuple[int, ...]:
    if numbers := re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII):
        if max(len(number) for number in numbers.groups("")) > DIGITS:
            raise LayerError(
                f"{layer!r} has {count} channels, 0 to {count - 1}; {part[:40]!r} is none of them"
            )
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if first > last:
            raise LayerError(f"the channels {part!r} of {layer!r} end before they start")
        recorder.check((last,), count)
        return range(first, last + 1)
    if layer != OUTPUT:
        raise LayerError(
            f"{part!r} is no channel of {layer!r}; give numbers and ranges such as 0,3,10-14, or "
            "strongest=8"
        )
    target = parse_target(part, classes)
    if target != Target("class", index=target.index) or target.index is None:
        raise TargetError(f"{part!r} is no class; give an index, a name, or strongest=8")
    return (target.index,)


def choose(
    wanted: Sequence[Wanted],
    means: Mapping[str, Mapping[int, float]],
    predicted: Mapping[int, float],
) -> tuple[Group, ...]:
    """Say which channels' pictures are made, now that the pass is done, and which together.

    Args:
        wanted: what is wanted.
        means: by layer and channel, the mean over the set.
        predicted: by class that is predicted, of how many images.

    Returns:
        Groups by layer and settings, in the order in which these are first asked for, the same
        whatever the batches of the run: each is a file of the run folder, and a run may be resumed
        with smaller batches. The strongest channels of a layer have the largest mean over the set,
        the strongest classes the most predictions; of equals the lower number.
    """
    alike: dict[tuple[str, AscentSettings], dict[int, None]] = {}
    for objective in wanted:
        numbers = objective.channels
        if objective.strongest and objective.layer == OUTPUT:
            numbers = _largest(predicted, objective.strongest)
        elif objective.strongest:
            numbers = _largest(means[own_name(objective.layer)], objective.strongest)
        if numbers:
            key = (objective.layer, objective.settings)
            alike.setdefault(key, {}).update(dict.fromkeys(numbers))
    return tuple(
        Group(layer, tuple(channels)[start : start + TOGETHER], settings)
        for (layer, settings), channels in alike.items()
        for start in range(0, len(channels), TOGETHER)
    )


def _largest(values: Mapping[int, float], count: int) -> tuple[int, ...]:
    # A mean that is not a number comes last.
    order = sorted(values, key=lambda channel: (isnan(values[channel]), -values[channel], channel))
    return tuple(order[:count])
