"""Every method in float64 against its reference, architecture by architecture."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.parity.counts import Tally
from benchmarks.parity.ours import Images, Maps, maps_of, refusal, shown_to
from benchmarks.parity.references import (
    FUSED,
    FUSIONS,
    PERTURBATION,
    RECTIFIED,
    REFERENCED,
    expected,
    fused,
    layers_of,
    undefined,
)
from benchmarks.parity.subjects import SUBJECTS
from benchmarks.parity.taking import Array, Shown
from exporter import compute_maps

ALLOWED = 1e-9
"""Largest difference in float64, in units of the map's range."""
IMAGES = 2

NotCounted = dict[str, dict[str, str]]
"""By method, then by architecture, why there is nothing to compare."""


def compare(
    architecture: str, methods: Sequence[str], tally: Tally, not_counted: NotCounted
) -> tuple[Maps, Images]:
    """Compare every method on one architecture.

    Args:
        architecture: name of one of `SUBJECTS`.
        methods: registry names.
        tally: what is counted.
        not_counted: is added to.

    Returns:
        The package's maps, and what they are of.
    """
    subject = SUBJECTS[architecture]
    model, shown = subject.model(), shown_to(subject, IMAGES)
    defined = []
    for method in methods:
        if method not in REFERENCED:
            tally.miss(method, (architecture, ""), "it has no reference")
        elif undefined(method, subject):
            said = refusal(subject, method)
            if said is None:
                tally.miss(method, (architecture, ""), "gave a map where it is not defined")
            not_counted.setdefault(method, {})[architecture] = said or "gave a map"
        elif not layers_of(method, subject):
            not_counted.setdefault(method, {})[architecture] = (
                "perturbation methods are compared on two architectures, for their cost"
            )
        else:
            defined.append(method)
    found = maps_of(subject, model, shown, defined)
    known: dict[tuple[str, str, int], Array] = {}
    for number, target in enumerate(shown.targets):
        image = shown.images[number : number + 1]
        wide = Shown(subject, model, image, target, subject.layers)
        narrow = Shown(subject, model, image, target, subject.narrow)
        for method in defined:
            one_image = narrow if method in PERTURBATION else wide
            for layer, right in expected(method, one_image).items():
                known[method, layer, number] = right
                ours = found.get((method, layer))
                one = None if ours is None else ours[number]
                tally.add(method, (architecture, layer), one, right, ALLOWED)
    right_keys = {(method, layer) for method, layer, _ in known}
    for method, layer in found.keys() - right_keys:
        tally.miss(method, (architecture, layer), "gave a map where it is not defined")
    compare_fused(architecture, known, shown, tally)
    return found, shown


def compare_fused(
    architecture: str,
    known: dict[tuple[str, str, int], Array],
    shown: Images,
    tally: Tally,
) -> None:
    """Compare fused maps with the references' maps of the layers, put together.

    Args:
        architecture: name of one of `SUBJECTS`.
        known: references by method, layer and number of the image.
        shown: what the model is shown.
        tally: what is counted, as ``--fuse HOW``.
    """
    subject = SUBJECTS[architecture]
    methods = [one for one in FUSED if (one, subject.layers[0], 0) in known]
    for how in FUSIONS if methods else ():
        found = compute_maps(
            subject.model(),
            shown.images,
            maps=methods,
            layers=subject.layers,
            targets=shown.targets,
            fuse=how,
        )
        for method in methods:
            for number in range(IMAGES):
                layers = [known[method, layer, number] for layer in subject.layers]
                right = fused(layers, how, relu=method in RECTIFIED)
                ours = found[method, "fused"][number]
                where = (architecture, f"{method} fused")
                tally.add(f"--fuse {how}", where, ours, right, ALLOWED)
