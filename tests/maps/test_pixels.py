"""Pixel methods against captum, against closed forms, and what their axioms promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parity.peers import plain
from benchmarks.parity.perturbation import rise
from benchmarks.parity.pixels import fullgrad
from benchmarks.parity.subjects import Subject
from benchmarks.parity.taking import Shown
from exporter import compute_maps
from exporter.errors import MapError
from exporter.maps import METHODS, PassContext, get_methods
from exporter.maps.fullgrad import full_gradients

attr = pytest.importorskip("captum.attr")
basic_models = pytest.importorskip("captum.testing.helpers.basic_models")

PIXEL = [name for name, found in METHODS.items() if found.record.pixel]
OURS = (
    "saliency",
    "inputxgradient",
    "smoothgrad",
    "integratedgradients",
    "guidedbackprop",
    "deconvnet",
    "guidedgradcam",
    "fullgrad",
    "occlusion",
    "rise",
)


@pytest.fixture
def small(photos: Tensor) -> Tensor:
    """Two images of 48 pixels."""
    return photos[:2, :, :48, 16:64].contiguous()


def pixel(model: nn.Module, images: Tensor, name: str, targets: Any, **options: Any) -> Tensor:
    (method,) = (one.name for one in get_methods([name]))
    found = compute_maps(model, images, maps=[name], targets=targets, **options)
    assert list(found) == [(method, "")]
    return found[method, ""]


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert found.dtype == torch.float64
    assert found.shape == expected.shape
    span = (expected.amax() - expected.amin()).item()
    assert span > 0
    assert (found - expected).abs().max().item() <= tolerance * span


def test_the_numbers_of_the_small_network() -> None:
    gradient = [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    guided = [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
    deconvnet = [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]
    inputs = torch.arange(16.0).reshape(1, 1, 4, 4)
    for inplace in (False, True):
        model = basic_models.BasicModel_ConvNet_One_Conv(inplace=inplace)
        for free in (True, False):
            model.requires_grad_(free)
            for name, expected in (
                ("saliency", gradient),
                ("guidedbackprop", guided),
                ("deconvnet", deconvnet),
            ):
                for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
                    with mode():
                        assert pixel(model, inputs, name, [0]).tolist() == [[expected]]


SINGLE = 1e-6
"""Of the range: captum's occlusion and quadrature weights are float32, whatever the model is."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_captums(name: str, models: dict[str, nn.Module], small: Tensor) -> None:
    model, oracle = models[name], plain(models[name])
    expected = attr.Saliency(oracle).attribute(small.clone(), [2, 5], abs=False)
    assert_equal(pixel(model, small, "saliency", [2, 5]), expected)
    expected = attr.InputXGradient(oracle).attribute(small.clone(), [2, 5]).detach()
    assert_equal(pixel(model, small, "inputxgradient", [2, 5]), expected)
    expected = attr.IntegratedGradients(oracle).attribute(
        small[:1], 0, 2, n_steps=5, method="gausslegendre"
    )
    assert_equal(pixel(model, small[:1], "ig:steps=5", [2]), expected.detach(), SINGLE)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        "Rectified",
    ],
)
def test_occlusion_is_captums_and_the_formula(
    name: str, models: dict[str, nn.Module], small: Tensor
) -> None:
    model = positive() if name == "Rectified" else models[name]
    found = pixel(model, small, "occlusion:window=20,stride=12", [2, 3])
    expected = attr.Occlusion(model).attribute(
        small, (3, 20, 20), strides=(3, 12, 12), target=[2, 3]
    )
    assert_equal(found.expand(-1, 3, -1, -1).float().double(), expected.double(), SINGLE)
    falls, covers = torch.zeros(2, 48, 48, dtype=torch.float64), torch.zeros(48, 48)
    with torch.no_grad():
        whole = model(small)[[0, 1], [2, 3]]
        for top in (0, 12, 24, 36):
            for left in (0, 12, 24, 36):
                covered = small.clone()
                covered[:, :, top : top + 20, left : left + 20] = 0
                fall = whole - model(covered)[[0, 1], [2, 3]]
                falls[:, top : top + 20, left : left + 20] += fall[:, None, None]
                covers[top : top + 20, left : left + 20] += 1
    assert_equal(found[:, 0], falls / covers)


