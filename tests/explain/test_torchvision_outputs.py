"""torchvision's detectors with random weights, of which no box survives suppression."""

from __future__ import annotations

import pytest
import torch

from benchmarks.coverage_outputs import build, picture
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
