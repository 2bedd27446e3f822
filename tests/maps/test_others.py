"""Maps of captum and zennit: what the libraries give when they are called directly, as guests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter
from benchmarks.parity.state import changed, snapshot
from exporter.errors import MapError
from exporter.maps import count_forwards, get_methods, lightest, of_captum, of_zennit
from exporter.maps.of_captum import cells_of, method_named

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"

attr = pytest.importorskip("captum.attr")
composites = pytest.importorskip("zennit.composites")

TARGETS = [1, 3]
SEED = 5


def network(*, flatten: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [
        nn.Conv2d(3, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
    ]
    model = nn.Sequential(*layers, *(nn.Flatten(), nn.Linear(8, 4)) * flatten).double()
    for name, values in model.state_dict().items():
        if "running_var" in name:
            nn.init.uniform_(values, 0.5, 2)
        elif values.is_floating_point() and values.ndim:
            nn.init.normal_(values, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 12, 14, generator=generator, dtype=torch.float64)


def of(name: str, model: nn.Module, images: Tensor, targets: Any = TARGETS) -> Tensor:
    (found,) = exporter.compute_maps(
        model, images, maps=[name], targets=targets, seed=SEED
    ).values()
    return found


def assert_equal(found: Tensor, expected: Tensor) -> None:
    span = (expected.max() - expected.min()).item()
    assert found.shape == expected.shape
    assert span > 1e-6
    assert (found - expected).abs().max().item() <= 1e-6 * span


CELLS = {"feature_mask": cells_of(torch.zeros(1, 3, 12, 14), 3)}
FLATS = torch.tensor([-2.0, -1, 0, 1, 2], dtype=torch.float64).view(5, 1, 1, 1)
FLATS = FLATS.expand(5, 3, 12, 14)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DeepLift", {}),
        ("deeplift:multiply_by_inputs=false", {"multiply_by_inputs": False}),
        ("DeepLiftShap", {"baselines": FLATS}),
        (
            "GradientShap:n_samples=4,stdevs=0.1",
            {"baselines": FLATS, "n_samples": 4, "stdevs": 0.1},
        ),
        (
            "IntegratedGradients:n_steps=5,method=riemann_left",
            {"n_steps": 5, "method": "riemann_left"},
        ),
        ("Saliency", {"abs": False}),
        ("GuidedBackprop", {}),
        ("FeatureAblation:cells=3", CELLS),
        ("KernelShap:cells=3,n_samples=40", {**CELLS, "n_samples": 40}),
        ("Lime:cells=3,n_samples=60", {**CELLS, "n_samples": 60}),
        ("ShapleyValueSampling:cells=3,n_samples=2", {**CELLS, "n_samples": 2}),
    ],
)
def test_a_map_is_what_captum_gives(
    name: str, arguments: dict[str, Any], model: nn.Module, images: Tensor
) -> None:
    kind = getattr(attr, method_named(name.partition(":")[0]).name.partition(":")[2])
    built = {key: arguments[key] for key in arguments if key == "multiply_by_inputs"}
    called = {key: value for key, value in arguments.items() if key not in built}
    oracle, expected = kind(network(), **built), []
    for image, target in zip(images, TARGETS, strict=True):
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        expected.append(oracle.attribute(image[None], target=target, **called))
    found = of(f"captum:{name}", model, images)
    assert_equal(found.expand(images.shape), torch.cat(expected).detach())
    assert found.shape[1] == (1 if "feature_mask" in called else 3)


def test_lrp_of_captum_and_two_targets_at_a_time(images: Tensor) -> None:
    model = network(flatten=False)
    head = nn.Sequential(model, nn.Conv2d(8, 4, 1).double(), nn.AdaptiveAvgPool2d(1)).eval()

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = head

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).flatten(1)

    expected = [attr.LRP(Flat().eval()).attribute(images, target=target) for target in (1, 2)]
    found = of("captum:LRP", Flat().eval(), images, [[1, 2], [1, 2]])
    assert_equal(found, torch.stack(expected, 1).detach())


@pytest.mark.parametrize("canonizer", ["auto", "none"])
@pytest.mark.parametrize("name", composites.COMPOSITES)
def test_a_map_is_what_zennit_gives(
    name: str, canonizer: str, model: nn.Module, images: Tensor
) -> None:
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer

    bounds = {"low": -2.0, "high": 2.0} if name == "epsilon_gamma_box" else {}
    canonizers = [ResNetCanonizer()] * (canonizer == "auto")
    composite = composites.COMPOSITES[name](canonizers=canonizers, **bounds)
    with Gradient(model=network(), composite=composite) as attributor:
        rows = [attributor(images, torch.eye(4).double()[[t, 0]])[1] for t in TARGETS]
        rows += [attributor(images, torch.eye(4).double()[[2, 2]])[1]]
    settings = f"canonizer={canonizer}" + ",bound=2" * bool(bounds)
    found = of(f"zennit:{name.replace('_', '-')}:{settings}", model, images, [[1, 2], [0, 2]])
    assert_equal(found[0, 0], rows[0][0])
    assert_equal(found[:, 1], rows[2])


@pytest.mark.slow
def test_relevance_passes_through_a_residual_network_whole() -> None:
    """With the ResNet's canonizer, as much arrives at the input as the logit is; none is lost."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=5).double().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    found = of("zennit:epsilon-plus", model, images, [2])
    with torch.no_grad():
        relevance = found.sum().item()
    assert relevance == pytest.approx(1, rel=1e-3)
    assert abs(of("zennit:epsilon-plus:canonizer=none", model, images, [2]).sum().item() - 1) > 0.1


