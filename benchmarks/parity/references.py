"""Every method's reference by name: where it applies, how it is spelt, and its maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.parity import attention, perturbation, pixels
from benchmarks.parity.formulas import FORMULAS
from benchmarks.parity.subjects import Subject
from benchmarks.parity.taking import Array, Shown, array

SPELLED: Mapping[str, str] = {
    "smoothgrad": f"smoothgrad:samples={pixels.SAMPLES},noise={pixels.NOISE}",
    "integratedgradients": f"integratedgradients:steps={pixels.STEPS}",
    "finercam": "finercam:classes=3,strength=1.0",
    "occlusion": "occlusion:window=16,stride=8",
    "rise": "rise:samples=9,cells=3,p=0.5",
    "fullgrad": "fullgrad:rescale=channel",
    "scorecam": "scorecam:channels=0",
    "ablationcam": "ablationcam:channels=0",
}
"""By method, the settings at which it is compared; the others have none that change the map."""

PERTURBATION = ("scorecam", "ablationcam", "occlusion", "rise")
"""Methods of many forwards, compared at `Subject.narrow`."""

RECTIFIED = ("gradcam", "gradcam++", "xgradcam", "layercam", "finercam", "shapleycam")
"""Methods whose papers end in a ReLU, which fusing applies."""

FUSED = ("gradcam", "layercam", "hirescam", "eigencam")
"""Methods whose maps of several layers are compared fused."""

FUSIONS: Mapping[str, Callable[..., Array]] = {"mean": np.mean, "max": np.max, "product": np.prod}

REFERENCED = frozenset({*FORMULAS, *perturbation.LAYERED, *pixels.PIXELS, *attention.MAPS})
"""Methods that have a reference."""


def layers_of(name: str, subject: Subject) -> tuple[str, ...]:
    """Return the layers at which a method is compared on an architecture, none where it is not."""
    if name in PERTURBATION:
        return subject.narrow
    if name == "cam":
        return subject.layers[-1:] if subject.cam else ()
    return () if name in attention.MAPS and not subject.attention else subject.layers


def undefined(name: str, subject: Subject) -> bool:
    """Say whether the method is not defined on this architecture: the package has to refuse it."""
    return name not in PERTURBATION and not layers_of(name, subject)


def expected(name: str, shown: Shown) -> dict[str, Array]:
    """Return the maps of one image by layer: ``""`` for pixels, ``attention`` and ``fused``.

    Args:
        name: of the method.
        shown: with the layers that it is compared at.
    """
    if name in pixels.PIXELS:
        return {"": pixels.PIXELS[name](shown)}
    if name in attention.MAPS:
        return {"attention": attention.attention_map(shown, name)}
    if name in perturbation.LAYERED:
        return {layer: perturbation.LAYERED[name](shown, layer) for layer in shown.layers}
    rows = np.zeros(0)
    if name == "cam":
        weight: Any = shown.model.get_submodule(shown.subject.cam).weight
        rows = array(weight)[shown.target]
    maps = {
        layer: FORMULAS[name](*shown.taken[layer], rows)
        for layer in (shown.layers[-1:] if name == "cam" else shown.layers)
    }
    return (
        {"fused": fused(list(maps.values()), "product", relu=True)} if name == "refinecam" else maps
    )


def fused(maps: Sequence[Array], how: str, *, relu: bool) -> Array:
    """Return several layers' maps (h, w) as one: scaled to [0, 1], up-sampled, put together."""
    size = [max(one.shape[axis] for one in maps) for axis in (0, 1)]
    grown = []
    for one in maps:
        kept = np.maximum(one, 0) if relu else one
        if kept.max() > kept.min():
            kept = (kept - kept.min()) / (kept.max() - kept.min())
        else:
            kept = np.zeros_like(kept)
        small = torch.from_numpy(kept)[None, None]
        grown.append(array(functional.interpolate(small, size, mode="bilinear")[0, 0]))
    return np.asarray(FUSIONS[how](np.stack(grown), axis=0))
