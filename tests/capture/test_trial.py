from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.capture.trial import run_trial
from exporter.errors import ModelError


def state_of(module: nn.Module) -> tuple[object, ...]:
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in module.modules()
    ]
    return hooks, {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()


def assert_same(before: tuple, after: tuple) -> None:
    assert before[0] == after[0]
    assert all(torch.equal(value, after[1][key]) for key, value in before[1].items())
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("train", [True, False])
def test_trial_leaves_the_model_as_it_was(train: bool, example: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    module.train(train)
    module[2].eval()
    before = state_of(module)
    trial = run_trial(module, example)
    assert_same(before, state_of(module))
    assert not trial.output.requires_grad
    assert [call.name for call in trial.calls] == ["0", "1", "2", "3"]


def test_trial_leaves_the_model_as_it_was_after_a_failure(example: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2))
    before = state_of(module)
    with pytest.raises(ModelError, match=r"input of 1 × 3 × 16 × 16 failed: RuntimeError"):
        run_trial(module, example)
    assert_same(before, state_of(module))


def test_trial_numbers_calls_and_parts(small: Any, example: Tensor) -> None:
    class Pair(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"low": x, "all": (x[:, :1], x)}

    trial = run_trial(nn.Sequential(small.conv1, Pair()), example)
    assert trial.calls[1].shapes == {
        "[low]": (1, 4, 16, 16),
        "[all][0]": (1, 1, 16, 16),
        "[all][1]": (1, 4, 16, 16),
    }
    names = [call.name for call in run_trial(small, example).calls]
    assert names == ["conv1", "relu", "pool", "conv2", "relu#2", "between", "drop", "fc"]


def test_trial_takes_inference_tensors_and_meta(small: Any) -> None:
    with torch.inference_mode():
        example = torch.rand(2, 3, 16, 16)
    assert run_trial(small, example).batch == 2
    assert run_trial(small.to("meta"), torch.rand(1, 3, 8, 8, device="meta")).size == (8, 8)
