"""Gradient maps in other number formats, against that format's own noise.

What a format does to a method is what the reference formula itself is off by there: activations and
gradients taken by plain autograd with the model and the image in that format, the formula then
computed in float64 and its map rounded to float32, which all maps of these models are, against all
of it in float64. So the noise holds what the format does to the model and to the map, and nothing
of how a map is computed; it was measured, not chosen.

Rounding is not smooth: where a ReLU or a maximum happens to turn, a map is off by a thousand times
what it is elsewhere. Both run one image at a time, so that mostly the same kernels round the same
way and turn in both; what a batch changes is `behaviour`'s to find. And two things are asked of
every method and format, each within three times the noise: the median of the errors over the layers
and images of each architecture against the median of the noise there, and the largest error
anywhere against the largest noise anywhere. All are in units of the map's range.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.counts import Tally, difference, finite
from benchmarks.parity.ours import Images, is_gradient, maps_of, shown_to
from benchmarks.parity.references import REFERENCED, expected, layers_of
from benchmarks.parity.subjects import SUBJECTS
from benchmarks.parity.taking import Array, Shown

FORMATS = ("float32", "channels_last", "bfloat16")
"""``channels_last`` is float32 in that memory format."""
ALLOWED = 3.0
"""Largest error, in units of the noise."""

References = dict[tuple[str, str], list[Array]]
"""By method and layer, a map per image."""


@dataclass
class Ratios:
    """One method's errors in one format, by architecture.

    Attributes:
        errors: of our maps, in units of the map's range.
        noise: of the reference's.
    """

    errors: dict[str, list[float]] = field(default_factory=dict)
    noise: dict[str, list[float]] = field(default_factory=dict)

    def median(self, architecture: str) -> float:
        """Return the median of the errors in units of that of the noise."""
        return _over(median(self.errors[architecture]), median(self.noise[architecture]))

    def error(self) -> float:
        """Return the largest error."""
        return max(map(max, self.errors.values()))

    def most(self) -> float:
        """Return the largest noise."""
        return max(map(max, self.noise.values()))

    def json(self) -> dict[str, Any]:
        """Return the entry of the JSON: ``largest`` is what has to be within `ALLOWED`."""
        ratios = [self.median(one) for one in self.errors]
        return {
            "largest": finite(max(*ratios, _over(self.error(), self.most()))),
            "medians": finite(max(ratios)),
            "error": finite(self.error()),
            "noise": finite(self.most()),
            "cases": sum(map(len, self.errors.values())),
            "architectures": len(self.errors),
        }


def _over(error: float, noise: float) -> float:
    if noise > 0:
        return error / noise
    return 0.0 if error == 0 else float("inf")


def in_format(model: nn.Module, images: Tensor, name: str) -> tuple[nn.Module, Tensor]:
    """Return a copy of a float64 model, and its images, in one of `FORMATS`."""
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    model, images = copy.deepcopy(model).to(dtype), images.to(dtype)
    if name == "channels_last":
        last: Any = torch.channels_last
        return model.to(memory_format=last), images.contiguous(memory_format=last)
    return model, images


def compare(
    architecture: str,
    methods: Sequence[str],
    ratios: dict[str, dict[str, Ratios]],
    *,
    images: int = 3,
) -> None:
    """Compare every gradient method in every format on one architecture.

    Args:
        architecture: name of one of `SUBJECTS`.
        methods: registry names.
        ratios: by format and method; is added to.
        images: how many are shown.
    """
    subject = SUBJECTS[architecture]
    here = [
        one for one in methods if one in REFERENCED and is_gradient(one) and layers_of(one, subject)
    ]
    if not here:
        return
    model, shown = subject.model(), shown_to(subject, images)
    exact = _references(architecture, model, shown, here)
    for name in FORMATS:
        other, converted = in_format(model, shown.images, name)
        given = Images(converted, shown.targets)
        own = _references(architecture, other, given, here)
        ours = [
            maps_of(subject, other, Images(converted[row : row + 1], [target]), here)
            for row, target in enumerate(shown.targets)
        ]
        for key, right in exact.items():
            entry = ratios.setdefault(name, {}).setdefault(key[0], Ratios())
            made = [maps[key][0] for maps in ours]
            rounded = [one.astype(np.float32).astype(np.float64) for one in own[key]]
            entry.noise.setdefault(architecture, []).extend(map(difference, rounded, right))
            entry.errors.setdefault(architecture, []).extend(map(difference, made, right))


def judge(ratios: dict[str, dict[str, Ratios]], tally: Tally) -> None:
    """Write down every method and format that is off by more than it may."""
    for name, entries in ratios.items():
        for method, entry in entries.items():
            for architecture in entry.errors:
                if not entry.median(architecture) <= ALLOWED:
                    why = (
                        f"{name}: the median is {entry.median(architecture):.3g} times the noise's"
                    )
                    tally.miss(method, (architecture, ""), why)
            if not _over(entry.error(), entry.most()) <= ALLOWED:
                why = f"{name}: off by {entry.error():.3g} at most, the noise is {entry.most():.3g}"
                tally.miss(method, ("", ""), why)


def _references(
    architecture: str, model: nn.Module, shown: Images, methods: list[str]
) -> References:
    made: References = {}
    subject = SUBJECTS[architecture]
    for number, target in enumerate(shown.targets):
        image = shown.images[number : number + 1]
        one_image = Shown(subject, model, image, target, subject.layers)
        for method in methods:
            for layer, right in expected(method, one_image).items():
                made.setdefault((method, layer), []).append(right)
    return made