@pytest.mark.parametrize(
    "name", ["GradientShap", "DeepLiftShap", "Lime:cells=2,n_samples=9", "DeepLift"]
)
def test_an_image_has_the_same_map_in_any_batch(
    name: str, model: nn.Module, images: Tensor
) -> None:
    together = of(f"captum:{name}", model, images)
    alone = [of(f"captum:{name}", model, images[n : n + 1], [TARGETS[n]]) for n in (0, 1)]
    assert_equal(torch.cat(alone), together)


@pytest.mark.parametrize(
    "name", ["GradientShap:n_samples=70", "KernelShap:n_samples=70,cells=3", "IntegratedGradients"]
)
def test_few_variants_go_through_the_model_together(
    name: str, model: nn.Module, images: Tensor
) -> None:
    rows: list[int] = []
    handle = model.register_forward_pre_hook(lambda _module, inputs: rows.append(len(inputs[0])))
    of(f"captum:{name}", model, images)
    handle.remove()
    assert max(rows) <= 32
    assert sum(rows) >= 100


def test_samples_beyond_those_that_go_together_are_drawn_anew(
    model: nn.Module, images: Tensor
) -> None:
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    oracle = attr.GradientShap(model)
    parts = [oracle.attribute(images[:1], FLATS, n_samples=32, target=1) for _ in range(2)]
    found = of("captum:GradientShap:n_samples=64", model, images[:1], [1])
    assert_equal(found, sum(parts).detach() / 2)
    assert (parts[0] - parts[1]).abs().max() > 1e-3 * found.abs().max()