@pytest.mark.slow
def test_integrated_gradients_written_out(models: dict[str, nn.Module], small: Tensor) -> None:
    model = models["mobilenet_v3_small"]
    nodes, weights = np.polynomial.legendre.leggauss(50)
    expected = torch.zeros_like(small[:1])
    for node, weight in zip(nodes, weights, strict=True):
        inputs = (small[:1] * (node + 1) / 2).requires_grad_()
        expected += weight / 2 * torch.autograd.grad(model(inputs)[0, 3], inputs)[0]
    assert_equal(pixel(model, small[:1], "ig", [3]), expected * small[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("squeezenet1_1", "features.12"),
        pytest.param("shufflenet_v2_x0_5", "stage4", marks=pytest.mark.slow),
        pytest.param("mnasnet0_5", "layers", marks=pytest.mark.slow),
    ],
)
def test_guided_methods_are_captums(name: str, last: str, small: Tensor) -> None:
    torch.manual_seed(3)
    model = torchvision.models.get_model(name, weights=None, num_classes=10).double().eval()
    assert any(module.inplace for module in model.modules() if isinstance(module, nn.ReLU))
    oracle = plain(model)
    for method, peer in (("guidedbackprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")):
        expected = getattr(attr, peer)(oracle).attribute(small.clone(), [2, 5]).detach()
        assert_equal(pixel(model, small, method, [2, 5]), expected)
    expected = attr.GuidedGradCam(oracle, dict(oracle.named_modules())[last]).attribute(
        small.clone(), [2, 5], interpolate_mode="bilinear"
    )
    first = next(iter(dict(model.named_children())))
    found = pixel(model, small, "guidedgradcam", [2, 5], layers=[f"{first}.0", last])
    assert_equal(found, expected.detach())


class Rectified(nn.Module):
    """One network, its ReLUs written in one of the ways people write them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Conv2d(3, 6, 3)
        self.second = nn.Conv2d(6, 8, 3)
        self.relus = nn.ModuleList(nn.ReLU(inplace=how == "in place") for _ in range(3))
        self.head = nn.Linear(8, 4)

    def relu(self, x: Tensor, index: int) -> Tensor:
        if self.how == "reused":
            return self.relus[0](x)
        if self.how in ("modules", "in place"):
            return self.relus[index](x)
        if self.how == "dropped":
            functional.relu_(x)  # only what it does to its argument counts
            return x
        calls: dict[str, Callable[[Tensor], Tensor]] = {
            "functional": functional.relu,
            "functional in place": lambda x: functional.relu(x, inplace=True),
            "torch": torch.relu,
            "method": lambda x: x.relu(),
            "method in place": lambda x: x.relu_(),
        }
        return calls[self.how](x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x), 0)
        x = self.relu(self.second(x), 1).mean((2, 3))
        return self.relu(self.head(x), 2)


class Smooth(nn.Module):
    """Without a bend, so that a quadrature of few nodes is exact."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(3, 6, 5, stride=2)
        self.second = nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.second(torch.tanh(self.first(x))))
        return self.head(x.mean((2, 3)))


