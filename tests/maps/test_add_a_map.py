"""A map from outside the package: docs/add-a-map.md's example, as a file and as a plug-in."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from exporter.store import open_run
from tests.starting import ran

ROOT = Path(__file__).parents[2]
MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
"""


def example() -> str:
    """Return the page's first block of Python."""
    page = (ROOT / "docs" / "add-a-map.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    return block[1]


def exporter(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, outside the package."""
    return ran(*arguments, at=folder, path=(folder / "site",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, two photographs and the example's file."""
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"photos/{index}.png"), noise.integers(0, 255, (40, 48, 3)))
    (tmp_path / "maxgrad.py").write_text(example(), encoding="utf-8")
    return tmp_path


def run(folder: Path, *maps: str) -> subprocess.CompletedProcess[str]:
    asked = [word for name in maps for word in ("--map", name)]
    where = ["--model", "small.py:small", "--images", "photos", "--out", "run"]
    return exporter(
        folder, "run", *where, "--config", "run.toml", "--writer", "html", "--layer", "3", *asked
    )


@pytest.mark.slow
def test_a_file_of_ones_own_is_a_map(folder: Path) -> None:
    done = run(folder, "gradcam", "maxgrad.py:maxgrad:power=2")
    assert done.returncode == 0, done.stderr
    opened = open_run(folder / "run")
    record = opened.plan.methods[1]
    assert (record.name, record.title, record.relu) == ("maxgrad", "Max-Grad", True)
    assert record.settings == {"power": "2.0"}
    stored = {one.method for row in opened.rows() for one in row.maps}
    assert stored == {"gradcam", "maxgrad"}
    report = (folder / "run/html/methods.html").read_text(encoding="utf-8")
    assert "Max-Grad" in report
    assert "One position decides the weight of a channel." in report


@pytest.mark.slow
def test_a_plug_in_is_listed_and_runs_by_its_name(folder: Path) -> None:
    site = folder / "site"
    described = site / "maxgrad-1.0.dist-info"
    described.mkdir(parents=True)
    (folder / "maxgrad.py").rename(site / "its_maps.py")
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: maxgrad\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[exporter.maps]\nmaxgrad = its_maps:maxgrad\n")
    listed = exporter(folder, "maps", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "maxgrad" in [method["name"] for method in json.loads(listed.stdout)]
    assert "settings: power=1.0" in exporter(folder, "maps").stdout
    done = run(folder, "Max-Grad")
    assert done.returncode == 0, done.stderr
    assert [method.name for method in open_run(folder / "run").plan.methods] == ["maxgrad"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"maxgrad",', '"Grad-CAM",'), "'Grad-CAM' already means 'gradcam'; choose another name"),
        (
            ("@exporter.method(", "_ = exporter.method("),
            "not a map; decorate the function with @exporter.method",
        ),
        (("power: float = 1.0", "power: float"), "'power' needs a default"),
        (("Needs(gradients=True)", "Needs()"), "needs=Needs(gradients=True)"),
    ],
)
def test_what_is_wrong_is_one_clear_sentence(
    folder: Path, change: tuple[str, str], said: str
) -> None:
    (folder / "maxgrad.py").write_text(example().replace(*change), encoding="utf-8")
    done = run(folder, "maxgrad.py:maxgrad")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
