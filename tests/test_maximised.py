"""``--maximise`` from the command to the run folder: what is made, and what is refused before."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from exporter import contents as stored
from exporter import export
from exporter.cli import main
from exporter.config import build_config
from exporter.engines import Recipe
from exporter.maximise import estimate_maximised
from exporter.planning import bind
from exporter.render import decode_image
from exporter.store import Run, check, open_run

MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True),
        nn.Conv2d(6, 12, 3, stride=2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )
"""
ASKED = (
    *("--maximise", "3:strongest=3:steps=4"),
    *("--maximise", "0:0-2,5:steps=2,prior=none,size=24"),
    *("--maximise", "output:strongest=2:steps=2"),
    *("--maximise", "output:3,newt:steps=2"),
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "classes.txt").write_text("tench\nnewt\nespresso\nwall clock\n")
    (tmp_path / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"photos/{index}.png"), noise.integers(0, 255, (40, 48, 3)))
    return tmp_path


def arguments(work: Path, *more: str, out: str = "run") -> list[str]:
    return [
        "run",
        *("--model", f"{work / 'small.py'}:small"),
        *("--images", str(work / "photos")),
        *("--out", str(work / out)),
        *("--config", str(work / "run.toml")),
        *("--classes", str(work / "classes.txt")),
        *("--writer", "html"),
        *("--map", "gradcam"),
        *("--layer", "3"),
        *more,
    ]


def contents(run: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((run / "maximised").iterdir())
    }


@pytest.mark.slow
def test_the_pictures_asked_for_are_in_the_run(work: Path) -> None:
    assert main(arguments(work, *ASKED)) == 0
    run = open_run(work / "run")
    assert check(run.path) == ()
    made = [(one.layer, one.channel) for one in run.maximised()]
    means = {row.channel: row.mean for row in run.channels("3")}
    strongest = sorted(means, key=lambda one: -means[one])[:3]
    assert made[:3] == [("3", channel) for channel in strongest]
    assert made[3:7] == [("0", channel) for channel in (0, 1, 2, 5)]
    counts = {row.index: row.predicted for row in run.classes() if row.predicted}
    predicted = sorted(counts, key=lambda one: (-counts[one], one))[:2]
    classes = [*predicted, *(one for one in (3, 1) if one not in predicted)]
    assert made[7:] == [("output", index) for index in classes]
    names = ("tench", "newt", "espresso", "wall clock")
    assert [one.name for one in run.maximised("output")] == [names[index] for index in classes]
    # What is maximised is recorded, so that its best images stand beside it.
    assert run.plan.recorded == ("0", "3")
    assert run.plan.explained == ("3",)


