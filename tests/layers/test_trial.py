from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import ModelError
from exporter.explain import compute_maps
from exporter.layers import choose_layers, find_classifier, layer_table, run_trial


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
    assert trial.output.grad_fn is None
    assert [call.name for call in trial.calls] == ["0", "1", "2", "3"]


def test_trial_leaves_the_model_as_it_was_after_a_failure(example: Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2))
    before = state_of(module)
    said = r"in its layer '1' on an input of 1 × 3 × 16 × 16: RuntimeError: mat1 .*7x2\); fix it"
    with pytest.raises(ModelError, match=said):
        run_trial(module, example)
    assert_same(before, state_of(module))


def test_a_failure_of_the_models_own_is_not_hidden_by_a_second_forward(example: Tensor) -> None:
    """Only what autograd refuses is tried again, without a graph."""

    class FailsOnce(nn.Conv2d):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 1:
                raise ValueError("the camera is busy")
            return super().forward(x)

    with pytest.raises(ModelError, match="ValueError: the camera is busy"):
        run_trial(nn.Sequential(FailsOnce(3, 4, 3)), example)


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
    assert len(run_trial(small, example).example) == 2
    assert run_trial(small.to("meta"), torch.rand(1, 3, 8, 8, device="meta")).size == (8, 8)


class Counting(nn.Module):
    """Counts its forwards in a buffer, as some models do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.conv(x).relu().mean(dim=(2, 3))


def test_looking_a_layer_up_leaves_the_buffers_as_they_were(example: Tensor) -> None:
    model = Counting()
    run_trial(model, example)
    compute_maps(model, example, layers="auto")
    assert model.count.item() == 0


@dataclass
class Held:
    low: Tensor
    all: tuple[Tensor, Tensor]


class Dataclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Held:
        x = self.conv(x).relu()
        return Held(x, (x[:, :1], x))


def test_parts_of_a_dataclass_are_found_by_name_glob_and_auto(example: Tensor) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Dataclass()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).low.mean((2, 3)))

    model = Model()
    trial = run_trial(model, example)
    parts = ("body[low]", "body[all][0]", "body[all][1]")
    assert choose_layers(trial, ["body[low]"]).names == ("body[low]",)
    assert choose_layers(trial, ["bod?"]).names == parts
    assert choose_layers(trial, ["@Dataclass"]).names == parts
    assert choose_layers(trial, ["auto"]).names == ("body[low]",)
    maps = compute_maps(model, example, maps=["gradcam"], layers=["auto"])
    assert ("gradcam", "body[low]") in maps


def test_one_forward_shows_all_that_planning_asks(small: Any, example: Tensor) -> None:
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    small.register_forward_pre_hook(count)
    trial = run_trial(small, example)
    choice = choose_layers(trial, ["auto", "conv?"])
    assert layer_table(trial)[0].output == (4, 16, 16)
    assert torch.equal(find_classifier(trial, "relu#2").weight, small.fc.weight)
    assert set(choice.layouts) == set(choice.names)
    assert choice.layouts["conv1"].evidence == "a Conv2d has its channels first"
    assert forwards == 1


def test_a_model_that_runs_without_a_graph_only_is_looked_at_without_one(example: Tensor) -> None:
    class Numpy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(self.conv(x).numpy()).mean((2, 3))

    trial = run_trial(Numpy(), example)
    assert [call.name for call in trial.calls] == ["conv"]
    assert trial.reached is None
