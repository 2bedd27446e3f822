"""Worker processes beside the run's own: who takes which shard, and what happens to one's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
from exporter import planning
from exporter.cli import main
from exporter.config import RunConfig, build_config
from exporter.engines import Recipe, beside
from exporter.engines.beside import Beside, cards_of, processes_of
from exporter.errors import ConfigError
from exporter.launchers import CARDS
from exporter.planning import bind
from exporter.store import open_run
from exporter.watch import Watch
from tests.equal import differences
from tests.small import small

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
SETTINGS: dict[str, Any] = {
    "maps": ("gradcam",), "batch_size": 1, "shard_size": 1, "writers": (),
    "preprocessing": {"size": 32},
}  # fmt: skip
WORKER = """
import os, sys
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    open({taken!r}, "w").close()
    {then}
    print(int(line), flush=True)
"""
MODEL = """
import os, sys, time
from torch import nn
import tests.small

class Slow(nn.Module):
    '''Once the run in RUN is planned, its own process waits until another computes.'''

    def forward(self, inputs):
        run = os.environ.get("RUN")
        if run and os.path.exists(run + "/plan.json"):
            if "work" in sys.argv:
                open(run + ".taken", "w").close()
            until = time.monotonic() + 120
            while not os.path.exists(run + ".taken") and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(float(os.environ.get("SECONDS", 0)))
        if "work" not in sys.argv:
            return inputs
        if os.environ.get("SAYS"):
            with open(os.environ["SAYS"], "a") as said:
                print(os.environ["CUDA_VISIBLE_DEVICES"], file=said)
        elif os.environ.get("DIES") and not os.path.exists(os.environ["DIES"]):
            print("printed by the model")
            open(os.environ["DIES"], "w").close()
            os.kill(os.getpid(), 9)
        return inputs

def build():
    return nn.Sequential(Slow(), tests.small.small())
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Told(Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, steps: int = 1) -> None:
        self.done += steps


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("pass", ""),
        ("if number == 2: os.kill(os.getpid(), 9)", "(status -9)"),
        ("if number == 2: sys.exit('error: no room on the card')", "(no room on the card)"),
        ("if number == 2: print('hello'); sys.exit(3)", "(status 3)"),
    ],
)
def test_every_shard_is_taken_and_what_a_process_leaves_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, said: str
) -> None:
    taken = tmp_path / "taken"
    code = WORKER.format(then=then, taken=str(taken))
    monkeypatch.setattr(beside, "command", lambda _job: [sys.executable, "-c", code])
    threads = torch.get_num_threads()
    config = build_config(model="small", images=str(PHOTOS), out=tmp_path / "run", **SETTINGS)
    told, here = Told(), []
    with bind(Recipe(config, module=small())) as job:
        shards = range(len(job.plan.shards))
        with Beside(job, shards, 2, told) as others:
            for each in others.rounds():
                wait_for(taken.exists)
                here += list(each)
        assert told.done + len(here) == len(shards)
        assert told.done == (2 if said else len(shards) - len(here))
        assert len(set(here)) == len(here)
    assert torch.get_num_threads() == threads
    assert [said in line and "worker process ended early" in line for line in told.lines] == (
        [True] if said else []
    )


def test_a_run_that_is_given_up_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import time; print('ready', flush=True); time.sleep(600)"
    monkeypatch.setattr(beside, "command", lambda _job: [sys.executable, "-c", code])
    config = build_config(model="small", images=str(PHOTOS), out=tmp_path / "run", **SETTINGS)
    told = Told()
    with bind(Recipe(config, module=small())) as job:
        others = Beside(job, range(4), 3, told)
        with pytest.raises(KeyboardInterrupt), others:
            raise KeyboardInterrupt
    assert told.lines == []  # they were told to end
    assert [worker.poll() for worker, _ in others._workers] == [-signal.SIGTERM] * 2


def test_a_run_goes_on_where_no_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "command", lambda _job: [str(tmp_path / "nowhere")])
    config = build_config(model="small", images=str(PHOTOS), out=tmp_path / "run", **SETTINGS)
    noted = Told()
    with bind(Recipe(config, module=small())) as job, Beside(job, range(4), 3, noted) as others:
        assert [list(shards) for shards in others.rounds()] == [[0, 1, 2, 3]]
    assert [line.partition(":")[0] for line in noted.lines] == [
        "no more worker processes could be started"
    ]


