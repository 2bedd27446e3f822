"""What is asked of activation maximisation: ``LAYER:CHANNELS[:SETTING=VALUE,…]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any

from exporter.errors import ConfigError, choices
from exporter.maximise.ascent import AscentSettings
from exporter.maximise.parametrisation import PRIORS

STRONGEST = "strongest"
USUAL_STRONGEST = 8
_LEAST: Mapping[str, float] = {"steps": 1, "size": 8}
_MOST: Mapping[str, float] = {
    "steps": 1_000_000,
    "size": 8192,
    "jitter": 8192,
    "zoom": 0.5,
    "weight": 1_000_000,
    "rate": 1_000,
    "seed": 2**63 - 1,
}
DIGITS = 9
"""Most digits of a channel's number."""


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
    layer, _, rest = text.partition(":")
    written, _, text_of_settings = rest.partition(":")
    chosen = tuple(part.strip() for part in written.split(","))
    if not layer.strip() or not all(chosen):
        raise ConfigError(
            f"--maximise {text!r} names no layer or no channels; write LAYER:CHANNELS, such as "
            "layer4:0,3,10-14, layer4:strongest=8 or output:281"
        )
    strongest = 0
    if chosen[0].partition("=")[0].strip() == STRONGEST:
        strongest = _strongest(text, chosen)
        chosen = ()
    return Request(layer.strip(), chosen, strongest, _settings(text, text_of_settings, seed))


def _strongest(text: str, chosen: Sequence[str]) -> int:
    _, sign, number = chosen[0].partition("=")
    number = number.strip()
    fits = number.isdecimal() and len(number) <= DIGITS and int(number) > 0
    if len(chosen) > 1 or (sign and not fits):
        raise ConfigError(
            f"--maximise {text!r} does not say how many of the strongest; write strongest, or "
            "strongest=4, alone"
        )
    return int(number) if sign else USUAL_STRONGEST


def _settings(text: str, settings: str, seed: int) -> AscentSettings:
    known = [field.name for field in fields(AscentSettings)]
    values: dict[str, Any] = {"seed": seed}
    for part in settings.split(",") if settings else ():
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in known:
            there = choices(name, known)
            raise ConfigError(f"--maximise {text!r} has no setting {name!r}; {there}")
        values[name] = _value(text, name, value)
    return AscentSettings(**values)


def _value(text: str, name: str, value: str) -> str | int | float:
    if name == "prior":
        if value in PRIORS:
            return value
        there = choices(value, PRIORS)
        raise ConfigError(f"--maximise {text!r}: no prior is called {value!r}; {there}")
    whole = name in ("steps", "size", "jitter", "seed")
    least, most = _LEAST.get(name, 0), _MOST[name]
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
