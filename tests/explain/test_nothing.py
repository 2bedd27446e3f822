"""A map that is zero everywhere is said to be, and why."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import MapWarning
from exporter.explain import compute_maps


def planes(classes: int, *, least: float) -> nn.Sequential:
    """A segmentation whose last class is predicted nowhere; of a mask, nothing is."""
    torch.manual_seed(0)
    head = nn.Conv2d(4, classes, 1)
    with torch.no_grad():
        head.bias[-1] = least  # type: ignore[index]
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), head)


def said_of(model: nn.Module, images: Tensor, **asked: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = compute_maps(model, images, **asked)
    said = [str(each.message) for each in caught if each.category is MapWarning]
    assert all(each.filename == __file__ for each in caught if each.category is MapWarning)
    zero = any(bool((each.flatten(1) == 0).all(1).any()) for each in maps.values())
    assert zero == bool(said)
    return said


@pytest.mark.parametrize("target", [None, "mask:0", "multilabel:0", "class:0"])
def test_a_mask_without_area(target: str | None) -> None:
    images, mask = torch.rand(2, 3, 16, 16), planes(1, least=-50)
    if target == "mask:0":  # whose place a list of images gives
        target = "predicted"
    asked: dict[str, Any] = {"layers": ["0"], "maps": ["gradcam", "saliency"], "targets": target}
    (said,) = said_of(mask, images, **asked)
    assert said == (
        "gradcam at 0, saliency: maps of images 0, 1 are zero everywhere: no position is predicted "
        "as what is explained (the target 'plane' averages over all)"
    )
    assert said_of(mask, images, **(asked | {"targets": "plane"})) == []
    assert said_of(planes(1, least=50), images, **asked) == []


def test_a_class_that_one_image_lacks_and_another_has() -> None:
    model, dark = planes(3, least=-0.7), torch.zeros(1, 3, 16, 16)
    first, _, head = model
    assert isinstance(first, nn.Conv2d)
    assert isinstance(head, nn.Conv2d)
    with torch.no_grad():
        for part in (*first.parameters(), head.weight, head.bias[:2]):  # type: ignore[index]
            part.zero_()
        first.weight[0], head.weight[2, 0] = 1, 9
    images = torch.cat((dark, dark + 1, dark))
    (said,) = said_of(model, images, layers=["0"], maps=["gradcam"], targets="class:2")
    assert said.startswith("gradcam at 0: maps of images 0, 2 are zero everywhere: no position")


class Boxes(nn.Module):
    """A detector of bright pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        scores = self.layer(images).square().mean((1, 2, 3))
        kept = [
            score[None][: int(image.mean() > 0.5)]
            for score, image in zip(scores, images, strict=True)
        ]
        return [
            {"scores": s, "labels": s.new_zeros(len(s)).long(), "boxes": s.new_ones(len(s), 4)}
            for s in kept
        ]


def test_a_detector_that_finds_nothing() -> None:
    images = torch.stack([torch.full((3, 8, 8), level) for level in (0.2, 0.9, 0.1)])
    (said,) = said_of(Boxes(), images, layers=["layer"], maps=["gradcam"])
    assert said == (
        "gradcam at layer: maps of images 0, 2 are zero everywhere: the model finds no such box "
        "there"
    )


@pytest.mark.parametrize(
    "middle", [torch.round, lambda x: x * 0, lambda x: x.clamp(max=-9), torch.sign]
)
def test_what_the_score_does_not_depend_on(middle: Any) -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            stepped: Tensor = middle(x)
            return stepped

    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Step(), nn.Flatten(), nn.Linear(256, 3))
    (said,) = said_of(model, torch.rand(1, 3, 16, 16), layers=["0"], maps=["gradcam"])
    assert said == (
        "gradcam at 0: maps of image 0 are zero everywhere: what is explained does not depend on "
        "them, or all of their activations are zero"
    )
