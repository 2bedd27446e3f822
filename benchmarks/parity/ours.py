"""The package's own maps, through the call that its users make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.parity.references import PERTURBATION, SPELLED, layers_of, undefined
from benchmarks.parity.subjects import Subject
from exporter import compute_maps
from exporter.errors import ExporterError
from exporter.maps import get_methods

Maps = dict[tuple[str, str], Tensor]
"""By (method, layer), maps (N, …)."""


class Images(NamedTuple):
    """What a model is shown: images (N, C, H, W), and the class explained of each."""

    images: Tensor
    targets: list[int]


def shown_to(subject: Subject, number: int) -> Images:
    """Return some images; of every second one the best class is explained, else the next."""
    images = subject.images(number)
    with torch.no_grad():
        best = subject.model()(images).topk(2, dim=1).indices.tolist()
    return Images(images, [classes[row % 2] for row, classes in enumerate(best)])


def maps_of(
    subject: Subject,
    model: nn.Module,
    shown: Images,
    methods: Sequence[str],
    narrow: int = 3,
) -> Maps:
    """Compute those of the methods that the architecture has, each at the layers it is compared at.

    Args:
        subject: the architecture.
        model: in whatever format and state.
        shown: what it is shown.
        methods: registry names.
        narrow: at how many of `Subject.narrow` the perturbation methods are computed.
    """
    groups: Mapping[tuple[str, ...], list[str]] = {
        subject.layers: [one for one in methods if one not in PERTURBATION],
        subject.narrow[:narrow]: [one for one in methods if one in PERTURBATION],
    }
    found: Maps = {}
    for layers, names in groups.items():
        asked = [SPELLED.get(one, one) for one in names if layers_of(one, subject)]
        if asked:
            images, targets = shown
            found |= compute_maps(model, images, maps=asked, layers=layers, targets=targets)
    return found


def refusal(subject: Subject, method: str) -> str | None:
    """Return what the package says of a method that the architecture does not have.

    Returns:
        Its error in words, or None if it gave a map.
    """
    assert undefined(method, subject)
    try:
        found = compute_maps(
            subject.model(), subject.images(1), maps=[method], layers=subject.layers
        )
    except ExporterError as error:
        return str(error)
    return None if found else "no map, without a word"


def is_gradient(method: str) -> bool:
    """Say whether a method's map is made of gradients, at a layer, at the input or of attention."""
    (found,) = get_methods([method])
    if method in (*PERTURBATION, "attention", "rollout"):
        return False
    return found.kind == "pass" or found.needs.gradients
