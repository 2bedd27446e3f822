from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from exporter.errors import MapError
from exporter.layers import Trial, find_classifier, run_trial

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@cache
def tried(name: str) -> tuple[nn.Module, Trial]:
    module = torchvision.models.get_model(name, weights=None)
    return module, run_trial(module, IMAGE)


def slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "layer", "head"),
    [
        ("resnet18", "layer4", "fc"),
        ("mobilenet_v2", "features", "classifier.1"),
        ("mobilenet_v2", "features.18", "classifier.1"),
        ("shufflenet_v2_x0_5", "conv5", "fc"),
        slow("swin_t", "norm", "head"),
    ],
)
def test_the_linear_layer_behind_the_pooling_is_found(name: str, layer: str, head: str) -> None:
    module, trial = tried(name)
    weight, _ = find_classifier(trial, layer)
    assert torch.equal(weight, module.get_submodule(head).weight)
    assert not weight.requires_grad


def test_a_one_by_one_convolution_is_a_classifier_too(small: Any, example: Tensor) -> None:
    module = nn.Sequential(small.conv1, nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 7, 1), nn.Flatten())
    assert torch.equal(
        find_classifier(run_trial(module, example), "0").weight, module[2].weight[:, :, 0, 0]
    )


def test_the_second_call_of_a_reused_layer_is_told_apart(small: Any, example: Tensor) -> None:
    assert torch.equal(find_classifier(run_trial(small, example), "relu#2").weight, small.fc.weight)
    with pytest.raises(MapError, match="no linear layer goes from its 4 channel means"):
        find_classifier(run_trial(small, example), "relu")


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        slow("vgg11", "features.19", "no linear layer goes from its 512 channel means"),
        slow("densenet121", "features", "something lies between them"),
        slow("convnext_tiny", "features", "something lies between them"),
        ("resnet18", "layer3", "no linear layer goes from its 256 channel means"),
        ("resnet18", "layer4.1.bn2", "something lies between them"),
    ],
)
def test_cam_is_refused_where_it_would_not_be_exact(name: str, layer: str, message: str) -> None:
    with pytest.raises(MapError, match=message) as caught:
        find_classifier(tried(name)[1], layer)
    assert "gradcam" in str(caught.value)


def test_an_in_place_relu_after_the_layer_is_seen(make_small: Any, example: Tensor) -> None:
    torch.manual_seed(0)
    module = make_small(between=nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(inplace=True)))
    assert torch.equal(
        find_classifier(run_trial(module, example), "between").weight, module.fc.weight
    )
    with pytest.raises(MapError, match="something lies between"):
        find_classifier(run_trial(module, example), "between.0")
