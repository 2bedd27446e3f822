"""Modules whose names hold the signs of the layers' grammar are explained like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import parse_name, quoted
from exporter.cli import main
from exporter.explain import compute_maps
from exporter.layers import choose_layers, collect_kernels, layer_table, run_trial
from exporter.maximise import parse_request
from exporter.store import check, open_run

ODD = (
    "a[0]", "a[key]", "[", "]", "b#2", "b#1", "#", "c*", "**", "d?", "@Conv2d", "f g", " ", "h:i",
    ":0", "auto", "all", "output", 'j"k', '"', "l\\m", "x,y", "n=1", "é", "猫", "o\np", "fused",
    "attention", "layer4", "0", "-1", "'q'", "$r", "%s", "{t}", "<u>", "&", "/v",
)  # fmt: skip


class Branch(nn.Module):
    """Holds a convolution, an activation that is called twice, and gives a mapping."""

    def __init__(self, name: str, held: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.add_module(name, nn.Conv2d(3, 4, 3, 2))
        self.conv, self.key = name, held
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the convolution's output under a key."""
        return {self.key: self.relu(self.relu(self._modules[self.conv](inputs)) - 0.1)}


class Net(nn.Module):
    """A model in which one name is odd, or plain, and so is a key of what it returns."""

    def __init__(self, name: str, seed: int = 0) -> None:
        super().__init__()
        self.outer = nn.ModuleDict({name: Branch(name, name, seed)})
        self.name = name
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return three logits."""
        return self.head(self.outer[self.name](inputs)[self.name].mean((2, 3)))


@pytest.fixture
def images() -> Tensor:
    """Return two images."""
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def forms(name: str) -> dict[str, str]:
    """Return layer texts of the odd model by the same ones of the plain one."""
    odd = json.dumps(name, ensure_ascii=False)
    return {
        "outer.plain.plain": f"outer.{odd}.{odd}",
        "outer.plain.relu#2": f"outer.{odd}.relu#2",
        "outer.plain[plain]": f"outer.{odd}[{odd}]",
        "outer.*.relu": "outer.*.relu",
        "outer.plain.*": f"outer.{odd}.*",
        "@ReLU": "@ReLU",
        "auto": "auto",
    }


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    for module in (name, f"outer.{name}", f"{name}.{name}.conv"):
        for suffix in ("", "#2", "[0]", "#3[a][b]"):
            read = parse_name(quoted(module) + suffix)
            assert read.module == module
            assert str(read) == quoted(module) + suffix
            assert parse_name(module + suffix, [module, "outer", "a"]) == read


FEW = ("a[0]", "b#2", "c*", "h:i")
EACH = [*FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in ODD if n not in FEW)]


@pytest.mark.parametrize("name", EACH)
def test_maps_at_a_layer_of_an_odd_name_are_those_of_a_plain_one(images: Tensor, name: str) -> None:
    plain, odd = Net("plain"), Net(name)
    odd.load_state_dict(dict(zip(odd.state_dict(), plain.state_dict().values(), strict=True)))
    for text, its in forms(name).items():
        maps = ("gradcam", "layercam", "scorecam")
        want = compute_maps(plain, images, maps=maps, layers=(text,))
        got = compute_maps(odd, images, maps=maps, layers=(its,))
        assert len(want) == len(got) > 0
        for (method, _), values in want.items():
            assert any(m == method and torch.equal(values, v) for (m, _), v in got.items())


@pytest.mark.parametrize("name", EACH)
def test_layers_are_found_by_the_names_that_are_shown(images: Tensor, name: str) -> None:
    model = Net(name)
    trial = run_trial(model, images)
    for chosen in choose_layers(trial, ("auto", "**")).names:
        assert choose_layers(trial, (chosen,)).names == (chosen,)
    table = [record.name for record in layer_table(trial)]
    assert len(table) == len(set(table)) == 6
    shown = quoted(f"outer.{name}.{name}")
    assert shown in table
    for wanted in (shown, f"{shown}.weight", f"outer.{name}.{name}", "all", "@Conv2d"):
        assert len(collect_kernels(model, (wanted,))) == 1
    assert parse_request(f"{shown}:0,2", 0).layer == shown


def test_what_begins_like_a_module_is_its_part_or_its_call_only_in_quotes(images: Tensor) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("a", nn.Conv2d(3, 4, 3))
            self.add_module("a#1", nn.Conv2d(3, 4, 3, 2))
            self.add_module("a*", nn.Conv2d(3, 4, 3, 3))

        def forward(self, inputs: Tensor) -> Tensor:
            parts: Any = [child(inputs).mean((2, 3)) for child in self._modules.values() if child]
            return sum(parts)

    trial = run_trial(Two(), images)
    assert choose_layers(trial, ("a",)).names == ("a",)
    assert choose_layers(trial, ("a#1",)).names == ('"a#1"',)
    assert choose_layers(trial, ('"a"#1',)).names == ("a",)
    assert choose_layers(trial, ('"a*"',)).names == choose_layers(trial, ("a*",)).names
    assert len(choose_layers(trial, ("a?*",)).names) == 2
    assert len(choose_layers(trial, ("**",)).names) == 3


MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stages = nn.ModuleDict({NAMES})

    def forward(self, x):
        total = 0
        for stage in self.stages.values():
            total = total + stage(x).mean((2, 3))
        return total

def net():
    return Net()
"""

FLAGS = "run --model mine.py:net --images photos --out out --config run.toml --kernel all"


@pytest.mark.slow
def test_a_run_holds_layers_of_every_odd_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(f"photos/{index}.png", noise.integers(0, 255, (32, 32, 3)))
    stages = ", ".join(f"{name!r}: nn.Conv2d(3, 3, 3, 2)" for name in ODD)
    Path("mine.py").write_text(MODEL.replace("NAMES", stages))
    Path("run.toml").write_text("[preprocessing]\nsize = 32\n")
    shown = [quoted(f"stages.{name}") for name in ODD]
    flags = [
        "run",
        "--model",
        "mine.py:net",
        "--images",
        "photos",
        "--out",
        "out",
        "--config",
        "run.toml",
        "--kernel",
        "all",
    ]
    for name in shown:
        flags += ["--layer", name, "--activation", name, "--maximise", f"{name}:0:steps=1"]
    assert main(flags) == 0
    run = open_run("out")
    assert check("out") == ()
    assert main(["check", "out"]) == 0
    for row in run.rows():
        assert {stored.layer for stored in row.maps} == set(shown)
        assert {stored.layer for stored in row.activations} == set(shown)
    assert {kernels.name for kernels in run.kernels()} == set(shown)
    assert main([*flags, "--resume"]) == 0
