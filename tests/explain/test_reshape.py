"""A user's reshape function, with every kind of method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from exporter.errors import LayerError, MapError
from exporter.explain import compute_maps
from exporter.layers.planes import Planes
from exporter.maps import METHODS
from tests.explain.test_no_synchronisation import NoWaiting

LAYER = "encoder.layers.encoder_layer_0"


@pytest.fixture
def vit() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).eval()


def patches(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].reshape(len(tokens), 4, 4, 8).permute(0, 3, 1, 2)


def test_every_map_is_that_of_the_shape_where_both_read_the_same(vit: nn.Module) -> None:
    maps = [name for name, one in METHODS.items() if one.at_layers and not one.needs.classifier]
    images = torch.rand(2, 3, 16, 16)
    read = compute_maps(vit, images, maps=maps, layers=[LAYER])
    given = compute_maps(vit, images, maps=maps, layers=[LAYER], reshape=patches)
    assert list(given) == list(read)
    assert ("ablationcam", LAYER) in given
    for key, expected in read.items():
        torch.testing.assert_close(given[key], expected, rtol=0, atol=0)


def test_a_function_that_changes_values_later_gives_no_numbers(vit: nn.Module) -> None:
    factor = [1.0]
    planes = Planes(vit, reshape=lambda tokens: patches(tokens) * factor[0])
    images, tokens = torch.rand(2, 3, 16, 16), torch.rand(2, 17, 8)
    grid = planes.read(LAYER, tokens, images)
    assert torch.equal(planes.write(LAYER, grid, tokens), tokens)
    factor[0] = 2.0
    with NoWaiting():
        written = planes.write(LAYER, grid, tokens)
    assert written.isnan().all()


def test_the_model_runs_on_only_from_values_that_were_moved(vit: nn.Module) -> None:
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(MapError, match="reshape function changes values"):
        compute_maps(
            vit,
            images,
            maps=["ablationcam"],
            layers=[LAYER],
            reshape=lambda tokens: patches(tokens) * 2,
        )


@pytest.mark.parametrize(
    ("reshape", "said"),
    [
        (lambda tokens: tokens[:, 1:].flatten(1), r"gave no \(N, C, H, W\)"),
        (lambda tokens: tokens[:, 1:].reshape(len(tokens), 5, 5, 8), "failed: RuntimeError"),
        (lambda tokens: patches(tokens).flatten(2), "failed: RuntimeError"),
        (lambda tokens: {"plane": tokens}, "gave no"),
        (lambda tokens: tokens.missing, "failed.*AttributeError"),
    ],
)
@pytest.mark.parametrize("layer", [LAYER, "auto"])
def test_a_function_that_fits_no_layer_is_refused(
    reshape: Any, said: str, layer: str, vit: nn.Module
) -> None:
    ended = rf"the reshape function.*({said}).*; it fits the output of no layer.* reshape="
    for maps in (["gradcam"], ["eigencam"]):
        with pytest.raises(LayerError, match=ended):
            compute_maps(vit, torch.rand(2, 3, 16, 16), maps=maps, layers=[layer], reshape=reshape)
    # No layer is read.
    compute_maps(vit, torch.rand(2, 3, 16, 16), maps=["saliency"], reshape=reshape)
