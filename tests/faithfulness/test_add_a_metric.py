"""A metric from outside the package: docs/add-a-metric.md's example, installed as a plug-in."""

from __future__ import annotations

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


def install(folder: Path, code: str, name: str = "sufficiency") -> None:
    """Lay out an installed distribution with one metric."""
    described = folder / "site" / "sufficiency-1.0.dist-info"
    described.mkdir(parents=True)
    (folder / "site" / "exporter_sufficiency.py").write_text(code, encoding="utf-8")
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: sufficiency\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        f"[exporter.metrics]\nsufficiency = exporter_sufficiency:{name}\n"
    )


def example() -> str:
    """Return the page's block of Python."""
    page = (ROOT / "docs" / "add-a-metric.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    return block[1]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, outside the package."""
    (folder / "small.py").write_text(MODEL)
    (folder / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    (folder / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(str(folder / f"photos/{index}.png"), noise.integers(0, 255, (40, 48, 3)))
    command = "run --model small.py:small --images photos --out run --config run.toml"
    rest = "--writer html --layer 3 --map gradcam --map eigencam --faithfulness"
    return ran(*command.split(), *rest.split(), at=folder, path=(folder / "site",))


@pytest.mark.slow
def test_the_example_is_measured_stored_averaged_and_shown(tmp_path: Path) -> None:
    install(tmp_path, example())
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    opened = open_run(tmp_path / "run")
    images = list(opened.image_faithfulness())
    assert [row.others[0].name for row in images] == ["sufficiency"] * 6
    for row in opened.faithfulness():
        values = [one.others[0].value for one in images if one.method == row.method]
        known = [value for value in values if value is not None]
        assert known
        assert row.others[0].value == pytest.approx(np.mean(known), abs=1e-9)
        assert "top 10 % of the pixels keep" in row.others[0].about
    assert opened.plan.execution["metrics"] == "deletion, insertion, road, sufficiency"
    page = (tmp_path / "run/html/methods.html").read_text(encoding="utf-8")
    assert 'data-metric="sufficiency">Share of the probability that the top 10 %' in page
    value = opened.faithfulness()[0].others[0].value
    assert f"<td>{value:.3f}</td>" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        (example(), "RankedImage", "docs/add-a-metric.md says what is needed"),
        (
            example().replace('"sufficiency"', '"road"'),
            "sufficiency",
            "metric called 'road' already",
        ),
        (
            example().replace("alone / whole", "alone / nothing"),
            "sufficiency",
            "the metric 'sufficiency' failed on '",
        ),
    ],
)
def test_what_is_wrong_is_one_clear_sentence(
    tmp_path: Path, code: str, name: str, said: str
) -> None:
    install(tmp_path, code, name)
    done = run(tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
