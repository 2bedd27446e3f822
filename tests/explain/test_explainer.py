from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import capture, guest
from exporter.errors import LayerError
from exporter.explain import Explainer, classifiers_at, compute_maps
from exporter.layers import run_trial
from exporter.maps import get_methods
from exporter.targets import Scorer, Target

LAYERS = ("stem", "stage1", "stage2")
NAMES = ("gradcam", "layercam", "eigencam")


def laid_out(host: Any) -> SimpleNamespace:
    """Lay a batch's outcome out map by map, and recorded layer by recorded layer."""
    maps = [
        SimpleNamespace(
            layer=here.layer,
            method=method,
            target=target,
            **{name: getattr(here, name)[m] for name in ("levels", "lo", "hi", "flags")},
        )
        for here in host.maps
        for m, (method, target) in enumerate(here.names)
    ]
    recorded = host.recorded.items()
    channels = [SimpleNamespace(layer=name, **vars(reduced)) for name, (reduced, _) in recorded]
    tops = [SimpleNamespace(layer=name, **vars(top)) for name, (_, top) in recorded if top]
    return SimpleNamespace(**{**vars(host), "maps": maps, "channels": channels, "tops": tops})


def explain(
    model: nn.Module, images: Tensor, labels: list[int] | None = None, **options: Any
) -> SimpleNamespace:
    asked: dict[str, Any] = {
        "methods": get_methods(options.pop("maps", NAMES)),
        "layers": options.pop("layers", LAYERS),
        "target": Target("predicted"),
        **options,
    }
    asked["classifiers"] = classifiers_at(
        asked["methods"],
        asked["layers"],
        Scorer(asked["target"]),
        lambda: run_trial(model, images[:1], backward=False),
    )
    known = torch.tensor([-1] * len(images) if labels is None else labels)
    return laid_out(Explainer(model, **asked)(images, known).to_host())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_map_of_rounding_noise_is_flagged(dtype: torch.dtype) -> None:
    """What is normalised over its plane has a gradient whose mean is zero: Grad-CAM is noise."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16), nn.ReLU(), nn.AvgPool2d(30), nn.Flatten()
    ).to(dtype)
    images = torch.rand(4, 3, 32, 32, dtype=dtype)
    maps = ("gradcam", "gradcam++", "layercam", "hirescam", "eigencam")
    found = explain(model, images, maps=maps, layers=("0", "2"))
    flagged = {(one.layer, one.method) for one in found.maps if (one.flags == 3).all()}
    assert flagged == {("0", "gradcam")}
    assert {number for one in found.maps for number in one.flags.tolist()} == {0, 3}


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_small_map_is_no_noise(scale: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AvgPool2d(30), nn.Flatten(), nn.Linear(16, 5)
    )
    with torch.no_grad():
        model[-1].weight *= scale
    methods = (*NAMES, "gradcam++", "xgradcam", "cam", "hirescam", "eigengradcam")
    found = explain(model, torch.rand(4, 3, 32, 32), maps=methods, layers=("1",))
    assert {number for one in found.maps for number in one.flags.tolist()} == {0}


def test_maps_are_those_of_compute_maps_within_half_a_level(
    model: nn.Module, images: Tensor
) -> None:
    host = explain(model, images)
    raw = compute_maps(model, images, maps=NAMES, layers=LAYERS)
    assert [(one.layer, one.method, one.target) for one in host.maps] == [
        (layer, method, 0) for layer in LAYERS for method in NAMES
    ]
    for one in host.maps:
        expected = raw[one.method, one.layer].numpy()
        assert one.levels.dtype == np.uint16
        assert one.levels.shape == expected.shape
        span = (one.hi - one.lo)[:, None, None]
        back = one.lo[:, None, None] + one.levels * (span / 65535)
        assert (np.abs(back - expected) <= span * 0.52 / 65535 + 1e-12).all()
        np.testing.assert_array_equal(one.lo, expected.min((1, 2)))
        np.testing.assert_array_equal(one.hi, expected.max((1, 2)))
        assert (one.flags == 0).all()
    assert host.missing == {}


def test_predictions_losses_and_targets(model: nn.Module, images: Tensor) -> None:
    host = explain(model, images, [2, -1, 4], target=Target("label"), top_k=3)
    logits = model(images).detach()
    scores = logits.softmax(1)
    np.testing.assert_array_equal(host.top_index, scores.topk(3).indices.numpy())
    np.testing.assert_allclose(host.top_score, scores.topk(3).values.numpy(), rtol=1e-5)
    expected = nn.functional.cross_entropy(logits, torch.tensor([2, 0, 4]), reduction="none")
    np.testing.assert_allclose(host.loss[[0, 2]], expected[[0, 2]].numpy(), rtol=1e-5)
    assert np.isnan(host.loss[1])
    assert host.targets.tolist() == [[2], [int(logits[1].argmax())], [4]]
    assert host.nan_output.tolist() == [False] * 3
    assert (host.top_index.dtype, host.targets.dtype) == (np.int32, np.int32)
    assert explain(model, images, top_k=99).top_index.shape == (3, 5)


def test_one_output_gives_its_value(images: Tensor) -> None:
    class Value(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage1 = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.stage1(x).sum((1, 2, 3))

    model = Value()
    host = explain(
        model, images, [0, 0, 0], maps=["hirescam"], layers=["stage1"], target=Target("value")
    )
    np.testing.assert_allclose(host.top_score[:, 0], model(images).detach().numpy(), rtol=1e-5)
    assert host.targets.tolist() == [[0], [0], [0]]
    assert np.isnan(host.loss).all()


def test_several_targets(model: nn.Module, images: Tensor) -> None:
    host = explain(model, images, target=Target("top", k=2), layers=["stage1"])
    assert host.targets.shape == (3, 2)
    asked = [row.tolist() for row in host.targets]
    raw = compute_maps(model, images, maps=NAMES, layers=["stage1"], targets=asked)
    assert [(one.method, one.target) for one in host.maps] == [
        (m, t) for t in (0, 1) for m in NAMES
    ]
    for one in host.maps:
        expected = raw[one.method, "stage1"][:, one.target].numpy()
        np.testing.assert_array_equal(one.hi, expected.max((1, 2)))


def test_recorded_layers(model: nn.Module, images: Tensor) -> None:
    host = explain(model, images, layers=["stage2"], recorded=["relu", "stage2"], channels=2)
    activations = capture(
        model, images, ["relu", "stage2"], lambda _: (), gradients=False
    ).activations
    assert [one.layer for one in host.channels] == ["relu", "stage2"]
    for one, top in zip(host.channels, host.tops, strict=True):
        expected = activations[one.layer]
        flat = expected.flatten(2)
        np.testing.assert_allclose(one.mean, flat.mean(2).numpy(), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(one.maximum, flat.amax(2).numpy())
        np.testing.assert_array_equal(one.zeros, (flat == 0).float().mean(2).numpy())
        np.testing.assert_array_equal(one.place, flat.argmax(2).numpy())
        assert (one.height, one.width) == tuple(expected.shape[2:])
        assert top.layer == one.layer
        assert top.levels.dtype == np.uint8
        assert top.levels.shape == (3, 2, *expected.shape[2:])
        np.testing.assert_array_equal(top.channels, flat.mean(2).topk(2).indices.numpy())
        picked = expected.gather(
            1, torch.tensor(top.channels).long()[:, :, None, None].expand(top.levels.shape)
        )
        lo, hi = top.lo[:, :, None, None], top.hi[:, :, None, None]
        assert (
            np.abs(lo + top.levels * (hi - lo) / 255 - picked.numpy()) <= (hi - lo) / 509 + 1e-9
        ).all()
    assert explain(model, images, recorded=["stage2"], channels=0).tops == []


def test_without_methods_there_is_no_graph_but_predictions_and_activations(
    model: nn.Module, images: Tensor
) -> None:
    seen = []
    # But for the trial of one image, which shows how layers lie.
    model.head.register_forward_hook(
        lambda _m, _i, output: seen.append(output.requires_grad and len(output) == len(images))
    )
    host = explain(model, images, maps=[], layers=LAYERS, recorded=["stage1"])
    assert host.maps == []
    assert len(host.channels) == 1
    assert explain(model, images, maps=["eigencam"]).maps
    assert not any(seen)
    explain(model, images)
    assert any(seen)


def test_zero_constant_and_not_finite_maps_are_flagged(model: nn.Module, images: Tensor) -> None:
    nn.init.zeros_(model.head.weight)
    host = explain(model, images, maps=["gradcam"])
    for one in host.maps:
        assert one.flags.tolist() == [1, 1, 1]
        assert one.lo.tolist() == one.hi.tolist() == [0, 0, 0]
    nn.init.ones_(model.head.weight)
    with torch.no_grad():
        model.stage1[0].weight.zero_()
        model.stage1[0].bias.fill_(1)
        model.stage2[0].weight.fill_(0.1)
        model.stage2[0].bias.zero_()
    (one,) = explain(model, images, maps=["gradcam"], layers=["stage2"]).maps
    assert one.flags.tolist() == [2, 2, 2]
    assert (one.lo == one.hi).all()
    assert (one.lo > 0).all()
    spoiled = images.clone()
    spoiled[1] = torch.nan
    with torch.no_grad():
        model.stage1[0].weight.normal_()
        model.stage2[0].weight.normal_()
    host = explain(model, spoiled, maps=["gradcam"], layers=["stage2"])
    assert host.nan_output.tolist() == [False, True, False]
    assert host.maps[0].flags.tolist() == [0, 4, 0]
    assert np.isnan(host.maps[0].lo[1])
    assert (host.maps[0].levels[1] == 0).all()


def test_what_is_missing_is_said_and_the_rest_is_there(model: nn.Module, images: Tensor) -> None:
    host = explain(model, images, maps=["gradcam", "cam"], layers=["stage1", "stage2", "idle"])
    assert [(one.method, one.layer) for one in host.maps] == [
        ("gradcam", "stage1"),
        ("gradcam", "stage2"),
        ("cam", "stage2"),
    ]
    assert set(host.missing) == {"idle", "cam at stage1"}
    with pytest.raises(LayerError, match="none of the layers can be explained"):
        explain(model, images, maps=["gradcam"], layers=["idle"])


def test_a_batch_in_two_parts_is_the_whole(model: nn.Module, images: Tensor) -> None:
    options: dict[str, Any] = {"recorded": LAYERS, "channels": 2}
    model, images = model.double(), images.double()
    whole = explain(model, images, **options)
    parts = [explain(model, some, **options) for some in (images[:1], images[1:])]
    targets = np.concatenate([part.targets for part in parts])
    assert targets.tolist() == whole.targets.tolist()
    scores = np.concatenate([part.top_score for part in parts])
    np.testing.assert_allclose(scores, whole.top_score, rtol=1e-6)
    for *both, other in zip(*(part.maps for part in parts), whole.maps, strict=True):
        for one in both:
            assert (one.method, one.layer, one.target) == (other.method, other.layer, other.target)
        levels = np.concatenate([one.levels for one in both]).astype(int)
        assert np.abs(levels - other.levels).max() <= 1
    for *both, other in zip(*(part.channels for part in parts), whole.channels, strict=True):
        for one in both:
            assert (one.layer, one.height, one.width) == (other.layer, other.height, other.width)
        means = np.concatenate([one.mean for one in both])
        np.testing.assert_allclose(means, other.mean, rtol=1e-6, atol=1e-7)


def test_one_buffer_carries_everything(model: nn.Module, images: Tensor) -> None:
    explainer = Explainer(
        model, get_methods(NAMES), LAYERS, target=Target("predicted"), recorded=LAYERS
    )
    batch = explainer(images, torch.full((3,), -1))
    host = batch.to_host()
    memory = batch.packed.numpy()
    arrays = [host.top_index, host.loss, host.nan_output]
    arrays += [array for here in host.maps for array in (here.levels, here.lo, here.hi, here.flags)]
    for reduced, top in host.recorded.values():
        arrays += [reduced.mean, reduced.maximum, reduced.zeros, reduced.place]
        arrays += [top.channels, top.lo, top.hi, top.levels]
    assert all(np.shares_memory(array, memory) for array in arrays)


@pytest.mark.parametrize("maps", [NAMES, ("eigencam",)])
def test_a_batch_is_scored_once(
    maps: tuple[str, ...], model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    score = Scorer.__call__

    def noting(self: Scorer, *given: Any) -> Any:
        calls.append(1)
        return score(self, *given)

    monkeypatch.setattr(Scorer, "__call__", noting)
    host = explain(model, images, maps=maps)
    assert len(calls) == 1
    assert host.targets[:, 0].tolist() == model(images).argmax(1).tolist()


def test_a_batch_that_lies_otherwise_than_the_first_is_refused(
    model: nn.Module, images: Tensor
) -> None:
    explainer = Explainer(model, get_methods(NAMES), LAYERS, target=Target("predicted"))
    unknown = torch.full((3,), -1)
    explainer(images, unknown)
    with pytest.raises(LayerError, match=r"'stem' gives \(3, 4, 4, 4\) .* it gave \(4, 6, 8\) per"):
        explainer(images[:, :, :8, :8], unknown)
    explainer(images, unknown)


def test_a_run_that_holds_the_model_takes_no_other_snapshot_per_batch(
    model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("exporter.capture.guest")
    explainer = Explainer(model, get_methods(NAMES), LAYERS, target=Target("predicted"))
    with guest(model):
        monkeypatch.setattr(module, "ModelState", None)  # calling it would raise
        for _ in range(2):
            explainer(images, torch.full((3,), -1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_nothing_waits_before_the_copy(model: nn.Module, images: Tensor) -> None:
    explainer = Explainer(
        model.cuda(), get_methods(NAMES), LAYERS, target=Target("predicted"), recorded=LAYERS
    )
    there, labels = images.cuda(), torch.full((3,), -1, device="cuda")
    explainer(there, labels).to_host()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = explainer(there, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    here = explain(model.cpu(), images, recorded=LAYERS)
    np.testing.assert_allclose(batch.to_host().top_score, here.top_score, rtol=1e-2)
