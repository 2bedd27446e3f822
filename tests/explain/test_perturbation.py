"""Score-CAM, Ablation-CAM, Finer-CAM and ShapleyCAM against loops over their papers' formulas."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parity.perturbation import LAYERED
from benchmarks.parity.subjects import Subject
from benchmarks.parity.taking import Shown, activation_of, replaced
from exporter.explain import compute_maps
from exporter.maps.context import ROWS

DOUBLE = torch.float64


class Residual(nn.Module):
    """A small ResNet's stages: a skip around the second, ReLUs in place, a pooled linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.layer = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(True))
        self.inner = nn.Conv2d(16, 16, 3, 1, 1)
        self.head = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.stem(x))
        x = functional.relu_(x + self.inner(x))
        return self.head(functional.adaptive_avg_pool2d(x, 3).square().mean((2, 3)))


class Smooth(nn.Module):
    """Signed activations (SiLU, tanh) and a head that is not linear, with channels last inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.layer = nn.Sequential(nn.SiLU(), nn.Conv2d(6, 12, 2, 2), nn.Tanh())
        self.mix = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.stem(x)).permute(0, 2, 3, 1)
        return self.head(functional.silu(self.mix(x)).mean((1, 2)))


@pytest.fixture(params=[Residual, Smooth])
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(3)
    return request.param().to(DOUBLE).eval()


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(3, 3, 32, 32, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def larger() -> Tensor:
    return torch.randn(3, 3, 64, 64, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))


TARGETS = [4, 0, 2]


def close(found: Tensor, expected: Tensor) -> None:
    span = float(expected.max() - expected.min())
    assert span > 0, "a map without contrast shows nothing"
    assert float((found - expected).abs().max()) <= 1e-9 * span


def shapleycam(net: nn.Module, picture: Tensor, target: int) -> Tensor:
    activation = activation_of(net, picture[None], "layer")[0]

    def score(flat: Tensor) -> Tensor:
        return replaced(net, picture[None], "layer", flat.view_as(activation)[None])[target]

    flat = activation.flatten()
    steep = torch.autograd.functional.jacobian(score, flat)
    hessian = torch.autograd.functional.hessian(score, flat)
    corrected = (steep - hessian @ flat / 2).view_as(activation)
    return sum(
        (s.mean() * a for s, a in zip(corrected, activation, strict=True)),
        start=torch.zeros_like(activation[0]),
    )


FORMULAS = ("scorecam", "ablationcam", "finercam")


def formula(name: str, net: nn.Module, picture: Tensor, target: int) -> Tensor:
    subject = Subject(Residual, ("layer",))
    shown = Shown(subject, net, picture[None], target, subject.layers)
    return torch.from_numpy(LAYERED[name](shown, "layer"))


@pytest.mark.parametrize("name", FORMULAS)
def test_method_is_its_papers_formula_image_by_image(
    name: str, net: nn.Module, pictures: Tensor
) -> None:
    found = compute_maps(net, pictures, maps=[name], layers=["layer"], targets=TARGETS)
    for one, picture, target in zip(found[name, "layer"], pictures, TARGETS, strict=True):
        close(one, formula(name, net, picture, target))


@pytest.mark.slow
def test_shapleycam_is_gradient_less_half_of_the_whole_hessian(net: nn.Module) -> None:
    pictures = torch.randn(2, 3, 20, 20, dtype=DOUBLE, generator=torch.Generator().manual_seed(7))
    found = compute_maps(net, pictures, maps=["shapleycam"], layers=["layer"], targets=[1, 2])
    for one, picture, target in zip(found["shapleycam", "layer"], pictures, [1, 2], strict=True):
        close(one, shapleycam(net, picture, target))


@pytest.mark.parametrize("in_place", [False, True])
def test_shapleycam_goes_through_a_hardsigmoid(in_place: bool) -> None:
    """Torch cannot differentiate it twice; written out it is clamp(x / 6 + 1/2, 0, 1)."""

    class Gated(nn.Module):
        def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 4, 4)
            self.head = nn.Linear(4, 3)
            self.gate = gate

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x)
            return self.head((x * self.gate(x.mean((2, 3), keepdim=True) * 4)).mean((2, 3)))

    torch.manual_seed(0)
    net = Gated(lambda x: functional.hardsigmoid(x, in_place)).to(DOUBLE)
    plain = Gated(lambda x: (x / 6 + 0.5).clamp(0, 1)).to(DOUBLE)
    plain.load_state_dict(net.state_dict())
    images = torch.randn(2, 3, 16, 16, dtype=DOUBLE, generator=torch.Generator().manual_seed(7))
    found = compute_maps(net, images, maps=["shapleycam", "gradcam"], layers=["layer"])
    for one, image in zip(found["shapleycam", "layer"], images, strict=True):
        close(one, shapleycam(plain, image, int(net(image[None]).argmax())))
    assert not torch.allclose(found["shapleycam", "layer"], found["gradcam", "layer"])


def test_shapleycam_says_where_there_is_no_second_derivative() -> None:
    from exporter.errors import MapError

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.aten.hardsigmoid(self.layer(x).square()).mean((2, 3))

    said = r"shapleycam needs second derivatives.*hardsigmoid_backward.*; choose gradcam"
    with pytest.raises(MapError, match=said):
        compute_maps(Net(), torch.rand(1, 3, 16, 16), maps=["shapleycam"], layers=["layer"])


@pytest.mark.parametrize("name", [*FORMULAS, "shapleycam"])
def test_a_batch_is_its_images_one_by_one_and_targets_one_by_one(
    name: str, net: nn.Module, pictures: Tensor
) -> None:
    targets = [[4, 1], [0, 3], [2, 4]]
    every = compute_maps(net, pictures, maps=[name], layers=["layer"], targets=targets)
    for at in range(3):
        for t in range(2):
            alone = compute_maps(
                net, pictures[at : at + 1], maps=[name], layers=["layer"], targets=[targets[at][t]]
            )
            close(every[name, "layer"][at, t], alone[name, "layer"][0])


@pytest.mark.parametrize("name", ["scorecam", "ablationcam"])
def test_chunks_are_bounded_and_change_nothing(
    name: str, net: nn.Module, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0

    def watch(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal most
        most = max(most, len(given[0]))

    with net.head.register_forward_pre_hook(watch):
        whole = compute_maps(net, pictures, maps=[name], layers=["layer"], targets=TARGETS)
        assert 3 < most <= ROWS
        most = 0
        monkeypatch.setattr("exporter.maps.context.ROWS", 1)
        pieces = compute_maps(net, pictures, maps=[name], layers=["layer"], targets=TARGETS)
        assert most == 3, "one variant of every image"
    close(pieces[name, "layer"], whole[name, "layer"])


def test_ablation_runs_the_layers_before_once_and_on_one_image(pictures: Tensor) -> None:
    torch.manual_seed(3)
    net = Residual().to(DOUBLE)
    rows: list[int] = []
    net.stem.register_forward_pre_hook(lambda _m, given: rows.append(len(given[0])))
    compute_maps(net, pictures, maps=["ablationcam"], layers=["layer"], targets=TARGETS)
    # The shared pass.
    assert rows[0] == 3
    assert set(rows[1:]) == {1}


@pytest.mark.parametrize("name", ["scorecam", "ablationcam"])
def test_only_the_strongest_channels_are_tried(name: str, net: nn.Module, larger: Tensor) -> None:
    rows = 0

    def count(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal rows
        rows += len(given[0])

    net.head.register_forward_pre_hook(count)
    some = compute_maps(net, larger, maps=[f"{name}:channels=4"], layers=["layer"], targets=TARGETS)
    # A trial of how the layer lies, with a moved patch where axes move; the shared pass; for
    # what follows alone a trial of 2 and of all images; and the whole.
    extra = {"scorecam": 1 + 3, "ablationcam": 1 + 3 + 2 + 3 + 3}[name]
    extra += 7 * isinstance(net, Smooth)
    assert rows == 4 * 3 + extra
    full = compute_maps(net, larger, maps=[name], layers=["layer"], targets=TARGETS)
    assert float((some[name, "layer"] - full[name, "layer"]).abs().max()) > 0
    if name == "ablationcam":
        for one, picture, target in zip(some[name, "layer"], larger, TARGETS, strict=True):
            activation = activation_of(net, picture[None], "layer")[0]
            kept = activation.abs().mean((1, 2)).topk(4).indices.tolist()
            whole = net(picture[None])[0, target].detach()
            expected = torch.zeros_like(activation[0])
            for number in kept:
                without = activation.clone()
                without[number] = 0
                slope = (
                    1
                    - replaced(net, picture[None], "layer", without[None])[target].detach() / whole
                )
                expected += slope * activation[number]
            close(one, expected)


class Scaled(nn.Module):
    """A model whose logits are multiplied."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net = net
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.factor


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("name", ["ablationcam", "finercam", "shapleycam"])
def test_scale_of_the_logits_does_not_matter(
    name: str, factor: float, net: nn.Module, pictures: Tensor
) -> None:
    plain = compute_maps(net, pictures, maps=[name], layers=["layer"], targets=TARGETS)
    scaled = compute_maps(
        Scaled(net, factor), pictures, maps=[name], layers=["net.layer"], targets=TARGETS
    )
    unit = 1.0 if name == "ablationcam" else factor
    close(scaled[name, "net.layer"] / unit, plain[name, "layer"])


