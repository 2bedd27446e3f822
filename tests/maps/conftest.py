"""Real activations and gradients: five architectures in float64, taken with plain hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from benchmarks.parity.taking import take

TARGETS = (2, 5, 7)


@dataclass(frozen=True)
class Taken:
    """What one layer gave for three images, in float64."""

    name: str
    activations: Tensor
    gradients: Tensor
    classifier: Tensor


MODELS = {
    "resnet18": ("layer2", "layer4"),
    "vgg11_bn": ("features.25", "features.28"),
    "densenet121": ("features.denseblock2", "features"),
    "mobilenet_v3_small": ("features.3", "features"),
    "efficientnet_b0": ("features.3", "features"),
}


def photographs() -> Tensor:
    """Three images (3, 3, 80, 80) that differ: smooth fields with edges, from a seed."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randn(3, 3, 6, 6, generator=generator, dtype=torch.float64)
    smooth = nn.functional.interpolate(coarse, size=80, mode="bicubic")
    noise = torch.randn(3, 3, 80, 80, generator=generator, dtype=torch.float64)
    return smooth + (smooth > 0.5) + 0.1 * noise


def calibrated(name: str) -> nn.Module:
    """A random model that behaves like a trained one: no zero gain, no logit of 1e-9."""
    torch.manual_seed(1)
    if name == "vgg11_bn":  # its own classifier has a hundred million weights
        model = nn.Sequential(
            OrderedDict(
                features=make_layers(cfgs["A"], batch_norm=True),
                avgpool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(512, 10),
            )
        )
    else:
        model = torchvision.models.get_model(name, weights=None, num_classes=10)
    model.double()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1, std=0.2)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():  # batch normalisation learns the statistics of the photographs
        for module in model.modules():
            module.train(isinstance(module, nn.BatchNorm2d))
        model(photographs())
    model.eval().requires_grad_(False)
    with torch.no_grad():
        logits = model(photographs())
    assert logits.std(0).min() > 1e-2, f"the random {name} gives every image the same logits"
    return model


@pytest.fixture(scope="session")
def models() -> dict[str, nn.Module]:
    return {name: calibrated(name) for name in MODELS}


@pytest.fixture(scope="session")
def taken(models: dict[str, nn.Module]) -> tuple[Taken, ...]:
    """Ten layers, signed and not, 10×10 to 2×2 places, more channels than places and fewer."""
    found = []
    generator = torch.Generator().manual_seed(2)
    for name, layers in MODELS.items():
        for layer, pair in take(models[name], photographs(), layers, TARGETS).items():
            rows = torch.randn(3, pair[0].shape[1], generator=generator, dtype=torch.float64)
            assert pair[1].abs().amax((1, 2, 3)).min() > 0, f"{name} {layer} has no gradient"
            found.append(Taken(f"{name}/{layer}", *pair, rows))
    return tuple(found)


@pytest.fixture
def photos() -> Tensor:
    """The images that `taken` explains."""
    return photographs()


@pytest.fixture
def targets() -> list[int]:
    """The classes that `taken` explains, one an image."""
    return list(TARGETS)


@pytest.fixture
def registry_kept() -> Iterator[None]:
    """Take away again whatever a test registers."""
    from exporter.maps import registry

    before = dict(registry._REGISTERED)
    yield
    registry._REGISTERED.clear()
    registry._REGISTERED.update(before)
