"""A writer that is killed by the system at a chosen moment, and gone on with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from exporter.store import check, create_run, open_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is not of that system")

# The k-th time it opens, renames or removes a file of the run (or, for `size`, on the byte that
# would be too many), the process ends with a signal it cannot catch. It forks, so that the imports
# are paid once.
WRITER = r"""
import os, resource, runpy, signal, sys
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1]]
import conftest as sampling
from exporter.store import create_run

images = sampling.HOSTILE[:6]
plan = sampling.sample_plan(images, shard_size=2)

def write(run):
    with create_run(run, plan, resume=True) as folder:
        sampling.write_shards(folder, images, folder.missing())
        folder.write_kernels(sampling.sample_kernels())
        sampling.finish_run(folder, 1)

def kill_at(run, moment):
    left = [moment]
    def hook(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            if arguments and str(arguments[0]).startswith(run):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for text in sys.argv[3:]:
    kind, moment = text.split(":")
    run = f"{sys.argv[2]}/{kind}-{moment}"
    child = os.fork()
    if child == 0:
        if kind == "event":
            kill_at(run, int(moment))
        else:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(moment), int(moment)))
        write(run)
        os._exit(0)
    print(text, os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""

MOMENTS = range(3, 90, 2)
SIZES = (300, 6000, 20_000, 40_000)


def resume(sampling: ModuleType, run: Path) -> None:
    images = sampling.HOSTILE[:6]
    plan = sampling.sample_plan(images, shard_size=2)
    with create_run(run, plan, resume=True) as folder:
        sampling.write_shards(folder, images, folder.missing())
        folder.write_kernels(sampling.sample_kernels())
        sampling.finish_run(folder, 1)


def contents(run: Path) -> dict[str, bytes]:
    return {
        file.relative_to(run).as_posix(): file.read_bytes()
        for file in run.rglob("*")
        if file.is_file() and not file.name.startswith("run.json")
    }


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_an_undisturbed_one(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    whole = make_run(tmp_path / "whole", images=sampling.HOSTILE[:6], shard_size=2)
    moments = [f"event:{n}" for n in MOMENTS] + [f"size:{n}" for n in SIZES]
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", WRITER, str(root), str(tmp_path), *moments],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    signals = dict(line.split() for line in told if line)
    assert set(signals) == set(moments)
    assert "0" not in signals.values(), f"not killed: {signals}"
    undisturbed = contents(whole)
    stages = set()
    for moment in moments:
        run = tmp_path / moment.replace(":", "-")
        stages.add(_stage(run))
        resume(sampling, run)
        assert contents(run) == undisturbed, moment
        assert check(run) == (), moment
        assert open_run(run).complete
    # The moments must have met what they are for, or this shows nothing.
    assert {"before the plan", "inside a shard", "between summary and shard"} <= stages


def _stage(run: Path) -> str:
    shards, summaries = (
        {file.name for file in (run / name).glob("*.parquet")} for name in ("shards", "summaries")
    )
    if not (run / "plan.json").exists():
        return "before the plan"
    if any((run / "shards").glob(".*.tmp")):
        return "inside a shard"
    if any(name[:5] + ".parquet" not in shards for name in summaries):
        return "between summary and shard"
    return "elsewhere"