def test_how_many_processes_compute(tmp_path: Path) -> None:
    photos = str(PHOTOS)
    with bind(
        Recipe(build_config(model="small", images=photos, out=tmp_path, **SETTINGS), module=small())
    ) as job:
        assert processes_of(job, range(13)) == 1, "a CPU has replicas"
    config = build_config(model="small", images=photos, out=tmp_path, processes=2, **SETTINGS)
    with (
        bind(Recipe(config, module=small())) as job,
        pytest.raises(ConfigError, match="the model was handed over in Python and a worker proc"),
    ):
        processes_of(job, range(13))
    with pytest.raises(ConfigError, match=r"processes.*0"):
        build_config(model="small", images=photos, out=tmp_path, processes=0)


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "models.py").write_text(MODEL)
    return f"{tmp_path / 'models.py'}:build"


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_two_processes_make_the_run_of_one(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RUN", str(tmp_path / "two"))
    if dies:
        monkeypatch.setenv("DIES", str(tmp_path / "dead"))
    told = Told()
    settings = SETTINGS | {"layers": ("1.2",)}
    runs = [
        exporter.export(model, PHOTOS, out=tmp_path / out, watch=told, processes=count, **settings)
        for out, count in (("two", 2), ("one", 1))
    ]
    assert differences(runs[0], runs[1]) == []
    assert any("worker process ended early" in line for line in told.lines) == dies
    assert told.done >= 2 * 13


def test_cards_that_share_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which card each process is shown, on a machine that only says that it has cards."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")

    def config(devices: object, **others: Any) -> RunConfig:
        asked = SETTINGS | others | {"devices": devices}
        return build_config(model="small", images=str(PHOTOS), out=tmp_path / "run", **asked)

    assert cards_of(config(None)) == ()
    with pytest.raises(ConfigError, match="--devices all is for CUDA cards, and this machine sho"):
        cards_of(config("all"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert cards_of(config("all")) == (0, 1, 2)
    assert cards_of(config("2,0")) == cards_of(config([2, 0])) == (2, 0)
    with pytest.raises(ConfigError, match="no card 3 for --devices: this machine shows 3 CUDA"):
        cards_of(config("0,3"))
    for wrong in ("a", "0,,1", "-1"):
        with pytest.raises(
            ConfigError, match=r"devices.*; give all, or numbers of CUDA cards such as 0,2"
        ):
            config(wrong)
    with pytest.raises(ConfigError, match="--devices names CUDA cards and --device is 'cpu'"):
        config("all", device="cpu")
    monkeypatch.setattr(planning, "choose_device", lambda *_, **__: torch.device("cpu"))
    for processes, shown in (("auto", ["7", "4"]), (5, ["7", "4", "7", "4", "7"])):
        with bind(Recipe(config("2,0", processes=processes), module=small())) as job:
            others = Beside(job, range(9), len(shown), Told())
            seen = [others._environment(number)[CARDS] for number in range(len(shown))]
            assert seen == shown
            with pytest.raises(ConfigError, match="handed over in Python"):
                processes_of(job, range(9))


@pytest.mark.slow
def test_a_run_on_two_cards_is_that_of_one(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: the cards are the CPU, and each process is shown its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SAYS", str(tmp_path / "cards"))
    monkeypatch.setenv("RUN", str(tmp_path / "two"))
    alone = exporter.export(model, PHOTOS, out=tmp_path / "one", **SETTINGS, layers=["1.2"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(planning, "choose_device", lambda *_, **__: torch.device("cpu"))
    both = exporter.export(
        model, PHOTOS, out=tmp_path / "two", devices="0,2", **SETTINGS, layers=["1.2"]
    )
    assert differences(alone, both) == []
    assert set((tmp_path / "cards").read_text().split()) == {"2"}


@pytest.mark.slow
def test_ctrl_c_ends_every_process_and_the_run_goes_on(model: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["--model", model, "--images", str(PHOTOS), "--out", str(out), "--map", "gradcam"]
    asked += ["--batch-size", "1", "--shard-size", "1", "--processes", "3", "--writer", "html"]
    running = subprocess.Popen(
        [sys.executable, "-m", "exporter", "run", *asked],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RUN": str(out), "SECONDS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: running.poll() is not None or bool(list(out.glob("shards/*.parquet"))))
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "ended early" not in said
    there = open_run(out).shards
    assert there
    assert main(["run", *asked, "--processes", "1", "--resume"]) == 0
    assert open_run(out).complete


@pytest.mark.slow
def test_numbers_of_shards_are_read_strictly(model: str, tmp_path: Path) -> None:
    run = exporter.plan(model, PHOTOS, out=tmp_path / "run", **SETTINGS).path
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "work", str(run), "--shards", "-"],
        input="0\nx\n1\n", env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "ready\n0\n")
    assert done.stderr.strip().endswith("'x' is not a shard number")
    assert open_run(run).shards == (0,)
