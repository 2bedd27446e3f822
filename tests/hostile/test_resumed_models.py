"""Another forward with the same weights is not the model that a run was begun with."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import exporter
from exporter.errors import RunError
from exporter.models.code import code_digest
from exporter.store import check

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"

FACTORY = """
import functools
import torch
from torch import nn

SCALE = 1.0
TABLE = {"shift": 0.0}

def normalised(x):
    return x - 0.0

def scaled(original, x, *, factor):
    return original(x * factor)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 3)
        self.gain = 1.0

    def forward(self, x):
        x = self.body(self.conv(normalised(x * SCALE) + TABLE["shift"]))
        return self.head(x.mean((2, 3)) * self.gain)

def make():
    net = Net().eval()
    body = net.body.forward
    net.body.forward = lambda x: body(x)
    net.head.register_forward_hook(lambda module, inputs, output: output * 1.0)
    net.conv.forward = functools.partial(scaled, net.conv.forward, factor=1.0)
    return net
"""

CODE = {
    "forward": ("x.mean((2, 3))", "x.amax((2, 3))"),
    "a function it calls": ("x - 0.0", "-x"),
    "a closure": ("lambda x: body(x)", "lambda x: body(-x)"),
    "a hook": ("output * 1.0", "output * 3.0"),
    "an argument of a partial": ("factor=1.0", "factor=-1.0"),
}
"""Edits of the code that a model runs."""

NUMBERS = {
    "an attribute": ("Net().eval()\n", "Net().eval()\n    net.gain = 9.0\n"),
    "a global": ("SCALE = 1.0", "SCALE = -1.0"),
    "a table": ('{"shift": 0.0}', '{"shift": 2.0}'),
}
"""Edits of what such code reads: only what it computes tells."""

HARMLESS = {
    "a comment": ("SCALE = 1.0", "# How much.\n\nSCALE = 1.0"),
    "a docstring": ("def normalised(x):\n", 'def normalised(x):\n    """Say what it does."""\n'),
    "a name": ("def normalised(x):\n    return x", "def normalised(y):\n    return y"),
}
"""Edits that change nothing of what is run."""


@pytest.fixture(autouse=True)
def every_run_reads_the_factory_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process of its own would."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def _forget_factories() -> None:
    for name in [name for name in sys.modules if name.startswith("_exporter_file_factory")]:
        del sys.modules[name]


def plan(folder: Path, **settings: Any) -> Any:
    _forget_factories()
    given = {"maps": ("gradcam", "saliency"), "limit": 6, "shard_size": 2, "batch_size": 2}
    return exporter.export(
        f"{folder}/factory.py:make",
        PHOTOS,
        out=folder / "run",
        writers=(),
        preprocessing={"size": 32},
        **(given | settings),
    )


def interrupted(folder: Path) -> list[Any]:
    """Leave a run as one that was killed before its last shard, and return its rows."""
    (folder / "factory.py").write_text(FACTORY)
    rows = list(plan(folder).rows())
    (folder / "run/run.json").unlink()
    max((folder / "run/shards").iterdir()).unlink()
    return rows


def edit(folder: Path, before: str, after: str) -> None:
    assert FACTORY.count(before) == 1
    (folder / "factory.py").write_text(FACTORY.replace(before, after))


@pytest.mark.parametrize(
    "kind",
    [k if k == "forward" else pytest.param(k, marks=pytest.mark.slow) for k in CODE],
)
def test_edited_code_is_refused(kind: str, tmp_path: Path) -> None:
    interrupted(tmp_path)
    edit(tmp_path, *CODE[kind])
    with pytest.raises(RunError, match=r"has other numbers for .* than this model gives"):
        plan(tmp_path, resume=True)
    (tmp_path / "factory.py").write_text(FACTORY)
    assert plan(tmp_path, resume=True).complete


def test_edited_code_that_computes_the_same_goes_on_and_it_is_said(tmp_path: Path) -> None:
    rows = interrupted(tmp_path)
    edit(tmp_path, "x - 0.0", "(x - 0.0) if len(x) else x.flip(0)")
    resumed = plan(tmp_path, resume=True)
    assert list(resumed.rows()) == rows
    assert [note for note in resumed.plan.notes if "code that the model runs has changed" in note]
    assert not check(resumed.path)


def test_a_finished_run_is_of_the_code_it_was_made_with(tmp_path: Path) -> None:
    interrupted(tmp_path)
    plan(tmp_path, resume=True)
    edit(tmp_path, *CODE["forward"])
    with pytest.raises(RunError, match="the code that the model runs has changed"):
        plan(tmp_path, resume=True)


@pytest.mark.parametrize(
    "kind",
    [k if k == "an attribute" else pytest.param(k, marks=pytest.mark.slow) for k in NUMBERS],
)
def test_edited_numbers_are_refused(kind: str, tmp_path: Path) -> None:
    interrupted(tmp_path)
    edit(tmp_path, *NUMBERS[kind])
    with pytest.raises(RunError, match=r"has other numbers for .* than this model gives"):
        plan(tmp_path, resume=True)


@pytest.mark.parametrize(
    "kind",
    [k if k == "a comment" else pytest.param(k, marks=pytest.mark.slow) for k in HARMLESS],
)
def test_the_same_model_goes_on(kind: str, tmp_path: Path) -> None:
    rows = interrupted(tmp_path)
    edit(tmp_path, *HARMLESS[kind])
    assert list(plan(tmp_path, resume=True).rows()) == rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*CODE, *NUMBERS])
def test_a_worker_refuses_it_too(kind: str, tmp_path: Path) -> None:
    interrupted(tmp_path)
    (tmp_path / "factory.py").write_text(FACTORY)
    _forget_factories()
    planned = exporter.plan(
        f"{tmp_path}/factory.py:make",
        PHOTOS,
        out=tmp_path / "planned",
        writers=(),
        preprocessing={"size": 32},
        limit=4,
        shard_size=2,
    )
    exporter.work(planned.path, [0])
    edit(tmp_path, *(CODE | NUMBERS)[kind])
    _forget_factories()
    with pytest.raises(RunError, match=r"has changed|has other numbers"):
        exporter.work(planned.path, [1])


def test_a_model_handed_over_in_python_is_held_to_what_it_gave(tmp_path: Path) -> None:
    """Here nothing but the numbers can tell."""
    torch.manual_seed(0)
    gain = [1.0]
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(900, 3)).eval()
    model.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * gain[0],))

    def export(**settings: Any) -> Any:
        return exporter.export(
            model,
            PHOTOS,
            out=tmp_path / "run",
            maps=("gradcam",),
            layers=("1",),
            limit=4,
            shard_size=2,
            writers=(),
            preprocessing={"size": 32},
            **settings,
        )

    export()
    (tmp_path / "run/run.json").unlink()
    max((tmp_path / "run/shards").iterdir()).unlink()
    gain[0] = -2.0
    with pytest.raises(RunError, match="has other numbers"):
        export(resume=True)
    gain[0] = 1.0
    assert export(resume=True).complete


@pytest.mark.slow
def test_the_digest_does_not_depend_on_the_process(tmp_path: Path) -> None:
    (tmp_path / "factory.py").write_text(FACTORY)
    code = (
        "from exporter.models import resolve; "
        f"print(resolve('{tmp_path}/factory.py:make', weights='none').record.code)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(said) == 1
    assert re.fullmatch("[0-9a-f]{12}\n", said.pop())


def test_numbers_in_closures_count_and_calls_do_not() -> None:
    def make(scale: float) -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2))
        original, calls = model.forward, 0

        def forward(x: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return original(x * scale)

        model.forward = forward  # type: ignore[method-assign]
        return model

    model = make(1.0)
    digest = code_digest(model)
    model(torch.zeros(1, 2))
    assert code_digest(model) == digest == code_digest(make(1.0))
    assert code_digest(make(2.0)) != digest


def of_a_closure(number: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    original = model.forward
    model.forward = lambda x: original(x) * number  # type: ignore[method-assign]
    return model


def of_a_default(number: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    original = model.forward

    def forward(x: torch.Tensor, times: Any = number) -> torch.Tensor:
        return original(x) * times

    model.forward = forward  # type: ignore[method-assign]
    return model


def of_a_keyword(number: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))

    def twice(_module: nn.Module, _inputs: Any, output: Any, *, times: Any = number) -> Any:
        return output * times

    model.register_forward_hook(twice)
    return model


def of_a_partial(number: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    original = model.forward
    model.forward = functools.partial(  # type: ignore[method-assign]
        lambda times, x: original(x) * times, number
    )
    return model


@pytest.mark.parametrize("make", [of_a_closure, of_a_default, of_a_keyword, of_a_partial])
def test_numbers_of_every_type_count_wherever_code_holds_them(make: Any) -> None:
    numbers = (1, 2, True, None, 1.0, 1.5, (1, 2), (1, 3), "1", b"1", 1j)
    assert len({code_digest(make(number)) for number in numbers}) == len(numbers)
    assert all(code_digest(make(number)) == code_digest(make(number)) for number in numbers)
