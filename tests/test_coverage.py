"""A representative twentieth of `benchmarks.coverage`, and its instruments."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.coverage import GROUPS, covered, look_at, main
from benchmarks.families import FAMILIES
from benchmarks.fixtures import prepared
from benchmarks.following import carried_share, check
from benchmarks.patch import Places, textured
from benchmarks.taught import CLASSES, teach


def test_a_centroid_is_carried_by_the_patch_and_not_by_noise() -> None:
    places = Places(224, 224)
    images = textured((224, 224))
    following = (images - images[:1]).abs().sum(1).unsqueeze(0)
    assert carried_share(following, places) == 1.0
    noise = torch.rand(6, 6, 224, 224, generator=torch.Generator().manual_seed(0))
    assert carried_share(noise, places) == 0.0
    # Read with rows and columns swapped, only the three moves along the diagonal are right.
    assert carried_share(following.transpose(2, 3), places) == pytest.approx(0.3)


@pytest.mark.parametrize("size", [(64, 64), (160, 160), (224, 224), (256, 192), (299, 299)])
def test_a_patch_is_whole_cells_that_lie_inside_the_picture(size: tuple[int, int]) -> None:
    places = Places(*size)
    images = textured(size)
    for image, (top, left) in zip(images[1:], places.corners, strict=True):
        rows, columns = (image != images[0]).any(0).nonzero().unbind(1)
        assert (int(rows.min()), int(columns.min())) == (top, left)
        assert int(rows.max()) + 1 == top + places.patch[0] <= size[0]
        assert int(columns.max()) + 1 == left + places.patch[1] <= size[1]
        assert top % 32 == left % 32 == 0
    centres = (places.centres * torch.tensor(size)).tolist()
    assert centres[1] == [centres[0][0], centres[3][1]]


def test_a_loud_patch_is_made_quieter_until_it_is_balanced() -> None:
    """Zero biases and ReLUs answer in proportion: the energies tell the contrast."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 8, stride=8, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    # Filters without a mean see the texture alone, but for one that sees the level too.
    with torch.no_grad():
        module[0].weight -= module[0].weight.mean((1, 2, 3), keepdim=True)
        module[0].weight[0] += 0.003
    entry = covered(module, 224)
    assert entry["contrast"] < 0.25
    assert entry["why"] is None


def test_what_is_zero_is_drawn_anew_and_logits_have_to_differ() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=4)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 3)
            nn.init.zeros_(self.norm.weight)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))

    module = Model()
    module.gain = nn.Parameter(torch.full((4, 1, 1), 1e-6))
    prepared(module, size=(32, 32))
    assert bool((module.gain == 0.1).all())
    assert bool((module.norm.weight == 1).all())
    assert bool(module.head.weight.any())
    assert bool((module.norm.running_mean != 0).all())
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    blind[2].weight.data.mul_(1e-9)
    with pytest.raises(ValueError, match="do not differ between photographs"):
        prepared(blind, size=(32, 32))


def test_a_network_is_taught_what_its_maps_then_follow() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 8, 8), nn.ReLU(), nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES),
    )  # fmt: skip
    assert teach(module, 96, 60, 8) > 2 / CLASSES
    assert not module.training
    assert not any(each.requires_grad for each in module.parameters())
    assert check(module, size=(96, 96)).failure is None


@pytest.mark.slow
def test_a_failure_is_named_and_counted(monkeypatch: Any, capsys: Any) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    group = GROUPS["transformers"].__class__(lambda: ("mlp",), lambda _: (flat, 32))
    monkeypatch.setitem(GROUPS, "transformers", group)
    assert main(["--json", "--only", "transformers"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["transformers"]["ok"] == 0
    assert "no spatial layer" in said["transformers"]["failed"]["mlp"]


class Everywhere(nn.Module):
    """Gives what it sees at every place alike, so that nothing behind it follows a patch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 3, 8, 8) / 8)

    def forward(self, x: Tensor) -> Tensor:
        seen = nn.functional.conv2d(x, self.weight, stride=8).relu()
        return seen.mean((2, 3), keepdim=True) + 0 * seen


@pytest.mark.parametrize(
    ("blind", "draw", "covers"), [((), 0, True), ((0,), 1, True), (range(9), 4, False)]
)
def test_weights_with_which_the_network_does_not_follow_are_drawn_anew(
    blind: Any, draw: int, covers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Planning itself would refuse so blind a network.
    monkeypatch.setattr("exporter.layers.trial.lies_askew", lambda *_: False)

    def build(_name: str) -> tuple[nn.Module, int]:
        first = Everywhere() if torch.initial_seed() in blind else nn.Conv2d(3, 8, 8, 8)
        last = nn.Linear(8, 5)
        return nn.Sequential(
            first, nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last
        ), 96

    entry = look_at(GROUPS["timm"].__class__(lambda: ("net",), build), "net")
    assert entry["draw"] == draw
    assert (entry["why"] is None, entry["decided"]) == (covers, covers)


@pytest.mark.slow
def test_a_refusal_in_a_sentence_is_right_where_it_may_be(capsys: Any) -> None:
    assert main(["--json", "--only", "transformers_small", "--model", "ViTMAEModel"]) == 0
    said = json.loads(capsys.readouterr().out)["transformers_small"]
    assert (said["ok"], said["of"], said["failed"]) == (1, 1, {})
    assert said["refused"]["ViTMAEModel"].startswith("the model ViTMAEModel has no spatial layer")


def test_every_family_has_its_smallest_member() -> None:
    import timm

    known = set(timm.list_models())
    assert set(FAMILIES.values()) <= known


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("torchvision_classification", "resnet18"),
        ("torchvision_classification", "mnasnet0_5"),
        ("torchvision_classification", "shufflenet_v2_x0_5"),
        ("torchvision_classification", "squeezenet1_1"),
        ("timm", "deit"),
        ("timm", "edgenext"),
        ("timm", "mobilenetv3"),
        ("torchvision_segmentation", "lraspp_mobilenet_v3_large"),
        ("transformers", "Segformer"),
        ("transformers_small", "DetrForObjectDetection"),
        ("transformers_small", "YolosForObjectDetection"),
        ("transformers_small", "CLIPModel"),
        ("transformers_small", "FocalNetForImageClassification"),
        ("transformers_small", "SegformerForSemanticSegmentation"),
    ],
)
def test_models_are_explained_with_no_configuration(group: str, name: str) -> None:
    entry = look_at(GROUPS[group], name)
    assert entry["why"] is None, entry
    assert entry["layers"]
    assert len(entry["maps"]) == len(entry["layers"])


def test_the_check_fails_where_places_are_transposed(monkeypatch: Any) -> None:
    """A layout that is read wrongly is found out."""
    from exporter.layers.layout import Layout

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=4, padding=3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    assert covered(module, 224)["why"] is None
    monkeypatch.setattr(Layout, "spatial", lambda self, values: values.transpose(2, 3))
    assert "is carried" in (covered(module, 224)["why"] or "")


def test_a_model_that_no_group_has_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--json", "--only", "timm", "--model", "resnet18"])
    assert left.value.code == 2
    assert "no model or family of timm is called 'resnet18'" in capsys.readouterr().err
