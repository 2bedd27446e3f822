"""What is asked of activation maximisation, and which channels that means.

A request, ``LAYER:CHANNELS[:SETTING=VALUE,…]``, is read, held against the planning trial of the
model, and, once the pass over the set is done, against what the set shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import nan
from typing import Any

import torch

from exporter.capture import QUOTED, LayerName, find_layer, first_names, guest, parse_name
from exporter.errors import ConfigError, LayerError, ModelError, TargetError, choices, one_line
from exporter.guard import FAILURES
from exporter.layers import Trial
from exporter.maximise.ascent import (
    AscentSettings,
    check_channels,
    no_gradient,
    several_or_none,
)
from exporter.maximise.parametrisation import PRIORS
from exporter.records import OUTPUT, own_name
from exporter.targets import Target, locate_output, parse_target

_USUAL_STRONGEST = 8
_DIGITS = 9
"""Most digits of a channel's number."""

_BOUNDS: Mapping[str, tuple[float, float]] = {
    "steps": (1, 1_000_000),
    "size": (8, 8192),
    "jitter": (0, 8192),
    "zoom": (0, 0.5),
    "weight": (0, 1_000_000),
    "rate": (0, 1_000),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Request:
    """Channels of one layer that pictures are asked for.

    Attributes:
        layer: its name; ``auto`` for every explained layer, ``output`` for classes.
        chosen: numbers, ranges and names, as they were written; empty for ``strongest``.
        strongest: how many of the strongest; 0 where channels are named.
        settings: how the pictures are made.
    """

    layer: str
    chosen: tuple[str, ...]
    strongest: int
    settings: AscentSettings


@dataclass(frozen=True)
class Wanted:
    """Channels of one layer of the model at hand, or how many of the strongest, known later."""

    layer: str
    channels: tuple[int, ...]
    strongest: int
    settings: AscentSettings


def parse_request(text: str, seed: int) -> Request:
    """Read a request as the command line writes it.

    Args:
        text: such as ``layer4:0,3,10-14``, ``layer4:strongest=8:prior=none,steps=128`` or
            ``output:281,tiger cat``.
        seed: of the settings, where the request has none of its own.

    Raises:
        ConfigError: if it is not written like that, or a setting is unknown or wrong.

    >>> parse_request("layer4:0,3,10-14", 0).chosen
    ('0', '3', '10-14')
    >>> parse_request("layer4:strongest", 0).strongest
    8
    """
    layer = re.sub(rf"^((?:{QUOTED}|[^:])*).*", r"\1", text, flags=re.DOTALL)
    rest = text[len(layer) + 1 :]
    written, _, settings = rest.partition(":")
    chosen = tuple(part.strip() for part in written.split(","))
    if not layer.strip() or not all(chosen):
        raise ConfigError(
            f"--maximise {text!r} names no layer or no channels; write LAYER:CHANNELS, such as "
            "layer4:0,3,10-14, layer4:strongest=8 or output:281"
        )
    strongest = 0
    word, sign, number = (part.strip() for part in chosen[0].partition("="))
    if word == "strongest":
        fits = number.isdecimal() and len(number) <= _DIGITS and int(number) > 0
        if len(chosen) > 1 or (sign and not fits):
            raise ConfigError(
                f"--maximise {text!r} does not say how many of the strongest; write strongest, or "
                "strongest=4, alone"
            )
        chosen, strongest = (), int(number) if sign else _USUAL_STRONGEST
    return Request(layer.strip(), chosen, strongest, _settings(text, settings, seed))


def _settings(text: str, settings: str, seed: int) -> AscentSettings:
    known = [field.name for field in fields(AscentSettings)]
    values: dict[str, Any] = {"seed": seed}
    for part in settings.split(",") if settings else ():
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in known:
            there = choices(name, known)
            raise ConfigError(f"--maximise {text!r} has no setting {name!r}; {there}")
        if name != "prior":
            values[name] = _number(text, name, value)
        elif value in PRIORS:
            values[name] = value
        else:
            there = choices(value, PRIORS)
            raise ConfigError(f"--maximise {text!r}: no prior is called {value!r}; {there}")
    return AscentSettings(**values)


def _number(text: str, name: str, value: str) -> int | float:
    whole = name in ("steps", "size", "jitter", "seed")
    least, most = _BOUNDS[name]
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = nan
    if not least <= number <= most:
        kind = "whole number" if whole else "number"
        raise ConfigError(
            f"--maximise {text!r}: {name} is {value!r}; give a {kind} from {least:,} to {most:,}"
        )
    return number


def settle(
    requests: Sequence[Request],
    trial: Trial,
    *,
    explained: Sequence[str] = (),
    recorded: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> tuple[Wanted, ...]:
    """Hold requests against the model; it runs once more for each size that is not the trial's.

    Args:
        requests: what is asked.
        trial: of the model, which is a guest.
        explained: what ``auto`` stands for.
        recorded: layers whose strongest channels will be known.
        classes: class names by index, or empty.

    Returns:
        What is wanted, in order, a layer each.

    Raises:
        LayerError: if a layer is unknown or has no such channel, or its strongest are not known.
        TargetError: if a class is unknown.
        ModelError: if the model takes no pictures of the size asked for.
    """
    wanted = tuple(
        each
        for request in requests
        for each in _settled(request, trial, explained, recorded, classes)
    )
    for side in dict.fromkeys(request.settings.size for request in requests):
        _try_size(trial, side)
    return wanted


def _settled(
    request: Request,
    trial: Trial,
    explained: Sequence[str],
    recorded: Sequence[str],
    classes: Sequence[str],
) -> Iterator[Wanted]:
    # ``output`` is the model's own output; a layer of that name is written ``output#1``.
    layers = [f"{OUTPUT}#1" if name == OUTPUT else name for name in explained]
    if request.layer != "auto":
        layers = [_first_name(trial, request.layer)]
    if not layers:
        raise LayerError(
            "--maximise auto means the explained layers, and there are none; name a layer"
        )
    for layer in layers:
        count = _count(trial, layer)
        if request.strongest and layer != OUTPUT and own_name(layer) not in recorded:
            raise LayerError(
                f"the strongest channels of {layer!r} will not be known, because it has no plane "
                f"that is recorded; name channels from 0 to {count - 1}"
            )
        names = classes if layer == OUTPUT else ()
        numbers = [n for part in request.chosen for n in _numbers(part, layer, names, count)]
        channels = tuple(dict.fromkeys(numbers))
        yield Wanted(layer, channels, min(request.strongest, count), request.settings)


def _first_name(trial: Trial, layer: str) -> str:
    """Return the name that a layer is recorded by: a module's first, without ``#1``."""
    if layer in (OUTPUT, f"{OUTPUT}#1"):
        return layer
    first = first_names(trial.module)
    asked = parse_name(layer, first)
    name = str(replace(asked, module=first.get(asked.module, asked.module)))
    return f"{OUTPUT}#1" if name == OUTPUT else name


def _try_size(trial: Trial, side: int | None) -> None:
    if side is None or trial.size == (side, side):
        return
    try:
        with guest(trial.module), torch.no_grad():
            trial.module(trial.example[:1, :, :1, :1].expand(1, -1, side, side).clone())
    except FAILURES as error:  # whatever a model says to pictures of a size that is not its own
        raise ModelError(
            f"the model takes no pictures of {side} × {side} pixels "
            f"({one_line(error).partition(': ')[2]}); leave size out of --maximise"
        ) from error


def _count(trial: Trial, layer: str) -> int:
    """Return how many channels a layer has, if a gradient flows from them to the pixels."""
    channels: int | None = None
    if layer == OUTPUT:
        output = locate_output(trial.output, trial.path)[0]
        shape, carries = tuple(output.shape), output.requires_grad
    else:
        name = find_layer(trial.module, layer)
        calls = (call for call in trial.calls if call.name == name.numbered)
        floating = {
            str(LayerName(name.module, name.call, path)): (call.shapes[path], carries)
            for call in calls
            for path, carries in call.carries.items()
            if name.path in ("", path)
        }
        if len(floating) != 1:
            raise LayerError(several_or_none(layer, tuple(floating)))
        ((whole, (shape, carries)),) = floating.items()
        channels = trial.planes[whole].layout.channels if whole in trial.planes else None
    if not carries:
        raise LayerError(no_gradient(layer))
    if len(shape) in (1, 2) and shape[0] == len(trial.example):
        channels = shape[1] if len(shape) == 2 else 1
    if channels is None:
        raise LayerError(
            f"{layer!r} gives {shape}, which is neither a plane of rows and columns nor a row of "
            "values per image, so none of its channels can be maximised; see exporter layers"
        )
    return channels


def _numbers(part: str, layer: str, classes: Sequence[str], count: int) -> range | tuple[int, ...]:
    if numbers := re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII):
        if max(len(number) for number in numbers.groups("")) > _DIGITS:
            raise LayerError(
                f"{layer!r} has {count} channels, 0 to {count - 1}; {part[:40]!r} is not among them"
            )
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if first > last:
            raise LayerError(f"the channels {part!r} of {layer!r} end before they start")
        check_channels(layer, (last,), count)
        return range(first, last + 1)
    if layer != OUTPUT:
        raise LayerError(
            f"{part!r} is not a channel of {layer!r}; give numbers and ranges such as 0,3,10-14, "
            "or strongest=8"
        )
    target = parse_target(part, classes)
    if target != Target("class", index=target.index) or target.index is None:
        raise TargetError(f"{part!r} is not a class; give an index, a name, or strongest=8")
    check_channels(layer, (target.index,), count)
    return (target.index,)
