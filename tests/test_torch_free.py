"""Right of the store nothing needs torch: reports are rebuilt where it cannot be imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FORBID = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm"):
            raise ImportError(f"{name} is forbidden here")

sys.meta_path.insert(0, Forbidden())
"""


def without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FORBID + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_forbidding_works() -> None:
    assert "torch is forbidden here" in without_torch("import torch").stderr


@pytest.mark.slow
def test_everything_is_written_again_without_torch(sample_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sample_run, run)
    for writer in ("tensorboard", "wandb", "html"):
        shutil.rmtree(run / writer, ignore_errors=True)
    code = "from exporter.cli import main; sys.exit(main(sys.argv[1:]))"
    done = without_torch(code, "render", str(run))
    assert done.returncode == 0, done.stderr
    assert (run / "html/index.html").exists()
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    assert list((run / "wandb").rglob("*.wandb"))


def test_a_run_is_opened_without_torch(sample_run: Path) -> None:
    code = """
import exporter
run = exporter.open_run(sys.argv[1])
row = next(row for row in run.rows() if row.maps)
stored = row.maps[0]
print(run.map(row.id, stored.method, stored.layer).shape == (stored.height, stored.width))
print(run.overlay(row.path, stored.method).size, len(run.table()))
print(run._repr_html_().count("data:image/jpeg"))
"""
    done = without_torch(code, str(sample_run))
    assert done.stdout.split("\n")[:3] == ["True", "(224, 224) 20", "6"], done.stderr