def normalised() -> nn.Sequential:
    """Convolutions with and without a bias, batch normalisation with statistics, ReLUs in place."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                nn.init.normal_(tensor, mean=0.2)
            nn.init.uniform_(module.running_var, 0.2, 2)
    return model.eval()


def positive() -> Rectified:
    """The network above, with outputs that its last ReLU lets through."""
    torch.manual_seed(0)
    model = Rectified("functional").double()
    model.head.bias.data += 1
    return model


WAYS = (
    "in place",
    "reused",
    "functional",
    "functional in place",
    "dropped",
    "torch",
    "method",
    "method in place",
)


@pytest.mark.parametrize("how", WAYS)
def test_the_rule_reaches_every_way_to_write_a_relu(how: str) -> None:
    torch.manual_seed(0)
    oracle = Rectified("modules").double()
    oracle.head.bias.data += 1
    model = Rectified(how).double()
    model.load_state_dict(oracle.state_dict())
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    for method, peer in (("guidedbackprop", "GuidedBackprop"), ("deconvnet", "Deconvolution")):
        expected = getattr(attr, peer)(oracle).attribute(images.clone(), [0, 1, 2]).detach()
        assert_equal(pixel(model, images, method, [0, 1, 2]), expected)


def test_relu6_passes_between_its_bends() -> None:
    class Capped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (functional.relu6(x) * torch.tensor([1.0, 1, 1, -1])).sum((1, 2, 3))[:, None]

    inputs = torch.tensor([-1.0, 3, 7, 3]).view(1, 1, 1, 4)
    assert pixel(Capped(), inputs, "guidedbackprop", [0]).flatten().tolist() == [0, 1, 0, 0]
    assert pixel(Capped(), inputs, "deconvnet", [0]).flatten().tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_relu6_module_follows_the_rules_and_a_hardtanh_does_not(in_place: bool) -> None:
    weights = torch.tensor([1.0, 1, 1, -1])

    class Weighted(nn.Module):
        def __init__(self, unit: nn.Module) -> None:
            super().__init__()
            self.unit = unit

        def forward(self, x: Tensor) -> Tensor:
            return (self.unit(x * 1) * weights).sum((1, 2, 3))[:, None]

    inputs = torch.tensor([-1.0, 3, 7, 3]).view(1, 1, 1, 4)
    capped = Weighted(nn.ReLU6(in_place))
    assert pixel(capped, inputs, "guidedbackprop", [0]).flatten().tolist() == [0, 1, 0, 0]
    assert pixel(capped, inputs, "deconvnet", [0]).flatten().tolist() == [1, 1, 1, 0]
    both_ways = Weighted(nn.Hardtanh(-2, 4, in_place))
    assert pixel(both_ways, inputs, "guidedbackprop", [0]).flatten().tolist() == [1, 1, 0, -1]


def test_smoothgrad_is_the_mean_gradient_of_noisy_images(small: Tensor) -> None:
    model = Smooth().double()
    found = pixel(model, small, "smoothgrad:samples=3,noise=0.2", [2, 1], seed=7)
    generator = torch.Generator().manual_seed(7)
    spans = torch.stack([one.max() - one.min() for one in small])
    gradients = []
    for _ in range(3):
        noise = torch.randn(3, 48, 48, generator=generator).double()
        noisy = small + 0.2 * spans.view(2, 1, 1, 1) * noise
        gradients.append(attr.Saliency(model).attribute(noisy, [2, 1], abs=False))
    assert_equal(found, torch.stack(gradients).mean(0))
    single = pixel(model.float(), small.float(), "smoothgrad:samples=3,noise=0.2", [2, 1], seed=7)
    torch.testing.assert_close(single, found.float(), rtol=1e-3, atol=1e-6)
    model.double()
    other = pixel(model, small, "smoothgrad:samples=3,noise=0.2", [2, 1], seed=8)
    assert not torch.equal(found, other)
    without = pixel(model, small, "smoothgrad:samples=2,noise=0", [2, 1])
    assert_equal(without, pixel(model, small, "saliency", [2, 1]))


def test_rise_written_out(small: Tensor) -> None:
    """The paper's mean over the authors' masks, drawn here and up-sampled by a matrix."""
    model = normalised()
    shown = Shown(Subject(normalised, ("0",)), model, small[:1], 1, ("0",))
    found = pixel(model, small[:1], "rise:samples=9,cells=3", [1])
    # Masks are float32, whatever the model is.
    assert_equal(found[0], torch.from_numpy(rise(shown)), SINGLE)


def test_rise_with_one_cell_shows_the_whole_image_or_nothing(small: Tensor) -> None:
    model = Smooth().double()
    model.head.bias.data.zero_()
    model.second.bias.data.zero_()
    model.first.bias.data.zero_()  # nothing seen is a score of 0
    chance, seen = np.random.default_rng(3), 0
    for _ in range(40):
        seen += int(chance.random() < 0.25)
        chance.integers(48, size=2)
    found = pixel(model, small, "rise:samples=40,cells=1,p=0.25", [2, 1], seed=3)
    with torch.no_grad():
        score = model(small)[[0, 1], [2, 1]]
    assert 0 < seen < 40
    expected = (score * seen / (40 * 0.25)).view(2, 1, 1, 1).expand(2, 1, 48, 48)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert not torch.equal(found, pixel(model, small, "rise:samples=41,cells=1", [2, 1], seed=4))


def test_rise_refuses_a_share_that_is_none(small: Tensor) -> None:
    for share in ("0", "1.5"):
        with pytest.raises(MapError, match=r"'p' of 'rise' is .*; give a share above 0 and at m"):
            pixel(normalised(), small, f"rise:p={share}", [1, 1])


@pytest.mark.parametrize("name", ["fullgrad", "smoothgrad", "integratedgradients"])
def test_sums_of_half_precision_terms_lose_nothing(name: str, small: Tensor) -> None:
    """Added up in bfloat16, 256 would be the last number that a term of 1 still changes."""
    model = normalised().to(torch.bfloat16)
    images = small.to(torch.bfloat16)
    found = pixel(model, images, name, [1, 2])
    assert found.dtype == torch.float32
    values = found.unique()
    # bfloat16 has 128 numbers between a power of two and the next.
    assert len(values[(values > values.max() / 2)]) > 128


def test_integrated_gradients_sum_to_what_the_target_gained(small: Tensor) -> None:
    model = Smooth().double()
    with torch.no_grad():
        gained = (model(small) - model(torch.zeros_like(small)))[[0, 1], [2, 1]]
    found = pixel(model, small, "integratedgradients", [2, 1]).sum((1, 2, 3))
    torch.testing.assert_close(found, gained, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "Rectified"])
def test_full_gradients_sum_to_the_target(
    name: str, models: dict[str, nn.Module], small: Tensor
) -> None:
    model = positive() if name == "Rectified" else models[name]
    columns = torch.tensor([[1, 3], [0, 2]])
    sums = torch.zeros(2, 2, dtype=torch.float64)

    def receive(target: int, term: Tensor) -> None:
        sums[:, target] += term.flatten(1).sum(1)

    context = PassContext(
        module=model,
        inputs=small,
        targets=columns,
        count=2,
        scorer=lambda output, _: output.gather(1, columns),
        rest=lambda *_: None,
    )
    gradients = full_gradients(context, receive)
    found = sums + (small.unsqueeze(1) * gradients).sum((2, 3, 4))
    with torch.no_grad():
        expected = model(small).gather(1, columns)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_fullgrad_written_out(small: Tensor) -> None:
    """The paper's sum over the input and every bias, by hooks on modules, channel by channel."""
    model = normalised()
    shown = Shown(Subject(normalised, ("0",)), model, small[:1], 1, ("0",))
    expected = torch.from_numpy(fullgrad(shown))
    assert_equal(pixel(model, small[:1], "fullgrad", [1])[0], expected)


