from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from exporter.errors import LayerError
from exporter.layers import collect_kernels


def names(module: nn.Module, *wanted: str) -> list[str]:
    return [kernels.name for kernels in collect_kernels(module, wanted)]


def test_kernels_are_the_weights(small: Any) -> None:
    (first,) = collect_kernels(small, ["auto"])
    assert (first.name, first.type) == ("conv1", "Conv2d")
    assert first.values.shape == (4, 3, 3, 3)
    assert first.values.dtype == np.float32
    np.testing.assert_array_equal(first.values, small.conv1.weight.detach().numpy())
    first.values[:] = 0
    assert small.conv1.weight.abs().min() > 0


def test_kernels_are_chosen_by_layer_type_glob_block_and_parameter() -> None:
    module = torchvision.models.resnet18(weights=None)
    assert len(names(module, "all")) == len(names(module, "@Conv2d")) == 20
    assert names(module, "layer1.0.conv2", "conv1") == ["conv1", "layer1.0.conv2"]
    assert names(module, "layer1.0") == ["layer1.0.conv1", "layer1.0.conv2"]
    assert names(module, "layer?.0.conv1")[0] == "layer1.0.conv1"
    assert names(module, "conv1.weight") == ["conv1.weight"]


def test_transposed_and_half_precision_kernels_have_outputs_first() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(2, 5, 3), nn.Conv2d(5, 4, 1, groups=1)).bfloat16()
    up, out = collect_kernels(module, ["all"])
    assert up.values.shape == (5, 2, 3, 3)
    assert out.values.shape == (4, 5, 1, 1)
    np.testing.assert_array_equal(up.values[4, 1], module[0].weight[1, 4].detach().float().numpy())


def test_models_without_convolutions_have_no_kernels() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert collect_kernels(module, ["auto"]) == ()
    with pytest.raises(LayerError, match=r"'1' holds no convolution's kernels"):
        collect_kernels(module, ["1"])
    with pytest.raises(LayerError, match=r"'1.weight' has shape \(2, 4\)"):
        collect_kernels(module, ["1.weight"])


def test_unknown_kernels_are_refused_with_choices(small: Any) -> None:
    with pytest.raises(LayerError, match="no layer or parameter 'conv3'; did you mean 'conv2'"):
        collect_kernels(small, ["conv3"])


def test_parametrised_kernels_are_the_effective_ones(small: Any) -> None:
    torch.nn.utils.parametrizations.weight_norm(small.conv1)
    (first,) = collect_kernels(small, ["conv1"])
    np.testing.assert_array_equal(first.values, small.conv1.weight.detach().numpy())


@pytest.mark.parametrize(
    "normed", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm]
)
@pytest.mark.parametrize("transform", [None, "spectral"])
def test_a_weight_that_is_made_of_other_parameters_has_its_usual_name(
    normed: Any, transform: str | None
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    if transform is None:
        normed(module[0])
    else:
        nn.utils.parametrizations.spectral_norm(module[0])
    module.eval()
    (kernels,) = collect_kernels(module, ["0.weight"])
    assert kernels.name == "0.weight"
    np.testing.assert_array_equal(kernels.values, module[0].weight.detach().numpy())
