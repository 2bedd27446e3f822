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
    vit = torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).eval()
    nn.init.normal_(vit.heads.head.weight)  # zeros, whose maps would be zero everywhere
    return vit


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reshape", "said"),
    [
        (
            lambda tokens: tokens[:, 1:].flatten(1),
            r"gave \([12], 128\) of an output of \([12], 17, 8",
        ),
        (lambda tokens: tokens[:, 1:].reshape(len(tokens), 5, 5, 8), r"on .*17, 8\): RuntimeError"),
        (lambda tokens: patches(tokens).flatten(2), r"gave \([12], 8, 16\) of an output"),
        (lambda tokens: {"plane": tokens}, "gave dict of an output of"),
        (lambda tokens: tokens.missing, r"failed on .*17, 8\): AttributeError"),
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


def test_a_function_that_takes_tokens_for_images_is_refused_where_there_are_as_many() -> None:
    """Of the images on the second axis, and 16 of both, its planes would be one token's each."""
    torch.manual_seed(0)
    patches = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2))
    layer = nn.TransformerEncoderLayer(8, 2, 16)

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.block, self.head = patches, layer, nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(self.patches(x).permute(2, 0, 1)).square().mean(0))

    images, asked = torch.rand(16, 3, 16, 16), {"maps": ["gradcam"], "layers": ["block"]}
    model = Second().eval()
    with pytest.raises(LayerError, match="takes the 16 tokens of 'block' for images"):
        compute_maps(model, images, **asked, reshape=lambda t: t.mT.unflatten(2, (4, 4)))
    right = compute_maps(
        model, images, **asked, reshape=lambda t: t.permute(1, 2, 0).unflatten(2, (4, 4))
    )
    read = compute_maps(model, images, **asked)
    torch.testing.assert_close(right["gradcam", "block"], read["gradcam", "block"])