class Reusing(nn.Module):
    """A ReLU that is called twice, which captum's DeepLift finds out when half is done."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x)))).mean((2, 3))


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        ("captum:DeepLift", ""),
        (
            "captum:DeepLift",
            "captum's DeepLift failed on inputs of 2 × 3 × 12 × 14: .*more than on",
        ),
        ("captum:LRP", "captum's LRP failed .*Flatten"),
        ("captum:GradientShap", ""),
        ("captum:KernelShap:method=3", "no setting 'method'"),
        ("captum:IntegratedGradients:method=mine", "failed .*'?mine"),
        ("zennit:epsilon_plus_flat", ""),
    ],
)
def test_the_model_is_left_as_it_was(name: str, fails: str, images: Tensor) -> None:
    model = Reusing().double() if fails and "DeepLift" in name else network()
    model.train()
    kept = {id(module): set(vars(module)) for module in model.modules()}
    before = snapshot(model)
    if fails:
        with pytest.raises(MapError, match=fails):
            of(name, model, images)
    else:
        of(name, model, images)
    assert changed(before, snapshot(model)) == []
    assert kept == {id(module): set(vars(module)) for module in model.modules()}


def test_a_canonizer_that_changes_what_the_model_says_is_refused(images: Tensor) -> None:
    class Otherwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
            nn.init.normal_(self.norm.running_mean)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x).square()).mean((2, 3)))

    model = Otherwise().double().eval()
    with pytest.raises(MapError, match=r"zennit's canonizer changes .* give canonizer=none"):
        of("zennit:epsilon_plus", model, images)
    assert of("zennit:epsilon_plus:canonizer=none", model, images).abs().max() > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("captum:DeepLit", "captum has no attribution 'DeepLit'; did you mean 'DeepLift'"),
        ("captum", "captum has no attribution ''; choose one of DeepLift, "),
        ("captum:LayerGradCam", "captum's LayerGradCam explains a layer or a neuron"),
        ("captum:NoiseTunnel", "captum's NoiseTunnel asks for attribution_method, which a setting"),
        ("captum:ShapleyValues", "captum's ShapleyValues tries every order"),
        ("captum:Attribution", "captum's Attribution is a base class of methods, not a method"),
        ("captum:Lime:n_samples=few", "'n_samples' of 'captum:Lime' is 'few'; give a whole number"),
        ("zennit:epsilon_flat", "zennit has no composite 'epsilon_flat'; did you mean"),
        ("zennit:epsilon_plus:canonizer=vgg", "is 'vgg'; give one of auto, none"),
        ("lxt:attnlrp", "AttnLRP is not available here; for transformers, use chefer or legrad"),
    ],
)
def test_what_does_not_fit_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(MapError) as caught:
        get_methods([name])
    assert str(caught.value).replace(f"the setting {name!r}", "").find(said) >= 0
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["captum:Saliency", "zennit:beta_smooth"])
def test_a_library_that_is_not_installed_is_named(name: str, monkeypatch: Any) -> None:
    for of_library in (of_captum, of_zennit):
        of_library.method_named.cache_clear()
    library = name.partition(":")[0]
    for module in [entry for entry in sys.modules if entry.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MapError, match=rf"not installed: pip install 'exporter\[{library}\]'"):
        get_methods([name])


def test_what_is_run_is_said_and_counted() -> None:
    methods = get_methods(
        ["captum:ShapleyValueSampling:n_samples=3,cells=4", "captum:FeatureAblation:cells=4"]
    )
    methods += get_methods(["captum:GradientShap:n_samples=9", "captum:DeepLift"])
    assert [count_forwards(method, [], (8, 8)) for method in methods] == [48, 16, 9, 1]
    assert [count_forwards(lightest(method), [], (8, 8)) for method in methods] == [8, 4, 2, 1]
    said = methods[0].sentence()
    assert said.startswith("one forward per cell and sample of the image with cells covered")
    assert methods[2].sentence().startswith("9 forwards of images between a baseline and the image")
    assert "one backward to the input" in methods[3].sentence()
    assert methods[0].record.settings["cells"] == "4"


@pytest.mark.slow
def test_a_run_keeps_and_shows_them(tmp_path: Any) -> None:
    names = ["captum:KernelShap:cells=2,n_samples=6", "zennit:epsilon-plus-flat"]
    exporter.export(
        network().float(),
        PHOTOS,
        out=tmp_path / "run",
        limit=2,
        maps=names,
        writers=("html", "tensorboard"),
        preprocessing={"size": 24},
    )
    run = exporter.open_run(tmp_path / "run")
    assert [method.name for method in run.plan.methods] == [
        "captum:KernelShap",
        "zennit:epsilon_plus_flat",
    ]
    row = next(iter(run.rows()))
    assert {stored.method for stored in row.maps} == {method.name for method in run.plan.methods}
    assert "LGPL-3.0" in (tmp_path / "run" / "html" / "methods.html").read_text()