@pytest.mark.slow
def test_what_is_said_of_a_picture_is_what_the_model_says_to_it(work: Path) -> None:
    assert main(arguments(work, *ASKED)) == 0
    run = open_run(work / "run")
    scope: dict[str, Any] = {}
    exec(MODEL, scope)
    model: nn.Sequential = scope["small"]().eval()
    steps = run.plan.model.preprocessing
    for one in run.maximised():
        pixels = torch.from_numpy(decode_image(one.picture)).float().permute(2, 0, 1) / 255
        assert pixels.shape[1:] == ((24, 24) if one.layer == "0" else (32, 32))
        mean, std = (torch.tensor(part)[:, None, None] for part in (steps.mean, steps.std))
        last = 6 if one.layer == "output" else int(one.layer)
        # The next module works in place.
        with torch.no_grad():
            said = model[: last + 1](((pixels - mean) / std)[None])[0, one.channel]
        assert said.mean().item() == pytest.approx(one.after, rel=1e-4, abs=1e-6)
        assert said.max().item() == pytest.approx(one.peak, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_a_resumed_run_makes_only_what_is_missing_and_gives_the_same_bytes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--maximise", "3:0-9:steps=3", "--maximise", "output:0:steps=3")
    assert main(arguments(work, *asked)) == 0
    run = work / "run"
    whole = contents(run)
    assert len(whole) == 3
    (run / "maximised/00001.parquet").unlink()
    (run / "maximised/.00002.tmp").write_bytes(b"half")
    kept = (run / "maximised/00000.parquet").stat().st_mtime_ns
    made: list[int] = []
    real = stored.maximise_groups

    def noting(job: Any, groups: Any, missing: Any, write: Any, watch: Any) -> None:
        made.extend(missing)
        real(job, groups, missing, write, watch)

    monkeypatch.setattr(stored, "maximise_groups", noting)
    assert main(arguments(work, *asked, "--resume")) == 0
    assert made == [1]
    assert contents(run) == whole
    assert (run / "maximised/00000.parquet").stat().st_mtime_ns == kept
    assert check(run) == ()
    assert main(arguments(work, *asked, "--resume")) == 0
    assert made == [1]


@pytest.mark.slow
def test_the_seed_of_the_run_is_that_of_the_pictures(work: Path) -> None:
    found = {}
    for name, more in (("a", ()), ("b", ("--seed", "1")), ("c", ())):
        own = ":steps=2,seed=1" if name == "c" else ":steps=2"
        assert main(arguments(work, "--maximise", f"3:1{own}", *more, out=name)) == 0
        (found[name],) = open_run(work / name).maximised()
    assert found["a"].picture != found["b"].picture
    assert found["b"].picture == found["c"].picture


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("3", "names no layer or no channels"),
        ("nine:1", "no layer 'nine'"),
        ("3:12", "'3' has no channel 12; it has 12, 0 to 11"),
        ("output:4", "no class 4; it has 4, 0 to 3"),
        ("output:newts", "'newts'; did you mean 'newt'"),
        ("5:strongest=2", "strongest channels of '5' will not be known"),
        ("3:1:steps=none", "steps is 'none'; give a whole number"),
        ("3:1:prior=furrier", "'furrier'; did you mean 'fourier'"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2_and_leaves_nothing(
    work: Path, capfd: pytest.CaptureFixture[str], asked: str, says: str
) -> None:
    assert main(arguments(work, "--maximise", asked)) == 2
    said = capfd.readouterr().err
    assert re.search(says, said), said
    assert len([line for line in said.splitlines() if line]) == 1
    assert not (work / "run").exists()


def test_a_dry_run_says_what_would_be_made(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(work, *ASKED, "--dry-run")) == 0
    said = capfd.readouterr().out
    assert "maximise 3: 3 strongest channels, fourier prior, 4 steps of 0.05" in said
    assert "maximise 0: 4 channels, no prior, 2 steps of 0.05" in said
    assert "maximise output: 2 strongest channels" in said
    assert re.search(r"\n {9}and about \S.* to maximise, estimated from a few steps\n", said), said


@pytest.mark.slow
def test_the_estimate_counts_every_picture_and_every_step(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    config = build_config(
        model=f"{work / 'small.py'}:small",
        images=str(work / "photos"),
        out=work / "run",
        layers=("3",),
        maximise=("3:0-11:steps=40", "0:strongest=2:steps=2"),
        batch_size=8,
    )
    with bind(Recipe(config)) as job:
        monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
        # Each request takes a second: that of 4 of 40 steps for 8 of 12 channels, and of all.
        assert estimate_maximised(job.make_pictures, job.maximised) == 10 * 12 / 8 + 1
    assert not (work / "run").exists()


def test_a_module_handed_over_is_left_as_it_was(work: Path) -> None:
    scope: dict[str, Any] = {}
    exec(MODEL, scope)
    model: nn.Module = scope["small"]().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    run: Run = export(
        model,
        work / "photos",
        out=work / "run",
        layers=("3",),
        maximise=("auto:1:steps=2",),
        preprocessing={"size": 32},
        writers=(),
    )
    assert [(one.layer, one.channel) for one in run.maximised()] == [("3", 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.slow
def test_a_smaller_batch_on_resuming_makes_each_picture_once(work: Path) -> None:
    asked = ("--maximise", "3:0-9:steps=3", "--maximise", "output:0:steps=3")
    assert main(arguments(work, *asked)) == 0
    run = work / "run"
    made = [(one.layer, one.channel, one.after) for one in open_run(run).maximised()]
    (run / "maximised/00001.parquet").unlink()
    assert main(arguments(work, *asked, "--resume", "--batch-size", "3")) == 0
    again = [(one.layer, one.channel, one.after) for one in open_run(run).maximised()]
    assert [one[:2] for one in again] == [one[:2] for one in made]
    assert [one[2] for one in again] == pytest.approx([one[2] for one in made], rel=1e-4)
    assert check(run) == ()
