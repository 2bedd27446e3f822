"""Models whose output depends on chance, on the batch or on what was run before: found and said."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import exporter
from exporter.errors import RunError
from exporter.layers import find_out, run_trial
from exporter.maps import METHODS
from exporter.records import Findings
from tests.hostile.guests import Around, convolutional, transformer

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"


def found(model: nn.Module) -> Findings:
    generator = torch.Generator().manual_seed(2)
    return find_out(run_trial(model, torch.rand(1, 3, 16, 16, generator=generator)))


# ---------------------------------------------------------------- chance


def dropout() -> nn.Module:
    return Around(convolutional(), lambda x: functional.dropout(x, 0.5, training=True))


def dropout_in_a_hook() -> nn.Module:
    model = convolutional()
    model[3].register_forward_hook(lambda _m, _i, output: output + torch.rand_like(output))
    return model


def numpys() -> nn.Module:
    return Around(convolutional(), lambda x: x * float(np.random.rand()))


def pythons() -> nn.Module:
    model = convolutional()
    original = model.forward
    model.forward = lambda x: original(x * random.random())  # type: ignore[method-assign, assignment]
    return model


def own_generator() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return Around(convolutional(), lambda x: x + torch.rand(x.shape, generator=generator))


class Counting(nn.Module):
    """Counts its calls in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = convolutional(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.net(x) * self.calls


def counting_in_a_closure() -> nn.Module:
    calls = 0

    def change(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x * calls

    return Around(convolutional(), change)


CALLS = [0]


def counting_in_a_global() -> nn.Module:
    def change(x: Tensor) -> Tensor:
        CALLS[0] += 1
        return x / CALLS[0]

    return Around(convolutional(), change)


def writing_its_weights() -> nn.Module:
    model = convolutional()

    def shrink(module: nn.Module, _inputs: Any) -> None:
        module.weight.data.mul_(0.9)

    model[0].register_forward_pre_hook(shrink)
    return model


@pytest.mark.parametrize(
    ("build", "drawn"),
    [
        (dropout, ("torch",)),
        (dropout_in_a_hook, ("torch",)),
        (numpys, ("NumPy",)),
        (pythons, ("Python",)),
        (own_generator, ()),
        (Counting, ()),
        (counting_in_a_closure, ()),
        (counting_in_a_global, ()),
    ],
)
def test_chance_is_found(build: Callable[[], nn.Module], drawn: tuple[str, ...]) -> None:
    # Two draws may be alike by chance.
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = build()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    findings = found(model)
    assert findings == Findings(repeats=False, alone=None, random=drawn)
    assert not findings.steady
    (note,) = findings.notes
    assert ("draws random numbers" in note) == bool(drawn)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_random_numbers_that_change_nothing_are_found_too() -> None:
    findings = found(Around(convolutional(), lambda x: x + 0 * torch.rand_like(x)))
    assert findings == Findings(random=("torch",))


# ---------------------------------------------------------------- the batch


def trained_in_forward() -> nn.Module:
    model = convolutional()
    return Around(model, lambda x: model[1].train() and x)


def trained_by_a_hook() -> nn.Module:
    model = convolutional()
    model[1].register_forward_pre_hook(lambda module, _inputs: module.train() and None)
    return model


def trained_by_a_function() -> nn.Module:
    model = convolutional()
    norm = model[1]
    model[1].forward = lambda x: functional.batch_norm(  # type: ignore[method-assign, assignment]
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=True
    )
    return model


TRAINED = (trained_in_forward, trained_by_a_hook, trained_by_a_function)


def less_the_mean() -> nn.Module:
    return Around(convolutional(), lambda x: x - x.mean(0))


def against_the_first() -> nn.Module:
    return Around(convolutional(), lambda x: x - 0.5 * x[:1])


def against_the_last() -> nn.Module:
    return Around(convolutional(), lambda x: x - 0.5 * x[-1:])


def shared_out() -> nn.Module:
    return Around(convolutional(), lambda x: x / len(x))


def normalised_over_the_batch() -> nn.Module:
    return nn.Sequential(convolutional(), nn.Softmax(0))


MIXING = (
    less_the_mean,
    against_the_first,
    against_the_last,
    shared_out,
    normalised_over_the_batch,
)


@pytest.mark.parametrize("build", [*TRAINED, *MIXING])
def test_what_depends_on_the_batch_is_found(build: Callable[[], nn.Module]) -> None:
    findings = found(build())
    assert (findings.repeats, findings.alone, findings.random) == (True, False, ())
    assert findings.steady
    assert "depends on the other images in its batch" in findings.notes[0]


@pytest.mark.parametrize("build", [writing_its_weights])
def test_weights_that_a_model_writes_are_found_and_put_back(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    model = build()
    before = model[0].weight.clone()
    findings = found(model)
    assert findings == Findings(writes_parameters=("0.weight",))
    assert findings.notes == (
        "the model writes into its parameters (0.weight) though it is in eval mode; they are "
        "restored before every pass",
    )
    run = export(model, tmp_path / "run", limit=2)
    assert run.plan.findings == findings
    assert findings.notes[0] in run.plan.notes
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("build", TRAINED)
def test_running_statistics_are_put_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    """Torch counts no version of them, so that only their values tell."""
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    findings = found(model)
    assert {name.rpartition(".")[2] for name in findings.writes_buffers} >= {
        "running_mean",
        "running_var",
    }
    assert "writes into its buffers" in findings.notes[1]
    inputs = torch.rand(4, 3, 16, 16)
    maps = exporter.compute_maps(model, inputs, maps=["gradcam", "smoothgrad"], layers=["auto"])
    again = exporter.compute_maps(model, inputs, maps=["gradcam", "smoothgrad"], layers=["auto"])
    assert all(torch.equal(values, again[key]) for key, values in maps.items())
    export(model, tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


EVERY = tuple(name for name, method in METHODS.items() if not method.needs.attention)
AT_LAYERS = tuple(
    name for name in EVERY if METHODS[name].kind != "pass" and not METHODS[name].needs.passes
)


def maps_of(model: nn.Module, inputs: Tensor, methods: tuple[str, ...]) -> list[Tensor]:
    return list(exporter.compute_maps(model, inputs, maps=methods, layers=["@ReLU"]).values())


def four_images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(4))


def assert_alike(maps: list[Tensor], others: list[Tensor]) -> None:
    assert len(maps) == len(others) > 0
    for values, known in zip(maps, others, strict=True):
        torch.testing.assert_close(values, known, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("build", TRAINED[:2])
def test_every_method_gives_the_maps_of_a_function_of_the_batch(
    build: Callable[[], nn.Module],
) -> None:
    """The third way calls `batch_norm` on the batch's own statistics, and trains nothing."""
    known = maps_of(TRAINED[2](), four_images(), EVERY)
    assert_alike(maps_of(build(), four_images(), EVERY), known)


@pytest.mark.parametrize("build", MIXING[:4])
def test_maps_of_layers_are_those_of_what_the_model_makes_of_the_batch(
    build: Callable[[], nn.Module],
) -> None:
    model, plain = build(), Around(convolutional(), lambda x: x)
    known = maps_of(plain, model.change(four_images()), AT_LAYERS)
    assert_alike(maps_of(model, four_images(), AT_LAYERS), known)


@pytest.mark.slow
@pytest.mark.parametrize("build", [dropout, dropout_in_a_hook, numpys, pythons])
def test_every_method_gives_the_same_maps_from_the_same_random_numbers(
    build: Callable[[], nn.Module],
) -> None:
    first, second = (maps_of(build(), four_images(), EVERY) for _ in range(2))
    assert_alike(first, second)


def export(model: nn.Module, out: Path, **settings: Any) -> Any:
    given = {"batch_size": 2, "maps": ("gradcam",), "writers": (), "limit": 6, "shard_size": 2}
    return exporter.export(model, PHOTOS, out=out, preprocessing={"size": 16}, **(given | settings))


@pytest.mark.parametrize(
    "build",
    [trained_by_a_hook, *(pytest.param(b, marks=pytest.mark.slow) for b in MIXING)],
)
def test_the_batch_size_is_part_of_the_plan_where_results_depend_on_it(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    run = export(build(), tmp_path / "run")
    assert run.plan.findings.alone is False
    assert any("the batch size is part of the plan" in note for note in run.plan.notes)
    rows = list(run.rows())
    _interrupted(tmp_path / "run")
    with pytest.raises(RunError, match=r"batch_size was 2 and is now 1, and this model's output"):
        export(build(), tmp_path / "run", batch_size=1, resume=True)
    again = export(build(), tmp_path / "run", resume=True)
    assert list(again.rows()) == rows


def test_the_batch_size_of_other_models_is_free(tmp_path: Path) -> None:
    run = export(convolutional(), tmp_path / "run")
    assert run.plan.findings == Findings()
    _interrupted(tmp_path / "run")
    assert export(convolutional(), tmp_path / "run", batch_size=1, resume=True).complete


def _interrupted(run: Path) -> None:
    """Leave a run as one that was killed before its last shard."""
    (run / "run.json").unlink()
    max((run / "shards").iterdir()).unlink()


@pytest.mark.parametrize(
    "build",
    [dropout, pythons, *(pytest.param(b, marks=pytest.mark.slow) for b in (Counting, numpys))],
)
def test_a_run_says_that_chance_took_part_and_can_be_gone_on_with(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    run = export(build(), tmp_path / "run")
    assert any("another run's differ" in note for note in run.plan.notes)
    _interrupted(tmp_path / "run")
    assert export(build(), tmp_path / "run", resume=True).complete


@pytest.mark.parametrize(
    "model",
    [
        convolutional(),
        transformer(),
        convolutional().double(),
        convolutional().to(torch.bfloat16),
        nn.Sequential(convolutional(), nn.Dropout(0.5)).eval(),
    ],
    ids=["convolutional", "transformer", "float64", "bfloat16", "dropout in eval"],
)
def test_nothing_is_found_of_models_like_most(model: nn.Module) -> None:
    dtype = next(model.parameters()).dtype
    example = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    findings = find_out(run_trial(model, example))
    assert findings == Findings()
    assert findings.notes == ()


def test_a_model_that_takes_one_image_at_a_time_is_not_said_to_depend_on_the_batch() -> None:
    findings = found(Around(convolutional(), lambda x: x.reshape(1, 3, 16, 16)))
    assert findings == Findings(alone=None, untold="it failed with RuntimeError")
    assert findings.notes[0].endswith("could not run several at once: it failed with RuntimeError")
