"""Models that write into their input: every method gives what it gives of the pure form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import MapError, ModelError
from exporter.maps import METHODS
from tests.hostile import guests

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"
PIXELS = {"size": 16}

CONVOLUTIONAL = tuple(name for name, method in METHODS.items() if not method.needs.attention)
ATTENDING = tuple(name for name, method in METHODS.items() if method.needs.attention)
AT_THE_INPUT = tuple(
    name
    for name, method in METHODS.items()
    if (passes := method.needs.passes)
    and passes.backwards
    and not passes.after_layer
    and not method.needs.attention
)
"""Methods of gradients at the input."""
Way = Callable[[nn.Module], nn.Module]


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def maps_of(way: Way, methods: tuple[str, ...]) -> Mapping[tuple[str, str], Tensor]:
    model = way(guests.convolutional())
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    return exporter.compute_maps(model, images(), maps=methods, layers=layers)


@cache
def expected(methods: tuple[str, ...]) -> dict[tuple[str, int], Tensor]:
    return _ordered(maps_of(guests.pure, methods))


def _ordered(maps: Mapping[tuple[str, str], Tensor]) -> dict[tuple[str, int], Tensor]:
    """Return maps by method and the layer's number; its name depends on how the model is made."""
    layers = list(dict.fromkeys(layer for _, layer in maps))
    return {(method, layers.index(layer)): values for (method, layer), values in maps.items()}


def assert_equal(maps: Mapping[Any, Tensor], others: Mapping[Any, Tensor]) -> None:
    assert maps.keys() == others.keys()
    for key, values in maps.items():
        torch.testing.assert_close(values, others[key], rtol=1e-5, atol=1e-7, msg=str(key))


@pytest.mark.parametrize(
    "way",
    [
        way if number in (0, 8) else pytest.param(way, marks=pytest.mark.slow)
        for number, way in enumerate(guests.SEEN)
    ],
)
def test_every_method_gives_the_maps_of_the_pure_form(way: Way) -> None:
    inputs = images()
    before = inputs.clone()
    assert_equal(_ordered(maps_of(way, CONVOLUTIONAL)), expected(CONVOLUTIONAL))
    model = way(guests.convolutional())
    exporter.compute_maps(model, inputs, maps=CONVOLUTIONAL, layers=["auto"])
    assert torch.equal(inputs, before)


@pytest.mark.parametrize(
    "way",
    [
        way if number == 0 else pytest.param(way, marks=pytest.mark.slow)
        for number, way in enumerate((*guests.SEEN, *guests.UNSEEN))
    ],
)
def test_attention_does_too(way: Way) -> None:
    pure, model = guests.pure(guests.transformer()), way(guests.transformer())
    maps = exporter.compute_maps(model, images(), maps=ATTENDING)
    assert_equal(maps, exporter.compute_maps(pure, images(), maps=ATTENDING))


@pytest.mark.parametrize(
    "way",
    [
        way if number == 1 else pytest.param(way, marks=pytest.mark.slow)
        for number, way in enumerate(guests.UNSEEN)
    ],
)
def test_what_autograd_does_not_see_is_refused_by_methods_of_gradients_at_the_input(
    way: Way,
) -> None:
    others = tuple(name for name in CONVOLUTIONAL if name not in AT_THE_INPUT)
    assert_equal(_ordered(maps_of(way, others)), expected(others))
    for name in AT_THE_INPUT:
        with pytest.raises((MapError, ModelError), match=r"input|automatic differentiation"):
            maps_of(way, (name,))


def test_there_are_methods_of_gradients_at_the_input() -> None:
    assert {"saliency", "inputxgradient", "integratedgradients", "fullgrad"} <= set(AT_THE_INPUT)


def export(model: nn.Module, out: Path, **settings: Any) -> Any:
    given = {"limit": 3, "batch_size": 2, "preprocessing": PIXELS, "writers": ()}
    return exporter.export(model, PHOTOS, out=out, **(given | settings))


@pytest.mark.parametrize(
    "way",
    [guests.with_a_hook, pytest.param(guests.in_a_partial, marks=pytest.mark.slow)],
)
def test_a_run_is_that_of_the_pure_form_in_every_part(way: Way, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "maps": ("gradcam", "saliency", "scorecam", "occlusion"),
        "layers": ("@ReLU",),
        "faithfulness": True,
        "limit": 2,
    }
    pure = export(guests.pure(guests.convolutional()), tmp_path / "pure", **settings)
    run = export(way(guests.convolutional()), tmp_path / "run", **settings)
    for row, other in zip(run.rows(), pure.rows(), strict=True):
        assert row.predictions == other.predictions
        for stored, known in zip(row.maps, other.maps, strict=True):
            np.testing.assert_allclose(
                stored.array(), known.array(), atol=1e-4 * np.abs(known.array()).max()
            )
    measured, known = (
        {each.method: (each.deletion, each.insertion, each.road) for each in r.faithfulness()}
        for r in (run, pure)
    )
    assert measured.keys() == known.keys()
    for name, values in measured.items():
        assert values == pytest.approx(known[name], rel=1e-4)
    assert pure.plan.findings.writes_input is False
    assert run.plan.findings.writes_input is True
    assert run.plan.notes == (
        *pure.plan.notes,
        "the model writes into its input; every pass gets its own copy",
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", [guests.in_place, guests.with_a_hook, guests.in_a_closure])
def test_so_are_the_pictures_that_excite_its_classes(way: Way, tmp_path: Path) -> None:
    runs = [
        export(build(guests.convolutional()), tmp_path / build.__name__, maximise=("output:0",))
        for build in (guests.pure, way)
    ]
    pictures = [[each.picture for each in run.maximised()] for run in runs]
    assert len(pictures[0]) == 1
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("way", [guests.without_gradients, guests.by_an_argument])
def test_a_run_says_what_it_cannot_compute(way: Way, tmp_path: Path) -> None:
    with pytest.raises((MapError, ModelError), match=r"input|automatic differentiation"):
        export(way(guests.convolutional()), tmp_path / "refused", maps=("saliency",))
    run = export(way(guests.convolutional()), tmp_path / "run", maps=("gradcam",))
    assert run.plan.findings.writes_input is True
    assert any("writes into its input" in note for note in run.plan.notes)
