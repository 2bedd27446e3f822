"""The wrapper and the target function on docs/detectors.md run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.store import Run
from tests.small import small

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "detectors.md"
DETECTOR = """
from tests.targets.test_detectors_page import Dense as build
"""


class Dense(nn.Module):
    """A dense head of two classes on a trunk with a stride of 4: (N, 6, 49) of 32 × 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk, self.head = small()[:4], nn.Conv2d(8, 6, 1)
        with torch.no_grad():
            self.head.weight.mul_(9)
            self.head.weight[5] = -self.head.weight[4]  # where the one class is not, the other is
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        cells = self.head(self.trunk(images)).flatten(2)
        return torch.cat((cells[:, :4].sigmoid() * 32, cells[:, 4:].sigmoid()), 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_detector.py").write_text(DETECTOR, encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "yolo.py").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, factory: str, layer: str, target: str) -> Run:
    return exporter.export(
        f"yolo.py:{factory}",
        ROOT / "examples" / "photos",
        out=folder / factory,
        target=target,
        layers=(layer,),
        maps=("gradcam", "occlusion", "smoothgrad:samples=2"),
        limit=2,
        top_k=49,
        preprocessing={"size": 32},
        writers=(),
    )


def test_the_wrapper_gives_boxes_whose_maps_follow_their_anchors(folder: Path) -> None:
    with_boxes = run(folder, "boxes", "model.trunk", "class:1")
    assert "the output is boxes: the score of a box is explained" in " ".join(with_boxes.plan.notes)
    bare = run(folder, "dense", "trunk", "yolo.py:surest")
    for row, other in zip(with_boxes.rows(), bare.rows(), strict=True):
        # Without another box of that class, the surest of class 1 is the function's.
        sure = [each.score for each in row.predictions if each.index == 1]
        assert sure[0] == pytest.approx(other.predictions[0].score, abs=1e-6)
        ours, theirs = with_boxes.map(row.id, "gradcam"), bare.map(other.id, "gradcam")
        assert ours == pytest.approx(theirs, abs=1e-6 * float(abs(theirs).max()))
        for name in ("occlusion", "smoothgrad"):
            assert with_boxes.map(row.id, name).any()
