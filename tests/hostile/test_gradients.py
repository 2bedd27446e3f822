"""Models through which no gradient flows: refused with the true reason, never maps of zeros."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import ExporterError
from exporter.maps import METHODS
from tests.hostile.guests import Around, convolutional, transformer

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"


def under_no_grad(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)
    model.forward = torch.no_grad()(model.forward)  # type: ignore[method-assign]
    return model


def under_inference_mode(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)
    original = model.forward

    def forward(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return original(x)

    model.forward = forward  # type: ignore[method-assign]
    return model


def detached_at_the_end(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)
    model.register_forward_hook(lambda _module, _inputs, output: output.detach())
    return model


def through_numpy(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)
    model.register_forward_hook(
        lambda _module, _inputs, output: torch.from_numpy(output.detach().numpy().copy())
    )
    return model


def detached_at_the_start(net: nn.Module) -> nn.Module:
    return Around(net, lambda x: x.detach().requires_grad_())


WHOLLY = (under_no_grad, under_inference_mode, detached_at_the_end, through_numpy)
"""No gradient leaves the output."""

GRADIENTS = [
    name
    for name, method in METHODS.items()
    if not method.only_forward and not method.needs.attention and not method.needs.classifier
]
TRUE = "no_grad|inference_mode|detaches|detached"


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "build", [under_no_grad, *(pytest.param(b, marks=pytest.mark.slow) for b in WHOLLY[1:])]
)
def test_every_method_of_gradients_is_refused_with_the_true_reason(
    build: Callable[[nn.Module], nn.Module],
) -> None:
    model = build(convolutional())
    for name in GRADIENTS:
        with pytest.raises(ExporterError, match=TRUE):
            exporter.compute_maps(model, images(), maps=[name], layers=["0.2", "0.4"])
    maps = exporter.compute_maps(model, images(), maps=["eigencam", "scorecam"], layers=["0.4"])
    assert all(values.abs().sum() > 0 for values in maps.values())


@pytest.mark.parametrize("name", ["saliency", "integratedgradients", "fullgrad", "smoothgrad"])
def test_so_are_gradients_at_an_input_that_the_model_detaches(name: str) -> None:
    model = detached_at_the_start(convolutional())
    with pytest.raises(ExporterError, match="reaches the input or the layer: the model detaches"):
        exporter.compute_maps(model, images(), maps=[name], layers=["net.4"])
    maps = exporter.compute_maps(model, images(), maps=["gradcam"], layers=["net.4"])
    assert maps["gradcam", "net.4"].abs().sum() > 0


@pytest.mark.parametrize("build", [under_no_grad, detached_at_the_end])
def test_attention_is_refused_too(build: Callable[[nn.Module], nn.Module]) -> None:
    for name in ("legrad", "chefer"):
        with pytest.raises(ExporterError, match=TRUE):
            exporter.compute_maps(build(transformer()), images(), maps=[name])
    rollout = exporter.compute_maps(build(transformer()), images(), maps=["rollout"])
    assert rollout["rollout", "attention"].abs().sum() > 0


def test_a_part_under_no_grad_is_said_of_that_part() -> None:
    model = convolutional()
    original = model[3].forward

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            return original(x)

    model[3].forward = forward
    with pytest.raises(ExporterError, match=r"2: no gradient.* output carries none"):
        exporter.compute_maps(model, images(), maps=["gradcam"], layers=["2"])
    assert exporter.compute_maps(model, images(), maps=["gradcam"], layers=["4"])


@pytest.mark.parametrize(
    "build", [under_no_grad, pytest.param(detached_at_the_end, marks=pytest.mark.slow)]
)
def test_a_run_says_so_before_it_begins(
    build: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    for name in ("gradcam", "saliency"):
        with pytest.raises(ExporterError, match=TRUE):
            exporter.export(
                build(convolutional()),
                PHOTOS,
                out=tmp_path / "run",
                maps=(name,),
                layers=("0.4",),
                limit=2,
                writers=(),
                preprocessing={"size": 16},
            )
    assert not (tmp_path / "run" / "plan.json").exists()
