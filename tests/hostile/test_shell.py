"""Output that goes nowhere, paths that cannot be, readers that go away: a sentence, or silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.store import check, open_run
from tests.hostile.workplace import work_in

LONG = "x" * 300
MODEL = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3))
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of six photographs and a model."""
    (tmp_path / "mine.py").write_text(MODEL)
    work_in(tmp_path, monkeypatch, photographs=6)
    monkeypatch.setattr("exporter.console.FIRST", 1e6)  # no progress, however slow
    return tmp_path


SETTINGS = """
run --model mine.py:net --images photos --out out --config run.toml --writer html --map gradcam
--shard-size 2 --batch-size 2
"""
RUN = SETTINGS.split()


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which ``exporter`` is this one, and return what it says."""
    line = command.replace("exporter", f"{sys.executable} -m exporter")
    return subprocess.run(
        ["bash", "-c", line, "bash", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [*RUN, "--out", LONG],
        [*RUN, "--out", f"{LONG}/run"],
        [*RUN, "--out", "/dev/full"],
        [*RUN, "--out", "/dev/full/run"],
        [*RUN, "--out", "/dev/null"],
        [*RUN, "--out", "mine.py"],
        [*RUN, "--out", "mine.py/run"],
        [*RUN, "--out", "/proc/run"],
        [*RUN, "--out", ""],
        [*RUN, "--images", LONG],
        [*RUN, "--images", f"{LONG}/*.png"],
        [*RUN, "--images", "/dev/full"],
        [*RUN, "--images", ""],
        [*RUN, "--model", f"{LONG}.py:net"],
        [*RUN, "--model", "/dev/full:net"],
        [*RUN, "--model", ""],
        [*RUN, "--config", LONG],
        [*RUN, "--config", "/dev/full"],
        [*RUN, "--checkpoint", LONG],
        [*RUN, "--checkpoint", "/dev/full"],
        [*RUN, "--checkpoint", "photos"],
        [*RUN, "--classes", LONG],
        [*RUN, "--classes", "photos"],
        [*RUN, "--target", f"similar:{LONG}"],
        [*RUN, "--map", f"{LONG}.py:f"],
        [*RUN, "--reshape", f"{LONG}.py:f"],
        [*RUN, "--layer", LONG],
        ["render", LONG],
        ["render", "/dev/full"],
        ["check", LONG],
        ["check", "/dev/full"],
        ["work", LONG],
        ["finish", LONG],
        ["demo", "--out", LONG],
        ["demo", "--out", "mine.py"],
        ["layers", f"{LONG}.py:net"],
        ["layers", "mine.py:net", "--checkpoint", LONG],
    ],
    ids=lambda arguments: " ".join(arguments[-2:])[:30],
)
def test_a_path_that_cannot_be_is_a_sentence(
    work: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    before = sorted(work.rglob("*"))
    assert main(arguments) == 2
    said = capfd.readouterr()
    assert said.err.splitlines()[-1].startswith("error: ")
    assert said.err.count("error") == 1
    assert "Traceback" not in said.err
    assert said.out == ""
    assert [path for path in sorted(work.rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.slow
def test_max_size_without_the_file_is_refused(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--max-size", "5MB"]) == 2
    assert "--max-size" in capfd.readouterr().err
    assert main([*RUN, "--single-file", "--max-size", "5MB"]) == 0
    assert main(["render", "out", "--no-single-file"]) == 0
    assert main(["render", "out", "--no-single-file", "--max-size", "4MB"]) == 2


PROGRESS = (
    "images: ", "reading the image set", "loading the model", "trying the model", "computing maps",
    "merging the shards", "verifying what is there", "writing ",
)  # fmt: skip
"""How lines begin that a run prints where it takes a while."""

SILENT = [
    ("exporter maps | head -1", 0),
    ("exporter maps --json | head -c 1", 0),
    ("exporter --help | true", 0),
    ("exporter maps >&-", 0),
    ("exporter maps 2>&-", 0),
    ("exporter maps 2>/dev/full", 0),
    ("exporter maps --json 2>&1 1>&- | cat", 0),
    ("exporter nonsense 2>/dev/full", 2),
    ("exporter check nowhere 2>/dev/full", 2),
    ("exporter check nowhere >&- 2>&-", 2),
]


@pytest.mark.parametrize(
    ("command", "code"),
    [*(pytest.param(*each, marks=pytest.mark.slow) for each in SILENT[:-1]), SILENT[-1]],
)
def test_output_that_nobody_takes_is_no_error_and_no_noise(
    work: Path, command: str, code: int
) -> None:
    ended = shell(f"set -o pipefail; {command}")
    assert ended.returncode == code
    assert ended.stderr == ""


FULL = ["exporter maps", "exporter maps --json", "exporter --help", "exporter --version"]


@pytest.mark.parametrize(
    "command", [*(pytest.param(each, marks=pytest.mark.slow) for each in FULL[:-1]), FULL[-1]]
)
def test_a_full_standard_output_is_a_sentence(work: Path, command: str) -> None:
    ended = shell(f"{command} > /dev/full")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: standard output cannot be ")
    assert "no space left on device" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        (">/dev/full", 2),
        ("2>/dev/full", 0),
        (">&-", 0),
        ("2>&-", 0),
        (">&- 2>&-", 0),
        ("| true", 0),
    ],
)
def test_a_run_whose_output_nobody_takes_is_whole(work: Path, redirected: str, code: int) -> None:
    ended = shell(f'exporter "$@" {redirected}', *RUN)
    assert ended.returncode == code
    said = [line for line in ended.stderr.splitlines() if not line.startswith(PROGRESS)]
    assert len(said) == (code == 2)
    assert open_run(work / "out").complete
    assert check(work / "out") == ()
