from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from torch import Tensor, nn

import exporter
from exporter.capture import capture
from exporter.errors import ExporterError, LayerError, MapError, TargetError
from exporter.explain import compute_maps


@pytest.mark.parametrize("inplace", [False, True])
def test_the_known_network(inplace: bool) -> None:
    model = BasicModel_ConvNet_One_Conv(inplace=inplace)
    inputs = torch.arange(16.0).reshape(1, 1, 4, 4)
    found = compute_maps(model, inputs, maps=["gradcam"], layers=["conv1", "relu1"], targets=[0])
    assert found["gradcam", "conv1"].tolist() == [[[11.25, 13.5], [20.25, 22.5]]]
    assert found["gradcam", "relu1"].tolist() == [[[0, 4], [28, 32.5]]]


def gradcam(model: nn.Module, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Grad-CAM at stage1 of the tiny model, written out with plain autograd."""
    with torch.no_grad():
        activation = model.stage1(model.relu(model.stem(images)))
    activation.requires_grad_()
    output = model.head(model.stage2(activation).mean((2, 3)))
    (gradient,) = torch.autograd.grad(score(output), activation)
    return (gradient.mean((2, 3), keepdim=True) * activation).sum(1).detach()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_targets_of_every_kind(model: nn.Module, images: Tensor, mode: Callable[[], Any]) -> None:
    model, images = model.double(), images.double()
    per_class = [gradcam(model, images, lambda output, c=c: output[:, c].sum()) for c in range(5)]
    predicted = model(images).argmax(1).tolist()
    with mode():

        def at(targets: Any, **options: Any) -> Tensor:
            found = compute_maps(
                model, images, maps=["gradcam"], layers=["stage1"], targets=targets, **options
            )
            assert list(found) == [("gradcam", "stage1")]
            return found["gradcam", "stage1"]

        got = at([1, 4, 1])
        assert got.dtype == torch.float64
        expected = torch.stack([per_class[1][0], per_class[4][1], per_class[1][2]])
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(at(torch.tensor([1, 4, 1])), expected, rtol=1e-12, atol=1e-15)
        chosen = torch.stack([per_class[c][n] for n, c in enumerate(predicted)])
        torch.testing.assert_close(at(None), chosen, rtol=1e-12, atol=1e-15)
        mixed = at([1, lambda row: row[4], lambda row: row[1].reshape(1)])
        torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-15)
        several = at([[1, 0], [4, lambda row: row[0]], [1, 0]])
        assert several.shape == (3, 2, 6, 8)
        torch.testing.assert_close(several[:, 0], expected, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(several[:, 1], per_class[0], rtol=1e-12, atol=1e-15)
        difference = at([lambda row: row[1] - row[0]] * 3)
        torch.testing.assert_close(difference, per_class[1] - per_class[0], rtol=1e-9, atol=1e-15)
        assert at([[1], [4], [1]]).shape == (3, 1, 6, 8)


def test_raw_and_signed_unless_rectified_where_the_method_says_so(
    model: nn.Module, images: Tensor
) -> None:
    options: dict[str, Any] = {"maps": ["gradcam", "hirescam"], "layers": ["stem"]}
    raw = compute_maps(model, images, **options)
    rectified = compute_maps(model, images, rectify=True, **options)
    assert raw["gradcam", "stem"].min() < 0
    assert torch.equal(rectified["gradcam", "stem"], raw["gradcam", "stem"].relu())
    assert torch.equal(rectified["hirescam", "stem"], raw["hirescam", "stem"])


def test_layers_come_in_execution_order_at_their_own_resolution(
    model: nn.Module, images: Tensor
) -> None:
    found = compute_maps(model, images, maps="layercam", layers=["stage2", "stem"])
    assert {key: tuple(value.shape) for key, value in found.items()} == {
        ("layercam", "stem"): (3, 6, 8),
        ("layercam", "stage2"): (3, 2, 3),
    }
    assert list(found) == [("layercam", "stem"), ("layercam", "stage2")]
    everywhere = exporter.compute_maps(model, images)
    assert {method for method, _ in everywhere} == {"gradcam", "layercam", "eigencam"}


def test_cam_is_the_classifier_on_the_last_stage_and_absent_before_it(
    model: nn.Module, images: Tensor
) -> None:
    found = compute_maps(
        model, images, maps=["cam", "gradcam"], layers=["stage1", "stage2"], targets=[[0, 3]] * 3
    )
    with torch.no_grad():
        activation = model.stage2(model.stage1(model.relu(model.stem(images))))
        expected = torch.einsum("tc,nchw->nthw", model.head.weight[[0, 3]], activation)
    torch.testing.assert_close(found["cam", "stage2"], expected)
    assert set(found) == {("cam", "stage2"), ("gradcam", "stage1"), ("gradcam", "stage2")}
    alone = compute_maps(model, images, maps=["cam"], layers=["stage1", "stage2"])
    assert list(alone) == [("cam", "stage2")]
    with pytest.raises(MapError, match="cam does not fit 'stage1'"):
        compute_maps(model, images, maps=["cam"], layers=["stage1"])
    with pytest.raises(TargetError, match="cam explains a class"):
        compute_maps(
            model, images, maps=["cam"], layers=["stage2"], targets=[lambda row: row[0]] * 3
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_give_float32_maps(
    model: nn.Module, images: Tensor, dtype: torch.dtype
) -> None:
    exact = compute_maps(
        model.double(), images, maps=["layercam"], layers=["stage1"], targets=[1] * 3
    )
    got = compute_maps(
        model.to(dtype), images, maps=["layercam"], layers=["stage1"], targets=[1] * 3
    )
    expected = exact["layercam", "stage1"].float()
    assert got["layercam", "stage1"].dtype == torch.float32
    torch.testing.assert_close(
        got["layercam", "stage1"], expected, rtol=0.1, atol=0.05 * float(expected.abs().max())
    )


def test_tokens_and_channels_last_layers_have_their_plane() -> None:
    torch.manual_seed(0)
    vit = torchvision.models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=3)
    swin = torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=3)
    for model, layer, plane in (
        (vit, "encoder.layers.encoder_layer_0", (4, 4)),
        (swin, "features.1", (8, 8)),
        (swin, "features.3", (4, 4)),
    ):
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        inputs = torch.randn(2, 3, 32, 32)
        found = compute_maps(model, inputs, maps=["hirescam"], layers=[layer], targets=[1, 2])
        got = capture(model, inputs, [layer], lambda output: output.gather(1, CLASSES))
        product = got.activations[layer] * got.gradients[layer][0]
        places = product.sum(-1)  # channels are last in both
        expected = places[:, 1:].reshape(2, 4, 4) if model is vit else places
        assert expected.shape[1:] == plane
        torch.testing.assert_close(found["hirescam", layer], expected)


CLASSES = torch.tensor([[1], [2]])


class Boxed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> dict[str, Any]:
        logits = self.inner(x)
        return {"aux": (logits * 0,), "logits": logits, "value": logits[:, 0]}


def test_the_output_may_be_inside_a_container(model: nn.Module, images: Tensor) -> None:
    plain = compute_maps(model, images, maps=["gradcam"], layers=["stage1"], targets=[0] * 3)
    boxed = Boxed(model)
    for output, targets in (("logits", [0] * 3), (None, [0] * 3), ("value", None)):
        found = compute_maps(
            boxed, images, maps=["gradcam"], layers=["inner.stage1"], targets=targets, output=output
        )
        assert torch.equal(found["gradcam", "inner.stage1"], plain["gradcam", "stage1"])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Identity()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept, _unused = self.both((self.conv(x), self.conv(x)))
        return kept.mean((2, 3))


def test_of_a_container_the_elements_that_matter_are_explained(images: Tensor) -> None:
    found = compute_maps(Pair(), images, maps=["gradcam"], layers=["both"])
    assert list(found) == [("gradcam", "both[0]")]
    with pytest.raises(
        LayerError, match=r"'both\[1\]' cannot be explained: no gradient reaches it"
    ):
        compute_maps(Pair(), images, maps=["gradcam", "eigencam"], layers=["both[0]", "both[1]"])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"inputs": torch.ones(3, 4, 4)},
            TargetError,
            r"\(3, 4, 4\); give a tensor \(N, C, H, W\)",
        ),
        ({"inputs": torch.ones(0, 3, 8, 8)}, TargetError, "at least one image"),
        ({"targets": [1, 2]}, TargetError, "2 entries for 3 images"),
        ({"targets": [1]}, TargetError, "has 1 entry for 3 images"),
        (
            {"targets": 1},
            TargetError,
            "targets is 1; give a list with one entry per image, 3 in all",
        ),
        ({"targets": [1, 2, 5]}, TargetError, "target 5 is out of range; the output has 5 values"),
        ({"targets": [1, 2, -1]}, TargetError, "target -1 is out of range"),
        ({"targets": [1, 2, "cat"]}, TargetError, "'cat' is neither a class index"),
        ({"targets": [1, 2, True]}, TargetError, "True is neither a class index"),
        ({"targets": [[1, 2], [1], [1]]}, TargetError, "2, 1, 1 targets"),
        ({"targets": [[], [], []]}, TargetError, "at least one"),
        ({"targets": [[1], 1, 1.5]}, TargetError, "1.5 is neither"),
        ({"targets": [lambda row: row] * 3}, TargetError, r"returned \(5,\); return a tensor"),
        ({"targets": [lambda row: 1.0] * 3}, TargetError, "returned float"),
        ({"layers": ["stage9"]}, LayerError, "stage9"),
        (
            {"layers": ["stage1", "idle"]},
            LayerError,
            "'idle' cannot be explained: its module is never",
        ),
        ({"layers": ["stage1", "head"]}, LayerError, "'head' gives .* not a plane"),
        ({"maps": ["gradcat"]}, MapError, "gradcat"),
        ({"output": "logits"}, TargetError, "logits"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    model: nn.Module,
    images: Tensor,
    changes: dict[str, Any],
    error: type[ExporterError],
    message: str,
) -> None:
    asked: dict[str, Any] = {"inputs": images, "maps": ["gradcam"], "layers": ["stage1"], **changes}
    inputs = asked.pop("inputs")
    with pytest.raises(error, match=message) as caught:
        compute_maps(model, inputs, **asked)
    assert "\n" not in str(caught.value)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_model_is_left_training_and_its_gradients_alone(
    model: nn.Module, images: Tensor
) -> None:
    model.train()
    model(images).sum().backward()
    before = {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }
    compute_maps(model, images)
    assert model.training
    assert all(one.requires_grad for one in model.parameters())
    for name, one in model.named_parameters():
        if one.grad is not None:
            assert torch.equal(one.grad, before[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_maps_are_on_the_models_device(model: nn.Module, images: Tensor) -> None:
    here = compute_maps(
        model.double(), images, maps=["gradcam"], layers=["stage1"], targets=[0] * 3
    )
    there = compute_maps(model.cuda(), images, maps=["gradcam"], layers=["stage1"], targets=[0] * 3)
    assert there["gradcam", "stage1"].is_cuda
    torch.testing.assert_close(there["gradcam", "stage1"].cpu(), here["gradcam", "stage1"])
