"""Several processes that share a run: who plans, computes and finishes, and who waits for whom."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import exporter
from exporter.cli import main
from exporter.config import build_config
from exporter.engines import Recipe, adding, ranks
from exporter.errors import ConfigError, RunError
from exporter.launchers import Rank
from exporter.run import join_run, run
from exporter.store import RunFiles, open_run, reopen_run, write_recipe
from exporter.store.stored import StoredFiles
from exporter.watch import Watch
from tests.equal import differences
from tests.stores import emptied

ROOT = Path(__file__).parents[2]
BOTH = ["gradcam", "eigencam"]
MODEL = """
import os, sys
from pathlib import Path
import tests.small
import torch
from torch import nn

class Dies(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        mark = Path(__file__).with_name("dead")
        mine = os.environ.get("RANK", "-") == os.environ.get("DIES")
        if mine and self.calls > 9 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return inputs

def build():
    model = nn.Sequential(Dies(), tests.small.small())
    own = torch.Generator().manual_seed(0)  # threads share the global one
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2, generator=own)
    return model
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and 23 photographs, one of them broken."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "model.py").write_text(MODEL)
    (folder / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(22):
        cv2.imwrite(
            str(folder / f"photos/{index:02d}.jpg"),
            noise.integers(0, 255, (40, 48, 3)).astype("u1"),
        )
    (folder / "photos/30.jpg").write_bytes(b"no photograph")
    (folder / "run.toml").write_text(
        "maps = ['gradcam']\nlayers = ['1.2']\nbatch_size = 2\nshard_size = 3\nwriters = []\n"
        "[preprocessing]\nsize = 32\n"
    )
    return folder


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """Return the run of a single process."""
    images = place / "photos"
    return exporter.export(
        f"{place / 'model.py'}:build", images, out=place / "alone", config=place / "run.toml"
    ).path


def asked(place: Path, out: Path | str) -> list[str]:
    return [
        *("run", "--model", f"{place / 'model.py'}:build", "--images", str(place / "photos")),
        *("--config", str(place / "run.toml"), "--out", str(out)),
    ]


def recipe(place: Path, out: Path | str, **settings: Any) -> Recipe:
    words = asked(place, out)
    return Recipe(
        build_config(place / "run.toml", model=words[2], images=words[4], out=out, **settings)
    )


class Told(Watch):
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []
        self.done = 0

    def begin(self, stage: str, total: int | None = None) -> None:
        self.stages.append(stage)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, steps: int = 1) -> None:
        if self.stages[-1] == "computing maps":
            self.done += steps


def member(number: int, count: int = 3, **said: Any) -> Rank:
    return Rank(number, count, launch="here", **said)


@pytest.mark.slow
def test_three_that_are_started_together_make_the_run_of_one(
    place: Path, alone: Path, tmp_path: Path
) -> None:
    wanted, told = recipe(place, tmp_path / "run"), [Told(), Told(), Told()]
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(join_run, wanted, member(n), watch=told[n]) for n in (1, 2)]
        outcome = run(wanted, rank=member(0), watch=told[0])
        parts = [other.result(60) for other in others]
    assert differences(outcome.run, alone) == []
    assert [watch.done for watch in told] == [23, 8, 6]
    assert [part.path for part in parts] == [outcome.run.path] * 2
    assert [watch.stages[0] for watch in told[1:]] == ["waiting for the plan of rank 0"] * 2
    assert not any(watch.lines[1:] for watch in told)
    # Whoever comes when all is done has nothing to do.
    assert join_run(wanted, member(2)).complete


@pytest.mark.slow
def test_what_the_others_leave_is_computed_by_rank_0(
    place: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "QUIET", 0.3)
    told = Told()
    outcome = run(recipe(place, tmp_path / "run"), rank=member(0), watch=told)
    assert differences(outcome.run, alone) == []
    (said,) = (line for line in told.lines if "no other process" in line)
    assert said.endswith(" s: the 5 that are missing are computed here")


@pytest.fixture(scope="module")
def both(place: Path) -> Path:
    """Return the run of a single process with two methods."""
    return run(recipe(place, place / "both", maps=BOTH)).run.path


