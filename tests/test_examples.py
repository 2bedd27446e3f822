"""Every example runs on small inputs, holds the numbers of its note, and has a page with a picture.

The examples assert their numbers themselves; what a small input cannot hold (512 × 7 × 7 features,
stages at 512 pixels) is asserted here, on shapes alone, on torch's ``meta`` device.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import exporter
from exporter.layers import collect_kernels, find_classifier, run_trial
from exporter.render import decode_image
from tests.writers.wandb.test_writer import history

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples"
PAGES = ROOT / "docs" / "examples"
EXAMPLES = sorted(
    path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text(encoding="utf-8")
)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import the examples as ``python examples/NAME.py`` would, and forget them afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and name in stems():
            del sys.modules[name]


def stems() -> set[str]:
    return {path.stem for path in FOLDER.glob("*.py")}


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs_on_small_inputs_and_holds_its_numbers(name: str, tmp_path: Path) -> None:
    written = load(name).main(tmp_path, small=True)
    assert written.parent == tmp_path
    picture = decode_image(written.read_bytes())
    assert picture.shape[0] > 60
    assert picture.std() > 5
    if name == "training_story":
        told = history(tmp_path / name / "wandb")
        curves = [row for row in told if "exporter/step" in row]
        assert [row["exporter/step"] for row in curves] == [0, 12]
        first, last = (row["exporter/set/accuracy"] for row in curves)
        assert first < last
        assert curves[0]["exporter/given/loss"] > curves[1]["exporter/given/loss"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_short_and_its_page_shows_its_picture(name: str) -> None:
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert 30 <= len(lines) <= 135
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", page)
    assert shown, "the page has no picture with a text that says what it shows"
    for where in shown:
        content = (PAGES / where).read_bytes()
        assert len(content) < 200_000
        assert decode_image(content).shape[2] == 3
    assert f"python examples/{name}.py" in page
    assert f"]({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["with_timm", "with_references"])
def test_a_loop_that_people_copy_is_watched_and_trains_as_without(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("watch_trainers")
    images = example.digits(tmp_path / "digits", 2)
    watched = getattr(example, loop)(images, tmp_path / "run", 2)
    epochs = exporter.open_run(tmp_path / "run").epochs
    assert list(epochs) == [0, 1]
    assert len(epochs[1].plan.images) == 8
    assert [entry.label is not None for entry in epochs[1].plan.images] == [True] * 8
    assert epochs[1].plan.methods[0].name == "gradcam"
    # Nothing is explained, and the training comes to the same weights.
    monkeypatch.setattr(exporter.Watcher, "step", lambda *_, **__: None)
    alone = getattr(example, loop)(images, tmp_path / "alone", 2)
    for a, b in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_a_wrong_number_stops_the_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = load("vgg11_kernels")
    real = example.collect_kernels
    monkeypatch.setattr(example, "collect_kernels", lambda *given: real(*given)[1:])
    with pytest.raises(AssertionError):
        example.main(tmp_path, small=True)


def test_vgg16_features_are_512_by_7_by_7() -> None:
    with torch.device("meta"):
        model = load("cam_from_classifier").vgg16_pooled()
        assert model.get_submodule("features")(torch.rand(1, 3, 224, 224)).shape == (1, 512, 7, 7)


@pytest.mark.slow
def test_the_pooled_head_is_the_classifier_that_cam_reads() -> None:
    torch.manual_seed(0)
    model = load("cam_from_classifier").vgg16_pooled().eval()
    found = find_classifier(run_trial(model, torch.rand(1, 3, 64, 64)), "features")
    assert torch.equal(found.weight, model.get_submodule("linear").weight)


def test_the_stages_of_the_two_stream_net_at_512_pixels() -> None:
    with torch.device("meta"):
        stages = load("two_stream").Stages()
        found = [tuple(one.shape[1:]) for one in stages(torch.rand(1, 3, 512, 512))]
    assert found == [(256, 128, 128), (512, 64, 64), (1024, 32, 32), (2048, 32, 32)]


def test_the_constrained_kernels_answer_nothing_on_a_flat_picture() -> None:
    layer = load("two_stream").ConstrainedConv(3, 3)
    (kernels,) = collect_kernels(layer, ["weight"])
    assert (kernels.values[:, :, 1, 1] == -1).all()
    inside = layer(torch.full((1, 3, 9, 9), 0.7))[:, :, 1:-1, 1:-1]
    assert inside.abs().max() < 1e-5


def test_the_constraint_is_restored_after_a_training_step() -> None:
    layer = load("two_stream").ConstrainedConv(3, 3)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01)
    layer(torch.rand(1, 3, 9, 9)).square().mean().backward()
    optimiser.step()
    assert (layer.weight[:, :, 1, 1] != -1).any()
    layer.constrain()
    assert (layer.weight[:, :, 1, 1] == -1).all()
    torch.testing.assert_close(layer.weight.sum(dim=(2, 3)), torch.zeros(3, 3))


def test_the_sobel_gate_halves_or_less_where_nothing_changes() -> None:
    gate = load("two_stream").SobelGate(1)
    for module in gate.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1
    share = gate(step + 1) / (step + 1)
    # Sobel of a unit step is 4 on both sides of it and 0 elsewhere (here sqrt(1e-6) = 1e-3).
    scale = (1 + 1e-5) ** -0.5
    assert torch.allclose(share[..., 3:5], torch.sigmoid(torch.tensor(4 * scale)), atol=1e-5)
    assert torch.allclose(share[..., :3], torch.sigmoid(torch.tensor(1e-3 * scale)), atol=1e-5)


@pytest.mark.slow
def test_every_edge_stage_and_both_streams_reach_the_outputs() -> None:
    torch.manual_seed(0)
    net = load("two_stream").build()
    edge, mask = net(torch.rand(1, 3, 64, 64))
    for plane, parts in ((edge, ("edges", "stages")), (mask, ("edges", "noise", "constrained"))):
        net.zero_grad()
        plane.sum().backward(retain_graph=True)
        for name, parameter in net.named_parameters():
            if name.startswith(parts) and name.endswith("weight"):
                assert parameter.grad is not None, name
                assert parameter.grad.abs().max() > 0, name
