"""How often a model runs before the first batch of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import exporter

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def test_planning_runs_a_model_four_times_at_most(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    images: list[int] = []

    def count(_module: nn.Module, inputs: Any) -> None:
        images.append(len(inputs[0]))

    model.register_forward_pre_hook(count)
    exporter.export(
        model,
        PHOTOS,
        out=tmp_path / "run",
        limit=4,
        batch_size=4,
        writers=(),
        preprocessing={"size": 32},
    )
    before = images[: images.index(4)]
    # The trial that planning reads; the first image explained, to see what is missing.
    assert 1 <= len(before) <= 4
    assert set(before) == {1}
