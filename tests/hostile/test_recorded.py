"""A run made with absolute arguments holds no path of the machine, and goes on wherever it is."""

from __future__ import annotations

import getpass
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from exporter.cli import main
from exporter.maps.registry import _REGISTERED
from exporter.store import check, open_run

MINE = """
import torch
from torch import nn
import exporter
from exporter.maps import Needs

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def net():
    return Net()

def goal(output):
    return output[:, 0]

def lay(output):
    return output[:, :, :, :]

@exporter.method("mine", shows="x", formula="x", kind="weights", needs=Needs(gradients=True))
def mine(terms):
    return terms.g.mean((2, 3))
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder of a person's, with six photographs and their code."""
    work = tmp_path / "home of somebody" / "secret-project"
    (work / "photos").mkdir(parents=True)
    (work / "mine.py").write_text(MINE)
    (work / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    (work / "names.txt").write_text("one\ntwo\nthree\n")
    noise = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(work / f"photos/{index}.png"), noise.integers(0, 255, (32, 32, 3)))
    (work / "photos/broken.png").write_bytes(b"")
    return work


def arguments(at: str) -> list[str]:
    """Return the flags of a run, whose paths begin with ``at``."""
    return [
        *("--model", f"{at}mine.py:net", "--images", f"{at}photos", "--out", f"{at}out"),
        *("--config", f"{at}run.toml", "--classes", f"{at}names.txt"),
        *("--target", f"{at}mine.py:goal", "--reshape", f"{at}mine.py:lay"),
        *("--map", f"{at}mine.py:mine", "--layer", "conv", "--shard-size", "2"),
    ]


def exporter(*words: str, cwd: Path, code: int = 0) -> None:
    """Run a command as a process of its own does, and expect its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["exporter", *words])
        patch.setitem(_REGISTERED, "mine", None)  # as before afterwards
        del _REGISTERED["mine"]
        for name in [name for name in sys.modules if name.startswith("_exporter_file_mine_")]:
            del sys.modules[name]
        assert main(list(words)) == code


def tells(run: Path, *words: str) -> list[str]:
    """Return the files of a run in which one of the words stands, or is a part of their name."""
    secret = [word.encode() for word in words]
    files = (path for path in run.rglob("*") if path.is_file() and path.name != "recipe.json")
    return [
        str(path)
        for path in files
        if any(word in path.read_bytes() or word in str(path.relative_to(run)).encode()
               for word in secret)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "writers",
    [
        ("html",),
        pytest.param(("tensorboard",), marks=pytest.mark.slow),
        pytest.param(("wandb",), marks=pytest.mark.slow),
    ],
    ids=lambda writers: writers[0],
)
def test_no_absolute_path_is_recorded(work: Path, tmp_path: Path, writers: tuple[str, ...]) -> None:
    flags = [*arguments(f"{work}/"), *(f"--writer={name}" for name in writers)]
    exporter("plan", *flags, cwd=tmp_path)
    assert tells(work / "out", str(work), "secret-project", "home of somebody") == []
    exporter("work", str(work / "out"), "--shards", "0/2", cwd=tmp_path)
    exporter("run", *flags, "--resume", cwd=tmp_path, code=3)
    assert check(work / "out") == ()
    assert not (work / "out/recipe.json").exists()
    assert tells(work / "out", str(work), "secret-project", "home of somebody") == []
    plan = open_run(work / "out").plan
    assert plan.settings["images"] == plan.image_set == "photos"
    assert plan.settings["model"] == plan.model.spec == "mine.py:net"
    assert plan.settings["classes"] == "names.txt"
    assert plan.target == "mine.py:goal"
    assert "--config run.toml --classes names.txt" in plan.command


@pytest.mark.slow
def test_a_run_goes_on_from_another_folder_and_with_relative_paths(
    work: Path, tmp_path: Path
) -> None:
    exporter("plan", *arguments(f"{work}/"), "--writer", "html", cwd=tmp_path)
    exporter("work", str(work / "out"), "--shards", "0/4", cwd=tmp_path)
    moved = shutil.move(tmp_path / "home of somebody", tmp_path / "elsewhere")
    here = Path(moved) / "secret-project"
    exporter("run", *arguments(""), "--writer", "html", "--resume", cwd=here, code=3)
    assert check(here / "out") == ()
    exporter("run", *arguments(f"{here}/"), "--writer", "html", "--resume", cwd=tmp_path, code=3)
    assert getpass.getuser() not in open_run(here / "out").plan.command
