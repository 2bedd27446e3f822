"""What planning costs: a few forwards, each for a stated purpose."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from exporter.config import build_config
from exporter.demo import photographs
from exporter.describe import describe_layers
from exporter.engines import Recipe, compute_shard
from exporter.planning import bind


class Counted(nn.Module):
    """A model that notes the batch of every forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(6, 4)
        self.batches: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(inputs))
        return self.head(self.features(inputs).mean((2, 3)))


@pytest.mark.parametrize(
    ("settings", "forwards"),
    [
        # The trial that shows layers and output, its image between two others, and the first image
        # explained as a batch will be.
        ({}, [1, 3, 1]),
        ({"layers": ("features",), "maps": ("cam",)}, [1, 3, 1]),
        # The reference image.
        ({"target": "similar:{photo}"}, [1, 3, 1, 1]),
        # Channels are those that the trial showed; only another size is tried.
        ({"maximise": ("features:0:steps=1", "output:strongest=1")}, [1, 3, 1]),
        ({"maximise": ("features:0:steps=1,size=64",)}, [1, 3, 1, 1]),
    ],
)
def test_planning_runs_a_few_forwards(
    tmp_path: Path, settings: dict[str, object], forwards: list[int]
) -> None:
    noise = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), noise.integers(0, 255, (40, 40, 3)))
    asked = {
        name: value.format(photo=tmp_path / "0.jpg") if isinstance(value, str) else value
        for name, value in settings.items()
    }
    config = build_config(
        **{
            "model": "m",
            "images": str(tmp_path),
            "out": tmp_path / "run",
            "maps": ("gradcam",),
            "preprocessing": {"size": 32},
            **asked,
        }
    )
    model = Counted()
    with bind(Recipe(config, module=model)) as job:
        assert model.batches == forwards
        compute_shard(job, 0)
        assert model.batches == [*forwards, 4]


BIASED_BY_NOTHING = """
from torch import nn

def build():
    def stage(i, o):
        return nn.Sequential(nn.Conv2d(i, o, 3, 2, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    stages = [stage(i, 8) for i in (3, 8, 8, 8)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
"""


@pytest.mark.parametrize(
    "spec",
    ["build.py:build", *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet18", "demo"))],
)
def test_the_layers_that_are_listed_as_the_default_are_those_a_run_takes(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "build.py").write_text(BIASED_BY_NOTHING)
    monkeypatch.chdir(tmp_path)
    listed = describe_layers(spec)
    asked = {"model": spec, "weights": "none", "images": str(photographs()), "limit": 1}
    config = build_config(**asked, maps=("gradcam",), out=tmp_path / "run")
    with bind(Recipe(config)) as job:
        planned = job.plan
    assert len(planned.explained) == 4
    assert tuple(listed["explained"]) == planned.explained
    assert listed["reason"] == planned.layer_reason