@pytest.mark.slow
def test_rank_0_adds_to_the_shards_that_the_others_leave(
    place: Path, alone: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "QUIET", 0.3)
    out, told = tmp_path / "run", Told()
    shutil.copytree(alone, out)
    run(recipe(place, out, maps=BOTH), rank=member(0), add=True, watch=told)
    assert differences(open_run(out), both) == []
    assert any("5 that are missing are computed here" in line for line in told.lines)


@pytest.mark.slow
def test_a_shard_that_is_added_to_meanwhile_is_not_taken_for_what_the_others_lack(
    place: Path, alone: Path, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(alone, out)
    held, first = adding._held, [0]

    def slow(*given: Any) -> Any:
        if first:
            exporter.work(out, [first.pop()])
        return held(*given)

    monkeypatch.setattr(adding, "_held", slow)
    run(recipe(place, out, maps=BOTH), add=True)
    assert differences(open_run(out), both) == []


@pytest.mark.slow
def test_those_that_meet_in_a_store_make_the_run_of_one(
    place: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredFiles, "look", 0.05)
    wanted = recipe(place, emptied("ranks/run"))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(join_run, wanted, member(1, 2))
        outcome = run(wanted, rank=member(0, 2))
        assert other.result(60).path == outcome.run.path
    assert differences(outcome.run, alone) == []


@pytest.mark.slow
def test_one_that_comes_late_joins_in(
    place: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 waits for the shards of one that is slow to start, and for it to leave."""
    wanted = recipe(place, tmp_path / "run")
    here = threading.Event()

    class Waits(Told):
        def advance(self, steps: int = 1) -> None:
            super().advance(steps)
            if self.done == 12:  # its own part
                here.set()

    told = Waits()
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(run, wanted, rank=member(0, 2), watch=told)
        assert here.wait(60)
        join_run(wanted, member(1, 2))
        assert differences(whole.result(60).run, alone) == []
    assert not any("no other process" in line for line in told.lines)


@pytest.mark.slow
def test_rank_0_goes_on_after_a_restart_and_waits_for_those_at_work(
    place: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "QUIET", 0.0)
    out = tmp_path / "run"
    exporter.plan(asked(place, out)[2], place / "photos", out=out, config=place / "run.toml")
    exporter.work(out, [1, 4])
    with pytest.raises(RunError, match="already holds a run"):
        run(recipe(place, out), rank=member(0))
    held, told = reopen_run(out, shared=True), Told()
    threading.Timer(1.0, held.close).start()
    outcome = run(recipe(place, out), rank=member(0, restarted=True), watch=told)
    assert "waiting for the other processes to end" in told.stages
    assert "resuming: 2 of 8 shards are done" in told.lines
    assert differences(outcome.run, alone) == []


def test_waiting_has_an_end(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "PATIENCE", 0.5)
    monkeypatch.setattr(ranks, "HINT", 0.0)
    out, told = tmp_path / "run", Told()
    with pytest.raises(
        RunError, match=r"rank 0 has not planned the run .* exporter plan, and start"
    ):
        join_run(recipe(place, out), member(1), watch=told)
    (hint,) = told.lines
    assert "unset SLURM_ARRAY_TASK_ID" in hint
    exporter.plan(asked(place, out)[2], place / "photos", out=out, config=place / "run.toml")
    with reopen_run(out, shared=True), pytest.raises(RunError, match="another process is writing"):
        run(recipe(place, out), rank=member(0), resume=True)


@pytest.mark.slow
def test_the_plan_of_an_earlier_launch_is_not_taken(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    exporter.plan(asked(place, out)[2], place / "photos", out=out, config=place / "run.toml")
    folder = RunFiles(out)

    def awaited(launch: str, overwrite: bool) -> bool | None:
        return ranks.is_planned(folder, launch, complete=not overwrite)

    write_recipe(folder, recipe(place, out).document(), "earlier")
    assert awaited("here", False) is None
    assert awaited("earlier", True) is True
    exporter.work(out)
    exporter.finish(out)
    assert awaited("here", False) is False
    assert awaited("here", True) is None
    assert awaited("earlier", True) is False  # it came after the end of its own launch


def test_one_with_other_settings_is_refused(place: Path, tmp_path: Path) -> None:
    wanted = recipe(place, tmp_path / "run")
    exporter.plan(
        asked(place, wanted.config.out)[2],
        place / "photos",
        out=wanted.config.out,
        config=place / "run.toml",
    )
    write_recipe(RunFiles(wanted.config.out), wanted.document(), "here")
    with pytest.raises(RunError, match=r"maps was .*gradcam.* and is now .*layercam"):
        join_run(recipe(place, wanted.config.out, maps=["layercam"]), member(1))
    with pytest.raises(ConfigError, match="the engine 'ray' starts processes itself, and 3 were"):
        run(recipe(place, tmp_path / "other", engine="ray"), rank=member(0))


@pytest.mark.slow
def test_a_command_reads_its_rank_from_the_environment(
    place: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    exporter.plan(asked(place, out)[2], place / "photos", out=out, config=place / "run.toml")
    for name, value in (("JOB_ID", "5"), ("STEP_ID", "0"), ("PROCID", "1"), ("NTASKS", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert main(["work", str(out)]) == 0
    assert open_run(out).shards == (1, 3, 5, 7)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(["work", str(out)]) == 0
    assert open_run(out).shards == (0, 1, 3, 4, 5, 7)
    assert main(["work", str(out), "--shards", "0/1"]) == 0
    exporter.finish(out)
    assert differences(out, alone) == []
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    capsys.readouterr()
    assert main(asked(place, out)) == 0
    assert capsys.readouterr().out == "✓ process 1 of 2: 8 of 8 shards are done\n"


def torchrun(
    place: Path, out: Path, *options: str, host: Sequence[str] = (), **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *host, sys.executable, "-m", "torch.distributed.run", *options,
            "-m", "exporter", *asked(place, out),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ended(*launched: subprocess.Popen[str]) -> list[str]:
    """Wait for launchers, and end what they have started where they don't end."""
    said = []
    for each in launched:
        try:
            said.append(each.communicate(timeout=300)[0])
        finally:
            if each.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(each.pid, signal.SIGKILL)
    return said


@pytest.mark.slow
def test_torchrun_restarts_a_rank_that_is_killed(place: Path, alone: Path, tmp_path: Path) -> None:
    (place / "dead").unlink(missing_ok=True)
    launched = torchrun(
        place,
        tmp_path / "run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        DIES="1",
    )
    (said,) = ended(launched)
    assert (place / "dead").exists(), said
    assert "resuming: " in said
    # One image cannot be read, which a launcher takes for a failure as any other code but 0.
    assert "skipped 30.jpg" in said.replace("photos/", "")
    assert differences(tmp_path / "run", alone) == []


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """Give two hosts with addresses of their own and a wire between them, as far as is allowed."""
    names = [f"exporter{os.getpid()}{side}" for side in "ab"]
    ends = [f"ex{os.getpid() % 10**6}{side}" for side in "ab"]
    ip = [
        ["link", "add", ends[0], "type", "veth", "peer", "name", ends[1]],
        *(["netns", "add", name] for name in names),
    ]
    for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
        ip += [
            ["link", "set", end, "netns", name],
            ["-n", name, "addr", "add", f"10.213.7.{number}/24", "dev", end],
            ["-n", name, "link", "set", end, "up"],
            ["-n", name, "link", "set", "lo", "up"],
        ]
    try:
        for command in ip:
            done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield [
            ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c",
             f'hostname host-{side} && exec "$0" "$@"']
            for name, side in zip(names, "ab", strict=True)
        ]  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no ip command here")
    finally:
        for name in names:
            with suppress(FileNotFoundError):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_hosts_that_share_a_folder_make_the_run_of_one(
    place: Path, alone: Path, tmp_path: Path, hosts: list[list[str]]
) -> None:
    (place / "dead").unlink(missing_ok=True)
    options = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "10.213.7.1")
    launched = [
        torchrun(place, tmp_path / "run", *options, "--node-rank", str(number), host=host)
        for number, host in enumerate(hosts)
    ]
    said = ended(*launched)
    assert "process 1 of 2" in said[1]
    assert "no other process" not in said[0]
    assert differences(tmp_path / "run", alone) == []