def test_scorecam_depends_on_the_scale_as_its_caveat_says(net: nn.Module, pictures: Tensor) -> None:
    def maps(factor: float) -> Tensor:
        return compute_maps(
            Scaled(net, factor), pictures, maps=["scorecam"], layers=["net.layer"], targets=TARGETS
        )["scorecam", "net.layer"]

    for one, large, picture in zip(maps(1e-9), maps(1e9), pictures, strict=True):
        activation = activation_of(net, picture[None], "layer")[0]
        assert float((one - activation.mean(0)).abs().max()) < 1e-7
        assert float((large - activation).abs().amax((1, 2)).min()) < 1e-9


def test_a_score_of_zero_gives_the_plain_drop() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 1, bias=False))
    net = net.to(DOUBLE)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0])[:, None, None, None])
        net[2].weight.fill_(1.0)
    picture = torch.arange(4, dtype=DOUBLE).view(1, 1, 2, 2)
    found = compute_maps(net, picture, maps=["ablationcam"], layers=["0"], targets=[0])
    # y = 6 − 6 = 0; without the first channel −6, without the second 6: drops 6 and −6.
    assert torch.equal(found["ablationcam", "0"], 12 * picture[0])


def test_finercam_needs_classes(net: nn.Module, pictures: Tensor) -> None:
    from exporter.errors import MapError

    with pytest.raises(MapError, match="compares a class with others"):
        compute_maps(
            net, pictures, maps=["finercam"], layers=["layer"], targets=[lambda row: row.sum()] * 3
        )


