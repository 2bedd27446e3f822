"""`benchmarks.parity` on two architectures, and that what is wrong is noticed."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.parity import behaviour
from benchmarks.parity.__main__ import BEHAVIOURS, main
from benchmarks.parity.counts import Tally, difference
from benchmarks.parity.formats import FORMATS, Ratios, judge
from benchmarks.parity.state import changed, snapshot
from benchmarks.parity.subjects import QUICK, SUBJECTS
from benchmarks.parity.taking import activation_of, array
from exporter.explain import compute_maps
from exporter.maps import METHODS, Terms, registry

pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")


def run(capsys: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_every_method_on_two_architectures(capsys: Any) -> None:
    status, found = run(capsys, "--quick")
    assert found["missed"] == []
    assert status == 0
    fused = {"--fuse mean", "--fuse max", "--fuse product"}
    assert set(found["methods"]) == {*METHODS, *fused}
    for name, entry in found["methods"].items():
        assert entry["cases"] > 0, name
        skipped = found["not_counted"].get(name, {})
        assert entry["architectures"] + len(skipped) == len(QUICK), name
        assert entry["largest"] <= 1e-9, name
    assert "captum" in found["methods"]["guidedbackprop"]["reference"]
    assert "grad-cam" in found["methods"]["finercam"]["reference"]
    for name in FORMATS:
        assert {"gradcam", "saliency", "legrad"} <= set(found["formats"][name])
        assert "eigencam" not in found["formats"][name]
    for part in (*BEHAVIOURS, "state"):
        assert found[part]["cases"] > 0, part
    assert set(found["logit_scale"]["exceptions"]) == {
        "gradcam++",
        "refinecam",
        "scorecam",
        "chefer",
    }


@pytest.mark.slow
def test_a_wrong_map_is_noticed(capsys: Any, monkeypatch: Any) -> None:
    right = METHODS["eigengradcam"]

    def off(terms: Terms) -> Tensor:
        made = right(terms)
        return made * torch.linspace(1, 1 + 1e-6, made.shape[-1], dtype=made.dtype)

    monkeypatch.setitem(registry._REGISTERED, "eigengradcam", replace(right, compute=off))
    status, found = run(capsys, "--only", "eigengradcam", "--model", "vit")
    assert status == 1
    assert 1e-9 < found["methods"]["eigengradcam"]["largest"] < 1e-5
    why = [one["why"] for one in found["missed"] if one["part"] == "methods"]
    assert len(why) == found["methods"]["eigengradcam"]["cases"]
    assert all(one.endswith("of the map's range, 1e-09 is allowed") for one in why)


@pytest.mark.slow
def test_a_method_without_a_reference_is_noticed(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(
        registry._REGISTERED, "another", replace(METHODS["gradcam"], name="another", aliases=())
    )
    status, found = run(capsys, "--only", "another", "--model", "vit")
    assert status == 1
    assert "it has no reference" in [one["why"] for one in found["missed"]]


@pytest.mark.slow
def test_an_exception_that_is_none_is_noticed(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(behaviour, "BY_DEFINITION", {"gradcam": "for no reason"})
    status, found = run(capsys, "--only", "gradcam", "--only", "gradcam++", "--model", "vit")
    assert status == 1
    missed = {(one["part"], one["method"]): one["why"] for one in found["missed"]}
    assert set(missed) == {("logit_scale", "gradcam"), ("logit_scale", "gradcam++")}
    assert "is said to depend on the scale" in missed["logit_scale", "gradcam"]


def test_differences_are_in_units_of_the_range() -> None:
    right = torch.tensor([[1.0, 3.0]])
    assert difference(right + 0.5, array(right)) == 0.25
    assert difference(right.T, array(right)) == float("inf")
    assert difference(torch.tensor([[torch.nan, 3.0]]), array(right)) == float("inf")
    flat = torch.ones(2, 2)
    assert difference(flat, array(flat)) == 0
    assert difference(flat + 1e-9, array(flat.double()) + 1e-9) == float("inf")
    tally = Tally("part", [])
    tally.add("one", ("model", "layer"), right * torch.nan, array(right), 1e-9)
    assert len(tally.missed) == 1


def test_a_format_that_is_off_by_more_than_three_times_the_noise_is_noticed() -> None:
    tally = Tally("formats", [])
    within = Ratios({"a": [2.9, 0.1]}, {"a": [1.0, 0.1]})
    judge({"float32": {"within": within}}, tally)
    assert tally.missed == []
    assert within.json()["largest"] == 2.9
    judge({"float32": {"typical": Ratios({"a": [0.4, 0.4, 0.4]}, {"a": [0.1, 0.1, 0.9]})}}, tally)
    judge({"float32": {"at most": Ratios({"a": [4.0, 0.1, 0.1]}, {"a": [0.1, 0.1, 1.0]})}}, tally)
    assert [one["method"] for one in tally.missed] == ["typical", "at most"]


def test_whatever_is_left_changed_is_noticed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = snapshot(model)
    assert changed(before, snapshot(model)) == []
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.zeros(4)
    model[1].running_mean.add_(1)
    model[0].register_forward_hook(lambda *_: None)
    random.random()
    torch.rand(1)
    assert set(changed(before, snapshot(model))) == {
        "python random state",
        "torch random state",
        "mode of '1'",
        "_forward_hooks of '0'",
        "0.weight: requires_grad",
        "0.bias: gradient",
        "0.bias: identity of the gradient",
        "1.running_mean",
    }


def test_twelve_architectures_and_three_layers_each() -> None:
    assert len(SUBJECTS) >= 12
    assert all(len(subject.layers) == 3 for subject in SUBJECTS.values())
    narrow = [subject for subject in SUBJECTS.values() if subject.narrow]
    assert len(narrow) == 2
    for subject in narrow:
        assert len(subject.narrow) == 3
        assert subject.side == 64
        for name in subject.narrow:
            assert activation_of(subject.model(), subject.images(1), name).shape[1] <= 64
        subject.forget()


def test_refinecam_is_that_of_pytorch_grad_cam() -> None:
    """There, a layer is scaled again when it is up-sampled: the same where all have one size."""
    from pytorch_grad_cam import RefineCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)),
    ).eval()
    with torch.no_grad():  # gradients beside which the epsilon of its Grad-CAM++ is small
        model[6].weight.mul_(1e4)
    image = torch.rand(1, 3, 12, 12)
    peer = RefineCAM(model, [model[1], model[3]])(image, [ClassifierOutputTarget(2)])
    maps = compute_maps(model, image, maps=["refinecam"], layers=["1", "3"], targets=[2])
    ours = maps["refinecam", "fused"].numpy()
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose((ours - ours.min()) / np.ptp(ours), peer, atol=1e-5)
