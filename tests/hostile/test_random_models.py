"""Models of odd parts: a map is that of plain autograd, or there is a sentence; never zeros.

What a layer's map has to be is computed here with a hook and `torch.autograd.grad`, and how it lies
comes from whoever built the model.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

import exporter
from exporter.containers import rebuild, tensors
from exporter.errors import ExporterError
from tests.hostile.random_models import Odd, Spec, specs

TARGETS = [1, 0]
NAMED = (
    "blocks.layers.1",
    "rnn[0]",
    "decoder.layers.0",
    "parts.0",
    "parts.0.act",
    "parts.0.again#2",
)
_QUICK = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def hooked(model: Odd, layer: str, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a layer's output and the gradient of the targets' logits there; None for none."""
    name, call, path = re.fullmatch(r"([^#\[]*)(?:#(\d+))?(.*)", layer).groups()  # type: ignore[union-attr]
    kept: list[Tensor] = []
    calls = 0

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(call or 1):
            tensor = tensors(output)[path]
            # A leaf where the part detaches it; a copy, for what follows may write to it.
            kept.append(tensor if tensor.requires_grad else tensor.detach().requires_grad_())
            return rebuild(output, lambda at, each: kept[0].clone() if at == path else each)
        return None

    handle = model.get_submodule(name).register_forward_hook(hook)
    start = images.clone().requires_grad_()
    try:
        logits = model.logits(model(start))
    finally:
        handle.remove()
    score = sum(row[target] for row, target in zip(logits, TARGETS, strict=True))
    if not score.requires_grad:
        return kept[0].detach(), None
    return kept[0].detach(), torch.autograd.grad(score, kept[0], allow_unused=True)[0]


def plane(model: Odd, values: Tensor) -> Tensor:
    """Lay a tensor out as whoever built the model knows that it lies."""
    if values.ndim == 4:
        return values
    assert model.grid is not None, "steps, queries and shuffled patches are no plane"
    height, width, prefix, axis = model.grid
    tokens = values.movedim(axis, 0)[:, prefix : prefix + height * width]
    return tokens.mT.unflatten(2, (height, width))


def hold(spec: Spec, layers: list[str]) -> str:
    """Explain a model, hold its maps against autograd, and say what came of it."""
    model = Odd(spec).eval()
    images = torch.rand(2, 3, *spec.size, generator=torch.Generator().manual_seed(spec.seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            maps = exporter.compute_maps(
                model, images, maps=["gradcam"], layers=layers, targets=TARGETS
            )
        except ExporterError as error:
            assert str(error)
            assert "\n" not in str(error)
            return "refused"
        for (_, layer), given_map in maps.items():
            activation, gradient = hooked(model, layer, images)
            assert gradient is not None, f"no gradient reaches {layer}"
            weights = plane(model, gradient).mean((2, 3), keepdim=True)
            expected = (weights * plane(model, activation)).sum(1)
            close = 1e-4 * float(expected.abs().max()) + 1e-12
            torch.testing.assert_close(given_map, expected, atol=close, rtol=1e-3)
    return "right"


@_QUICK
@given(specs())
def test_maps_of_odd_models_are_those_of_autograd_or_refused(spec: Spec) -> None:
    hold(spec, ["auto"])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_so_are_those_of_five_hundred_and_of_layers_that_are_named(part: int) -> None:
    @seed(part)
    @settings(_QUICK, max_examples=125, derandomize=False, database=None)
    @given(specs(), st.sampled_from(NAMED))
    def of_models(spec: Spec, named: str) -> None:
        hold(spec, ["auto"])
        hold(spec, [named])

    of_models()


@pytest.mark.slow
def test_most_of_them_are_explained() -> None:
    """A tester that is refused everywhere tests nothing."""
    plain = Spec((("plain", (2, 1)),), 8, (32, 64), "pool", 0, 0, "mean", "tensor", 3)
    assert hold(plain, ["auto"]) == "right"
    for rest in ("tokens", "batch second", "recurrent", "queries"):
        assert hold(Spec((), 16, (64, 64), rest, 1, 2, "mean", "tuple", 3), ["auto"]) == "right"


def test_few_tokens_are_read_where_they_are() -> None:
    """Eight tokens of 4 × 2 are no 3 × 2 with two besides."""
    spec = Spec((("checkpoint", (2, 2)),), 4, (64, 32), "tokens", 0, 0, "mean", "tensor", 0)
    assert hold(spec, ["auto"]) == "right"
