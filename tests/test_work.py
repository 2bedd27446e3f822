"""A run in parts: planned, computed by several processes, finished; and what is refused."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch import nn

import exporter
from exporter.cli import main
from exporter.config import build_config
from exporter.console import duration
from exporter.engines import Recipe
from exporter.errors import ConfigError, RunError
from exporter.store import Run, open_run, reopen_run
from tests.equal import differences

ROOT = Path(__file__).parents[1]
MODEL = """
import os, time
from pathlib import Path
import torch
from torch import nn

class Slow(nn.Module):
    def forward(self, inputs):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return inputs

def small():
    torch.manual_seed(int((Path(__file__).parent / "seed.txt").read_text()))
    return nn.Sequential(
        Slow(), nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with a model file, its settings and 21 photographs."""
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "seed.txt").write_text("0")
    (tmp_path / "run.toml").write_text(
        "shard-size = 3\nbatch-size = 2\nmaps = ['gradcam']\nlayers = ['4']\nwriters = ['html']\n"
        "maximise = ['4:strongest=2:steps=2']\n[preprocessing]\nsize = 32\n"
    )
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(21):
        cv2.imwrite(str(tmp_path / f"photos/{index}.jpg"), noise.integers(0, 255, (40, 48, 3)))
    return tmp_path


def planned(work: Path, out: str = "run") -> Path:
    exporter.plan(
        f"{work / 'small.py'}:small", work / "photos", out=work / out, config=work / "run.toml"
    )
    return work / out


def whole(work: Path) -> Run:
    """Return the run of one process."""
    return exporter.export(
        f"{work / 'small.py'}:small", work / "photos", out=work / "one", config=work / "run.toml"
    )


def worker(run: Path, share: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "exporter", "work", str(run), "--shards", share],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_three_processes_at_once_make_the_run_of_one(work: Path) -> None:
    run = planned(work)
    assert open_run(run).shards == ()
    workers = [worker(run, f"{number}/3") for number in range(3)]
    for process in workers:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    finished = exporter.finish(run)
    assert differences(finished, whole(work)) == []
    assert (run / "html/index.html").exists()
    assert not (run / "recipe.json").exists()
    assert not list(run.rglob(".*"))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_by_the_same_command(work: Path) -> None:
    run = planned(work)
    slow = worker(run, "0/2", SLOW="0.3")
    deadline = time.monotonic() + 240
    while not list((run / "shards").glob("0*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    there = open_run(run).shards
    assert 0 < len(there) < 4
    kept = {shard: (run / f"shards/{shard:05d}.parquet").stat().st_mtime_ns for shard in there}
    exporter.work(run, part=(1, 2))
    with pytest.raises(
        RunError, match=rf"lacks \d of 7 shards \(.*\); go on with exporter work {run}"
    ):
        exporter.finish(run)
    again = worker(run, "0/2")
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert differences(exporter.finish(run), whole(work)) == []
    for shard, written in kept.items():
        assert (run / f"shards/{shard:05d}.parquet").stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_byte_that_rots_before_the_run_is_finished_is_noticed(work: Path) -> None:
    run = planned(work)
    exporter.work(run)
    for name in ("shards/00002.parquet", "summaries/00004-set.parquet"):
        content = bytearray((run / name).read_bytes())
        content[len(content) // 2] ^= 1
        (run / name).write_bytes(content)
    with pytest.raises(RunError, match=r"lacks 2 of 7 shards \(2, 4\)"):
        exporter.finish(run)
    # Resuming the whole run does the same as a worker and finish.
    resumed = exporter.export(
        f"{work / 'small.py'}:small",
        work / "photos",
        out=run,
        config=work / "run.toml",
        resume=True,
    )
    assert differences(resumed, whole(work)) == []


def test_a_model_that_is_not_the_planned_one_is_refused(work: Path) -> None:
    run = planned(work)
    (work / "seed.txt").write_text("1")
    with pytest.raises(RunError, match="are not those of the plan: model's weights was"):
        exporter.work(run)
    assert open_run(run).shards == ()


def test_a_worker_starts_from_the_folder_that_the_plan_was_made_in(
    work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(work)
    exporter.plan("small.py:small", "photos", out="run", config="run.toml", maximise=())
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    exporter.work(work / "run", [0])
    assert open_run(work / "run").shards == (0,)
    assert Path.cwd() == elsewhere


def test_planning_and_finishing_are_alone_and_workers_are_not(work: Path) -> None:
    run = planned(work)
    with reopen_run(run, shared=True), reopen_run(run, shared=True):
        with pytest.raises(RunError, match="another process is writing the run"):
            exporter.finish(run)
        with pytest.raises(RunError, match="another process is writing the run"):
            exporter.plan(
                f"{work / 'small.py'}:small",
                work / "photos",
                out=run,
                config=work / "run.toml",
                resume=True,
            )
    with reopen_run(run, shared=False), pytest.raises(RunError, match="another process"):
        exporter.work(run)


def test_plan_work_and_finish_on_the_command_line(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = str(work / "run")
    model, photos = f"{work / 'small.py'}:small", str(work / "photos")
    asked = ["--model", model, "--images", photos, "--out", run, "--config", str(work / "run.toml")]
    assert main(["plan", *asked, "--maximise", "4:0:steps=2"]) == 0
    assert f"exporter work {run} --shards i/n" in capfd.readouterr().out
    assert main(["plan", *asked]) == 2
    assert main(["work", run, "--shards", "1/2"]) == 0
    capfd.readouterr()
    assert main(["finish", run]) == 2
    said = capfd.readouterr().err.strip()
    assert "\n" not in said
    assert f"go on with exporter work {run}" in said
    for share in ("2/2", "x", "1"):
        assert main(["work", run, "--shards", share]) == 2
    assert main(["check", run]) == 2
    assert f"go on with exporter work {run}" in capfd.readouterr().out.replace("\n", " ")
    assert main(["work", run]) == 0
    said = capfd.readouterr().out
    assert "7 of 7 shards are done" in said
    assert f"then     exporter finish {run}" in said
    assert main(["check", run]) == 2
    assert f"go on with exporter finish {run}" in capfd.readouterr().out.replace("\n", " ")
    assert main(["finish", run]) == 0
    totals = open_run(run).totals
    assert totals is not None
    assert f" in {duration(totals.seconds)}; " in capfd.readouterr().out
    assert main(["check", run]) == 0
    before = sorted(path.name for path in (work / "run").iterdir())
    assert main(["finish", run]) == 0
    assert sorted(path.name for path in (work / "run").iterdir()) == before, "the writers planned"
    assert main(["run", *asked, "--out", str(work / "b"), "--engine", "lokal"]) == 2
    assert "'lokal'; did you mean 'local'?" in capfd.readouterr().err


def test_what_was_handed_over_in_python_stays_in_its_process(work: Path) -> None:
    config = build_config(model="m", images="i", out=work / "run", engine="processes")
    sent: Any = pickle.loads(pickle.dumps(Recipe(config, "exporter run")))
    assert sent == Recipe(config, "exporter run")
    with pytest.raises(ConfigError, match="the model was handed over in Python and the engine"):
        pickle.dumps(Recipe(config, module=nn.Linear(1, 1)))
    with pytest.raises(ConfigError, match="image set was handed over in Python and a worker would"):
        exporter.plan("resnet18", [work / "photos/0.jpg"], out=work / "run", weights="none")  # type: ignore[arg-type]
    assert not (work / "run").exists()


@pytest.mark.slow
def test_the_engine_of_the_documentation_works_from_outside(work: Path) -> None:
    page = (ROOT / "docs" / "add-an-engine.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(\"\"\".*?)```", page, re.DOTALL)
    (group, line) = re.search(r'points\."(.+)"\]\n(.+)\n', page).groups()  # type: ignore[union-attr]
    information = work / "site" / "exporter_processes-1.0.dist-info"
    information.mkdir(parents=True)
    (work / "site" / "exporter_processes.py").write_text(code, encoding="utf-8")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: exporter-p\nVersion: 1\n")
    entries = f"[{group}]\n{line.replace(chr(34), '')}\nempty = exporter_processes:WORKERS\n"
    (information / "entry_points.txt").write_text(entries)
    asked = ["--model", f"{work / 'small.py'}:small", "--images", str(work / "photos")]
    asked += ["--out", str(work / "run"), "--config", str(work / "run.toml")]

    def command(engine: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "exporter", "run", *asked, "--engine", engine],
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(work / "site"), str(ROOT)))},
            capture_output=True,
            text=True,
            check=False,
        )

    done = command("empty")
    assert (done.returncode, "has no function run" in done.stderr) == (2, True), done.stderr
    done = command("processes")
    assert done.returncode == 0, done.stderr
    assert differences(open_run(work / "run"), whole(work)) == []
