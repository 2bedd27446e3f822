"""Detectors: boxes, what takes their place where none survives, and which methods fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.coverage_outputs import build, picture
from exporter.errors import TargetError
from exporter.explain import compute_maps
from exporter.targets import Scorer, parse_target, watching


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"]
)
def test_what_is_explained_before_suppression_is_the_best_box_of_a_lower_threshold(
    name: str,
) -> None:
    """With no threshold every candidate comes out as a box: the first is what was explained."""
    model, side = build(name)
    image = picture(side)
    unknown = torch.full((1,), -1)
    owner = model.roi_heads if hasattr(model, "roi_heads") else model
    owner.score_thresh = 2.0
    hooks = sum(len(one._forward_hooks) for one in model.modules())
    with torch.no_grad():
        with watching(model):
            scored = Scorer(parse_target("predicted", ()))(model(image), unknown)
        assert sum(len(one._forward_hooks) for one in model.modules()) == hooks
        assert len(model(image)[0]["scores"]) == 0
        owner.score_thresh = -1.0
        every = model(image)[0]
    torch.testing.assert_close(scored.scores[0, 0], every["scores"][0])
    index, _, _ = scored.reading.predict(unknown, 1)
    assert index[0, 0] == every["labels"][0]
    # And with boxes that survive, box 0 is that box.
    layer = "backbone.body.16" if hasattr(model, "roi_heads") else "backbone.features.0"
    first = compute_maps(model, image, maps=["gradcam"], layers=[layer], targets="box:0")
    owner.score_thresh = 2.0
    before = compute_maps(model, image, maps=["gradcam"], layers=[layer])
    key = ("gradcam", layer)
    torch.testing.assert_close(first[key], before[key], rtol=1e-3, atol=1e-6)
    # Methods of the pixels run the image once more: here no box survives, and the same is found.
    pixels = compute_maps(model, image, maps=["saliency", "fullgrad"])["saliency", ""]
    leaf = image.clone().requires_grad_()
    with watching(model):
        found = Scorer(parse_target("predicted", ()))(model(leaf), unknown)
    (gradient,) = torch.autograd.grad(found.scores.sum(), leaf)
    torch.testing.assert_close(pixels, gradient)


class Detector(nn.Module):
    """Two boxes, whose scores are the mean brightness of the left and of the right half."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        halves = torch.stack([half.mean((1, 2, 3)) for half in self.net(x).chunk(2, 3)], 1)
        sorted_scores = [row.sort(descending=True) for row in halves.sigmoid()]
        return [
            {"boxes": torch.zeros(2, 4), "scores": scores, "labels": labels + 1}
            for scores, labels in sorted_scores
        ]


@pytest.mark.parametrize(
    "name",
    ["saliency", "inputxgradient", "guidedbackprop", "deconvnet", "guidedgradcam", "fullgrad"],
)
def test_boxes_are_explained_by_methods_that_run_the_image_once_more(name: str) -> None:
    torch.manual_seed(0)
    model = Detector().eval()
    images = torch.rand(2, 3, 8, 8)
    maps = compute_maps(model, images, maps=[name], layers=["net.1"], targets="box:1")[name, ""]
    leaf = images.clone().requires_grad_()
    output = model(leaf)
    (gradient,) = torch.autograd.grad(sum(image["scores"][1] for image in output), leaf)
    if name == "saliency":
        torch.testing.assert_close(maps, gradient)
    halves = maps.abs().sum((1, 2)).unflatten(1, (2, 4)).sum(2)
    # A box depends on its own half, but for the pixels next to the middle.
    assert halves.argmax(1).tolist() == [int(image["labels"][1]) - 1 for image in output]


@pytest.mark.parametrize("name", ["smoothgrad", "occlusion", "scorecam", "ablationcam"])
def test_a_box_cannot_be_followed_through_variants(name: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(TargetError, match=r"finds other boxes in a variant .* gradcam or saliency"):
        compute_maps(Detector().eval(), torch.rand(2, 3, 8, 8), maps=[name], layers=["net.1"])
