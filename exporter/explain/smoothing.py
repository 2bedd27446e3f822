"""Test-time smoothing: a map averaged with that of the mirrored image, mirrored back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from exporter.errors import MapError
from exporter.explain.batches import BatchMaps
from exporter.maps import Method
from exporter.targets import Scored


def mirrored_target(scored: Scored, methods: Sequence[Method]) -> Scored:
    """Return what is explained of the mirrored images: the same, regions mirrored.

    Raises:
        MapError: if it is a box, which is not followed to where it is mirrored.
    """
    if scored.reading.named == "box":
        names = ", ".join(method.name for method in methods)
        raise MapError(
            f"smooth=flips of {names} would have to find a box again in the mirrored image; leave "
            "it out where boxes are explained"
        )
    region = scored.reading.region
    if region is None:
        return scored
    whole: Callable[[Tensor], Tensor] = region
    turned = replace(scored.reading, region=lambda indices: whole(indices).flip(-1))
    return scored._replace(reading=turned)


def averaged(own: BatchMaps, mirrored: BatchMaps, methods: Sequence[Method]) -> BatchMaps:
    """Return the maps, those of some methods averaged with the mirrored images', mirrored back.

    M = (M(I) + flip M(flip I)) / 2: raw and signed, before any ReLU or normalisation.

    Args:
        own: of the images.
        mirrored: of the images mirrored left to right; what these methods have in ``own`` is there.
        methods: those that are averaged.
    """
    names = [method.name for method in methods]
    maps = {
        layer: {
            name: _means(here[name], mirrored.maps[layer][name]) if name in names else here[name]
            for name in here
        }
        for layer, here in own.maps.items()
    }
    pixels = {
        name: (values + mirrored.pixels[name].flip(-1)) / 2 if name in names else values
        for name, values in own.pixels.items()
    }
    return replace(own, maps=maps, pixels=pixels)


def _means(own: tuple[Tensor, ...], mirrored: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple((a + b.flip(-1)) / 2 for a, b in zip(own, mirrored, strict=True))
