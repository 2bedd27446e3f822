"""A run killed at any moment, then resumed, equals one that was left alone."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import exporter
from exporter.config import build_config
from exporter.engines import Recipe
from exporter.store import open_run, write_recipe
from exporter.store.stored import run_files
from tests.equal import contents, differences
from tests.stores import VARIABLES, s3

pytestmark = pytest.mark.slow

MOMENTS = 22
MODEL = """
import torch
from torch import nn

def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
"""

EVENTS = {"rank 0": 40, "rank 1": 20, "worker": 45}
"""By engine, about how many events there are until its part is computed."""

REQUESTS = {"alone": (90, 5), "worker": (30, 5), "rank 0": (60, 5), "rank 1": (12, 5)}
"""Likewise of a run in a store, and how often each is killed: 20 times in all."""

AWS = (*VARIABLES, "AWS_ENDPOINT_URL")

KILLS = 20
"""How often each engine is killed, beside this."""

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, photographs and ``settings.json``."""
    work = tmp_path_factory.mktemp("survival")
    (work / "small.py").write_text(MODEL)
    (work / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(11):
        cv2.imwrite(str(work / f"photos/{index}.jpg"), noise.integers(0, 255, (40, 40, 3)))
    (work / "photos/broken.jpg").write_bytes(b"not a photograph")
    settings = {
        "model": f"{work / 'small.py'}:small",
        "images": str(work / "photos"),
        "maps": ["gradcam", "eigencam"],
        "layers": ["1", "3"],
        "shard_size": 4,
        "batch_size": 2,
        "keep": 3,
        "preprocessing": {"size": 32},
        "maximise": ["3:strongest=6:steps=3", "output:0-3:steps=2"],
    }
    (work / "settings.json").write_text(json.dumps(settings))
    return work


@pytest.fixture(scope="module")
def ask(work: Path) -> Iterator[Ask]:
    """Ask for one run, killed at an event or not; the answer names its events."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed.py")), str(work / "settings.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def answer(out: Path | str, at: int | None, resume: bool, engine: str = "") -> dict[str, Any]:
        asked = {"out": str(out), "at": at, "resume": resume, "as": engine}
        asked["environment"] = {name: os.environ[name] for name in AWS if name in os.environ}
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()
        assert select.select([stdout], [], [], 120)[0], "the run does not end"
        return dict(json.loads(stdout.readline()))

    yield answer
    stdin.close()
    process.wait(30)


@pytest.fixture(scope="module")
def undisturbed(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a run that was left alone and the file-system events it is made of."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    answer = ask(out, None, False)
    assert answer["status"] == 0
    return out, answer["events"]


def moments(events: list[str]) -> list[int]:
    """Choose the events to be killed at: one of each kind that matters, the rest by a seed."""
    wanted = (
        "/shards/.00001.",
        "/summaries/.00001.",
        "/summaries/.00001-set.",
        "/summaries/.00001-images.",
        "/set/.confusion.",
        "/set/.summary.json.",
        "/checksums/.shards-00001.sha256.",
        "/maximised/.00001.",
        "/.recipe.json.",
        "/.run.json.",
        "/kernels",
        "tensorboard",
        "wandb",
        "html",
    )
    chosen = {next(i for i, event in enumerate(events) if text in event) for text in wanted}
    # Right after the summary's rename nothing of its shard exists yet.
    chosen.add(
        1
        + max(
            i for i, event in enumerate(events) if event.startswith("os.rename /summaries/.00001")
        )
    )
    rest = [index for index in range(len(events)) if index not in chosen]
    return sorted(chosen | set(random.Random(0).sample(rest, MOMENTS - len(chosen))))


@pytest.mark.parametrize("number", range(MOMENTS))
def test_killed_and_resumed_equals_undisturbed(
    ask: Ask, undisturbed: tuple[Path, list[str]], tmp_path: Path, number: int
) -> None:
    whole, events = undisturbed
    moment = moments(events)[number]
    out = tmp_path / "run"
    killed = ask(out, moment, False)
    assert os.WIFSIGNALED(killed["status"]), f"it was not killed at {events[moment]!r}"
    assert os.WTERMSIG(killed["status"]) == signal.SIGKILL
    resumed = ask(out, None, True)
    assert resumed["status"] == 0, f"not resumed after {events[moment]!r}"
    assert contents(out) == contents(whole)
    from exporter.store import check

    assert check(out) == ()
    assert [row.error for row in open_run(out).rows()] == [
        row.error for row in open_run(whole).rows()
    ]
    left = list(out.rglob(".*.tmp"))
    assert left == []


@pytest.fixture(scope="module")
def alone(ask: Ask, work: Path) -> Path:
    """Return the run of one process, without pictures and writers."""
    assert ask(work / "alone", None, False, "alone")["status"] == 0
    return work / "alone"


@pytest.fixture(scope="module")
def planned(work: Path) -> Path:
    """Return the same run planned, for those that were started together."""
    plan_at(work / "planned", work)
    return work / "planned"


def plan_at(out: Path | str, work: Path) -> None:
    settings = json.loads((work / "settings.json").read_text()) | {"maximise": (), "writers": ()}
    document = Recipe(build_config(None, settings, out=out)).document()
    exporter.plan(settings.pop("model"), settings.pop("images"), out=out, **settings)
    write_recipe(run_files(out), document, "here")


@pytest.mark.parametrize("engine", EVENTS)
def test_whichever_process_is_killed_again_and_again_the_run_is_that_of_one(
    ask: Ask, alone: Path, planned: Path, tmp_path: Path, engine: str
) -> None:
    """Each goes on from what the one before has left, until one is not killed."""
    draw, kills, runs = random.Random(engine), 0, 0
    while kills < KILLS:
        out = tmp_path / f"run{runs}"
        runs += 1
        shutil.copytree(planned, out)
        killed = True
        while killed and kills < KILLS:
            status = ask(out, draw.randrange(1, EVENTS[engine]), True, engine)["status"]
            killed = os.WIFSIGNALED(status)
            kills += killed
        assert ask(out, None, True, "rank 0")["status"] == 0
        assert differences(out, alone) == []
        assert list(out.rglob(".*.tmp")) == []


@pytest.mark.parametrize("engine", REQUESTS)
def test_whoever_is_killed_between_requests_the_run_in_the_store_is_that_of_one(
    ask: Ask, alone: Path, work: Path, tmp_path: Path, engine: str
) -> None:
    draw, kills, runs = random.Random(engine), 0, 0
    until, wanted = REQUESTS[engine]
    with s3(tmp_path):
        while kills < wanted:
            out = f"s3://bucket/run{runs}"
            runs += 1
            if engine != "alone":
                plan_at(out, work)
            killed = True
            while killed and kills < wanted:
                status = ask(out, draw.randrange(1, until), True, engine)["status"]
                killed = os.WIFSIGNALED(status)
                kills += killed
            last = ask(out, None, True, "alone" if engine == "alone" else "rank 0")
            assert last["status"] == 0
            assert differences(open_run(out), alone) == []
