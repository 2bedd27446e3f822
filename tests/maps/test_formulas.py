"""Each method in float64 against its paper's formula (`benchmarks.parity`), and against peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.parity.formulas import FORMULAS
from benchmarks.parity.taking import Array
from exporter.maps import METHODS, channel_maps, get_methods
from exporter.maps.registry import Method

Hook = Callable[[nn.Module, object, Tensor], Tensor]
Takings = tuple[Any, ...]  # of conftest.Taken


LAYERED = {name: found for name, found in METHODS.items() if found.kind != "pass"}


def close(
    found: Tensor | Array, expected: Tensor | Array, tolerance: float, name: str = ""
) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    span = np.ptp(expected)
    assert span > 0, f"{name}: a map without contrast shows nothing"
    assert np.abs(found - expected).max() <= tolerance * span, name


def maps_of(method: Method, layer: Any) -> Tensor:
    return channel_maps([method], layer.activations, layer.gradients, layer.classifier)[method.name]


def test_every_method_has_a_formula() -> None:
    assert set(FORMULAS) == set(LAYERED)


@pytest.mark.slow
@pytest.mark.parametrize("method", LAYERED.values(), ids=LAYERED)
def test_method_is_its_papers_formula(method: Method, taken: Takings) -> None:
    for layer in taken:
        found = maps_of(method, layer)
        assert found.dtype == torch.float64
        for index in range(3):
            expected = FORMULAS[method.name](
                layer.activations[index].numpy(),
                layer.gradients[index].numpy(),
                layer.classifier[index].numpy(),
            )
            close(found[index], expected, 1e-9, layer.name)


@pytest.mark.parametrize("method", LAYERED.values(), ids=LAYERED)
def test_float32_is_within_its_rounding_of_float64(method: Method, taken: Takings) -> None:
    for layer in taken:
        exact = maps_of(method, layer)
        halves = [tensor.float() for tensor in (layer.activations, layer.gradients)]
        found = channel_maps([method], *halves, layer.classifier.float())[method.name]
        assert found.dtype == torch.float32
        span = exact.amax((1, 2)) - exact.amin((1, 2))
        error = (found - exact).abs().amax((1, 2)) / span
        # These two divide by what nearly vanishes where activations are signed (their caveat).
        divides = (
            method.name in {"gradcam++", "refinecam", "xgradcam"} and layer.activations.min() < 0
        )
        allowed = 1e-3 if divides else 2e-5
        assert error.max() < allowed, (layer.name, error)


def test_gradcam_of_the_small_network_of_captum() -> None:
    """The numbers of captum 0.9.0 on its own test network, where they can be checked by hand."""
    basic_models = pytest.importorskip("captum.testing.helpers.basic_models")
    for inplace in (False, True):
        model = basic_models.BasicModel_ConvNet_One_Conv(inplace=inplace).double().eval()
        model.requires_grad_(False)
        inputs = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4)
        taken: dict[str, Tensor] = {}

        def hook(name: str, store: dict[str, Tensor] = taken) -> Hook:
            def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
                store[name] = output.requires_grad_(True) if output.is_leaf else output
                return output.clone()

            return keep

        model.conv1.register_forward_hook(hook("conv1"))
        model.relu1.register_forward_hook(hook("relu1"))
        score = model(inputs)[0, 0]
        gradients = torch.autograd.grad(score, [taken["conv1"], taken["relu1"]])
        found = [
            channel_maps(get_methods(["gradcam"]), taken[name].detach(), gradient)["gradcam"]
            for name, gradient in zip(("conv1", "relu1"), gradients, strict=True)
        ]
        assert found[0][0].tolist() == [[11.25, 13.5], [20.25, 22.5]]
        assert found[1][0].tolist() == [[0, 4], [28, 32.5]]


PEERS = {
    "gradcam": ("GradCAM", 1e-12),
    "gradcam++": ("GradCAMPlusPlus", 1e-6),  # its epsilon of 1e-6 in the denominator
    "xgradcam": ("XGradCAM", 1e-5),  # its epsilon of 1e-7
    "layercam": ("LayerCAM", 1e-12),
    "hirescam": ("HiResCAM", 1e-12),
    "gradcam-elementwise": ("GradCAMElementWise", 1e-12),
    "eigencam": ("EigenCAM", 1e-6),  # it returns float32
    "eigengradcam": ("EigenGradCAM", 1e-6),
}


@pytest.mark.parametrize("name", PEERS)
def test_method_agrees_with_pytorch_grad_cam(name: str, taken: Takings) -> None:
    peers = pytest.importorskip("pytorch_grad_cam")
    peer_name, tolerance = PEERS[name]
    peer = getattr(peers, peer_name)(nn.Conv2d(1, 1, 1), [])
    for layer in taken:
        if layer.activations.min() < 0 and name in {"gradcam++", "xgradcam"}:
            continue  # denominators near 0, where its epsilon decides
        # Gradients so large that its epsilons do not count.
        gradients = layer.gradients * (1e4 / layer.gradients.abs().amax())
        found = channel_maps([METHODS[name]], layer.activations, gradients)[name].numpy()
        expected = peer.get_cam_image(
            None, None, None, layer.activations.numpy(), gradients.numpy(), False
        )
        for ours, theirs in zip(found, expected, strict=True):
            same = -theirs if name.startswith("eigen") and (ours * theirs).sum() < 0 else theirs
            close(ours, same, tolerance, layer.name)


@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_gradcam_agrees_with_captum(
    layer: str, models: dict[str, nn.Module], taken: Takings, photos: Tensor, targets: list[int]
) -> None:
    attr = pytest.importorskip("captum.attr")
    model = models["resnet18"]
    peer = attr.LayerGradCam(model, model.get_submodule(layer))
    expected = peer.attribute(photos.requires_grad_(True), target=targets, attr_dim_summation=True)
    ours = next(one for one in taken if one.name == f"resnet18/{layer}")
    close(maps_of(METHODS["gradcam"], ours), expected[:, 0].detach(), 1e-9)


@pytest.mark.parametrize(
    ("name", "peer_name"),
    [("gradcam", "GradCAM"), ("layercam", "LayerCAM"), ("xgradcam", "XGradCAM")],
)
def test_method_agrees_with_torchcam(
    name: str,
    peer_name: str,
    *,
    models: dict[str, nn.Module],
    taken: Takings,
    photos: Tensor,
    targets: list[int],
) -> None:
    methods = pytest.importorskip("torchcam.methods")
    model = models["resnet18"]
    ours = next(one for one in taken if one.name == "resnet18/layer4")
    with getattr(methods, peer_name)(model, "layer4", input_shape=(3, 80, 80)) as extractor:
        extractor._relu = False
        scores = model(photos.requires_grad_(True))
        expected = extractor(targets, scores, normalized=False)[0]
    # Its XGrad-CAM adds 1e-8 to the sum of the activations.
    close(maps_of(METHODS[name], ours), expected.detach(), 1e-7 if name == "xgradcam" else 1e-9)