def drawn(maps: Tensor) -> np.ndarray[Any, Any]:
    """Return maps as pytorch-grad-cam gives them: ReLU, min-max, up-sampled, min-max."""
    values = maps.relu()
    values = values - values.amin((1, 2), keepdim=True)
    values = values / (values.amax((1, 2), keepdim=True) + 1e-7)
    return values.numpy()


def test_against_pytorch_grad_cam(larger: Tensor) -> None:
    """In float32; ablation on activations that are not negative, one neighbour for Finer-CAM."""
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(3)
    net = Residual().eval()
    inputs = larger.float()
    targets = [ClassifierOutputTarget(target) for target in TARGETS]
    found = compute_maps(
        net,
        inputs,
        maps=["ablationcam", "shapleycam", "finercam:classes=1"],
        layers=["layer"],
        targets=TARGETS,
    )
    ours = {name: drawn(found[name, "layer"]) for name in ("ablationcam", "shapleycam")}
    for name, peer in (("ablationcam", "AblationCAM"), ("shapleycam", "ShapleyCAM")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cam = getattr(peers, peer)(model=net, target_layers=[net.layer])
            raw = cam(input_tensor=inputs, targets=targets)
        grown = functional.interpolate(
            torch.from_numpy(ours[name])[:, None], (64, 64), mode="bilinear", align_corners=False
        )[:, 0]
        low, high = grown.amin((1, 2), keepdim=True), grown.amax((1, 2), keepdim=True)
        expected = ((grown - low) / (high - low)).numpy()
        # The two up-sample alike (bilinear, corners not aligned) up to the library's rounding.
        assert np.abs(expected - raw).max() < 2e-3, name
