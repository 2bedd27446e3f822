"""Methods with few passes of their own: enough to see that one works, and how long a pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.maps.occlusion import window_places
from exporter.maps.registry import Method


def lightest(method: Method) -> Method:
    """Return a method with as few passes as it can do with; one that cannot do with fewer as it is.

    Its maps are none to look at. What is missing of them, and why, is the same.

    Examples:
        >>> from exporter.maps import get_methods
        >>> [lightest(m).settings["steps"] for m in get_methods(["integratedgradients:steps=99"])]
        [1]
    """
    passes = method.needs.passes
    if passes is None:
        return method
    named = {passes.forwards: 1} if passes.forwards in method.settings else {}
    fewer = {str(name): value for name, value in (named | dict(passes.least)).items()}
    return replace(method, settings={**method.settings, **fewer}) if fewer else method


def count_forwards(method: Method, channels: Sequence[int], size: tuple[int, int]) -> int:
    """Return how many forward passes per image a method runs by itself, at all layers together.

    Args:
        method: with the settings that are used.
        channels: of each layer at which it has a map.
        size: (height, width) of the input.
    """
    number = method.needs.passes.forwards if method.needs.passes else 0
    settings = method.own_settings
    if isinstance(number, int) or number in settings:
        each = number if isinstance(number, int) else int(settings[number])
        return each * (len(channels) if method.at_layers else 1)
    if number == "per channel":
        most = int(settings.get("channels", 0))
        return sum(min(most or count, count) for count in channels)
    if number in ("per cell", "per cell and sample") and "cells" in settings:
        samples = int(settings["n_samples"]) if number == "per cell and sample" else 1
        return int(settings["cells"]) ** 2 * samples
    if number == "per window" and {"window", "stride"} <= settings.keys():
        return len(window_places(*size, float(settings["window"]), float(settings["stride"])))
    return 1
