from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import guest
from exporter.errors import MapError
from exporter.explain import Explainer, compute_maps
from exporter.maps import get_methods
from exporter.records import Target
from tests.small import small

ALL = ["gradcam", "layercam", "eigencam", "ablationcam", "saliency", "occlusion", "smoothgrad"]
WHERE = {"layers": ["stem", "stage2"], "targets": [0, 3, 1]}


def test_a_smoothed_map_is_the_mean_with_the_mirrored_images_mirrored_back(
    model: nn.Module, images: Tensor
) -> None:
    plain = compute_maps(model, images, maps=ALL, **WHERE)
    mirrored = compute_maps(model, images.flip(-1), maps=ALL, **WHERE)
    smoothed = compute_maps(model, images, maps=[f"{name}:smooth=flips" for name in ALL], **WHERE)
    assert list(smoothed) == list(plain)
    for key, maps in smoothed.items():
        torch.testing.assert_close(maps, (plain[key] + mirrored[key].flip(-1)) / 2)
        assert not torch.allclose(maps, plain[key])


def test_other_methods_of_the_run_are_left_as_they_are(model: nn.Module, images: Tensor) -> None:
    plain = compute_maps(model, images, maps=["gradcam", "saliency"], **WHERE)
    mixed = compute_maps(model, images, maps=["gradcam", "saliency:smooth=flips"], **WHERE)
    assert torch.equal(mixed["gradcam", "stage2"], plain["gradcam", "stage2"])
    assert not torch.allclose(mixed["saliency", ""], plain["saliency", ""])


def test_what_is_explained_is_the_class_of_the_image_and_not_of_its_mirrored_copy() -> None:
    # A class for each half: what is predicted changes sides with the image.
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.layer(x).sum((1, 2)).chunk(2, 1)
            return torch.stack((left.sum(1), right.sum(1)), 1)

    image = torch.tensor([3.0, 1.0, 1.0, 0.0]).expand(1, 1, 4, 4).contiguous()
    maps = compute_maps(Halves(), image, maps=["hirescam:smooth=flips"], layers=["layer"])
    # The left half is explained of both: 3, 1 of the image; 0, 1 of the copy, on the right again.
    assert maps["hirescam", "layer"][0, 0].tolist() == [1.5, 0.5, 0.5, 0.0]


def test_the_region_of_a_segmentation_is_mirrored_too() -> None:
    # The mean logit over where it is above 0: its gradient is 1 over their number there, else 0.
    plane = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Identity())
    nn.init.ones_(plane[0].weight)
    image = torch.tensor([4.0, 2.0, -1.0, -1.0]).expand(1, 1, 4, 4).contiguous()
    maps = compute_maps(plane, image, maps=["hirescam:smooth=flips"], layers=["0"])
    plain = compute_maps(plane, image, maps=["hirescam"], layers=["0"])
    assert plain["hirescam", "0"][0, 0].tolist() == [0.5, 0.25, 0.0, 0.0]
    # The copy's region is where the image's is mirrored, and so its map is the mirrored map.
    torch.testing.assert_close(maps["hirescam", "0"], plain["hirescam", "0"])


def test_a_box_is_not_followed_into_the_mirrored_image() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
            scores = self.layer(x).mean((1, 2, 3)).sigmoid()
            box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
            label = torch.tensor([1])
            return [{"boxes": box, "scores": s[None], "labels": label} for s in scores]

    with pytest.raises(MapError, match="gradcam would have to find a box again in the mirrored"):
        compute_maps(
            Detector(), torch.rand(1, 3, 8, 8), maps=["gradcam:smooth=flips"], layers=["layer"]
        )


def test_a_run_says_what_it_costs_and_records_the_setting() -> None:
    module = small().eval()
    methods = get_methods(["gradcam:smooth=flips", "layercam"])
    assert methods[0].record.settings == {"smooth": "flips"}
    assert [m.record.cost.endswith("again for the mirrored image") for m in methods] == [
        True,
        False,
    ]
    assert methods[1].record.settings == {}
    explainer = Explainer(module, methods, ["2"], target=Target("predicted"))
    assert explainer.passes[-1] == "the same of the mirrored images for gradcam"
    inputs = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    unknown = torch.full((2,), -1)
    with guest(module):
        eager = explainer(inputs, unknown).to_host()
    maps = compute_maps(module, inputs, maps=["gradcam:smooth=flips"], layers=["2"])
    expected = maps["gradcam", "2"].amax((1, 2)).numpy()
    at = eager.maps[0].names.index(("gradcam", 0))
    assert eager.maps[0].hi[at].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("bad", ["smooth=yes", "smooth=", "smooth=1"])
def test_another_value_is_refused_with_those_that_are_right(bad: str) -> None:
    with pytest.raises(MapError, match=r"'smooth' of 'gradcam' is .* one of none, flips"):
        get_methods([f"gradcam:{bad}"])