def test_fullgrad_leaves_out_linear_layers_that_are_given_channels_last() -> None:
    """As ConvNeXt's and Swin's are: (N, H, W, C) must not be read as channels of a plane."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 4, stride=4)
            self.mix = nn.Linear(6, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.mix(self.conv(x).permute(0, 2, 3, 1))
            return self.head(x.relu().mean((1, 2)))

    torch.manual_seed(0)
    model = Last().double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    kept: list[Tensor] = []
    model.conv.register_forward_hook(lambda _m, _i, output: kept.append(output))
    start = images.clone().requires_grad_()
    score = model(start)[[0, 1], [1, 2]].sum()
    at_input, at_conv = torch.autograd.grad(score, [start, kept[0]])
    expected = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    for term in (images * at_input, model.conv.bias[:, None, None] * at_conv):
        size = term.detach().abs()
        low, high = size.amin((2, 3), keepdim=True), size.amax((2, 3), keepdim=True)
        share = (size - low) / (high - low)
        expected += functional.interpolate(share, (16, 16), mode="bilinear").sum(1, keepdim=True)
    model.conv._forward_hooks.clear()
    assert_equal(pixel(model, images, "fullgrad", [1, 2]), expected)


def test_fullgrad_without_rescaling_keeps_sums() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model = model.double()
    found = pixel(model, images, "fullgrad:rescale=none", [1, 2]).sum((1, 2, 3))
    expected = model(images)[[0, 1], [1, 2]] - model[3].bias[[1, 2]]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OURS)
def test_an_image_is_explained_by_itself(name: str) -> None:
    model = normalised().train()
    photos = torch.randn(3, 3, 16, 20, generator=torch.Generator().manual_seed(2)).double()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    few = {
        "smoothgrad": "smoothgrad:samples=3",
        "integratedgradients": "ig:steps=4",
        "rise": "rise:samples=40",
    }
    spelt = few.get(name, name)
    targets = [[2, 0], [1, 1], [0, 2]]
    layers = {"layers": ["4"]}
    together = pixel(model, photos, spelt, targets, **layers)
    channels = 1 if name in ("fullgrad", "occlusion", "rise") else 3
    assert together.shape == (3, 2, channels, 16, 20)
    assert together.isfinite().all()
    alone = [pixel(model, photos[n : n + 1], spelt, targets[n : n + 1], **layers) for n in range(3)]
    assert_equal(torch.cat(alone), together, 1e-10)
    functions = [[lambda row, c=c: row[c] for c in row] for row in targets]
    with torch.inference_mode():
        assert_equal(pixel(model, photos, spelt, functions, **layers), together, 1e-12)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["saliency", "guidedbackprop", "fullgrad"])
def test_a_network_without_layers_of_places_has_pixel_maps(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
    found = pixel(model, torch.randn(2, 3, 4, 4), name, [0, 1])
    assert found.shape == (2, 1 if name == "fullgrad" else 3, 4, 4)
    assert found.abs().max() > 0


def test_settings_are_written_after_the_name() -> None:
    (found,) = get_methods(["SmoothGrad: samples=8, noise=0.3"])
    assert found.record.settings == {**METHODS["smoothgrad"].record.settings, "samples": "8"} | {
        "noise": "0.3"
    }
    assert METHODS["smoothgrad"].record.settings["samples"] == "16"
    assert found.settings == {"samples": 8, "noise": 0.3, "reduce": "max-abs", "size": 56}
    assert found.sentence(2) == (
        "8 forwards of noisy images and, for each, 2 backwards to the input (samples=8, noise=0.3)"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("smoothgrad:sample=8", "no setting 'sample'; did you mean 'samples'"),
        ("smoothgrad:samples=2.5", "'samples' of 'smoothgrad' is '2.5'; give a whole number"),
        ("smoothgrad:noise=much", "is 'much'; give a number"),
        ("smoothgrad:noise=-1", "is '-1'; give a number"),
        ("smoothgrad:noise=inf", "is 'inf'; give a number that is not negative, such as 0.15"),
        ("saliency:reduce=mean", "is 'mean'; give one of sum, sum-abs, max-abs"),
        ("fullgrad:rescale=layer", "is 'layer'; give one of channel, none"),
        ("gradcam:samples=3", "'gradcam' has no setting 'samples'; choose one of smooth"),
    ],
)
def test_a_wrong_setting_is_one_sentence(wrong: str, said: str) -> None:
    with pytest.raises(MapError) as caught:
        get_methods([wrong])
    assert said in str(caught.value)
