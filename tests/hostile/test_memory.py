"""Memory that runs out: the same is tried with less, else it is said truly, and gone on with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from exporter.cli import main
from exporter.errors import ImageError
from exporter.images.decode import decode
from exporter.store import Run, open_run
from tests.hostile.workplace import work_in

SHORTAGES = {
    "device": 'raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")',
    "host": "torch.empty(10**15)",  # PyTorch's own RuntimeError
    "python": "bytearray(10**18)",  # a MemoryError
    "numpy": "import numpy; numpy.empty(10**15, numpy.uint8)",
    "library": 'raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")',
    "system": 'raise OSError(12, "Cannot allocate memory")',
    "wrapped": """
        try:
            bytearray(10**18)
        except MemoryError as error:
            raise torch.OutOfMemoryError("no room") from error""",
}
"""What is raised where there is no memory; four of them by asking for more than there is."""

MODEL = """
import os
import torch
from torch import nn

calls = []

def short():
    {shortage}

def need(x):
    calls.append(1)
    if len(x) > int(os.environ["MOST"]) or len(calls) > int(os.environ["CALLS"]):
        short()
    return x

class Needing(nn.Module):
    def forward(self, x):
        return need(x)

class Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return need(gradient)

class Back(nn.Module):
    def forward(self, x):
        return Backwards.apply(x)

def net():
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 12, 3), nn.ReLU(),
        {part}(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ]
    return nn.Sequential(*parts)
"""

PLACES = {
    "forward": ("Needing", ()),
    "backward": ("Back", ()),
    "faithfulness": ("Needing", ("--faithfulness",)),
    "maximising": (
        "Needing",
        ("--maximise", "0:0-5:steps=2,size=16", "--maximise", "output:1:steps=2"),
    ),
    "reruns": ("Needing", ("--map", "ablationcam:channels=8")),
    "variants": ("Needing", ("--map", "occlusion")),
    "samples": ("Back", ("--map", "smoothgrad:samples=8")),
}
"""Where it is short: the module that needs memory, and the flags that make the model run."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of seven photographs."""
    work_in(tmp_path, monkeypatch, photographs=7)
    for name in [name for name in sys.modules if name.startswith("_exporter_file_mine")]:
        del sys.modules[name]
    monkeypatch.setenv("MOST", "1000000")
    monkeypatch.setenv("CALLS", "1000000")
    return tmp_path


def run(out: str, *more: str) -> int:
    flags = f"run --model mine.py:net --images photos --out {out} --config run.toml --writer html"
    sizes = "--layer 3 --map gradcam --shard-size 4 --batch-size 4"
    return main([*flags.split(), *sizes.split(), *more])


PLAIN: dict[str, Path] = {}
"""By place, the run where memory is not short; what would be raised makes no difference to it."""


def plain(place: str, folders: pytest.TempPathFactory) -> Run:
    if place not in PLAIN:
        PLAIN[place] = folders.mktemp("plain") / "run"
        assert run(str(PLAIN[place]), *PLACES[place][1]) == 0
    return open_run(PLAIN[place])


def write(shortage: str, part: str) -> None:
    shortage = SHORTAGES[shortage].replace("\n        ", "\n    ").lstrip()
    Path("mine.py").write_text(MODEL.format(shortage=shortage, part=part))


def assert_alike(short: Run, plain: Run) -> None:
    """Assert that everything is there, and the same up to the rounding of a batch."""
    for row, expected in zip(short.rows(), plain.rows(), strict=True):
        assert (row.id, row.error) == (expected.id, None)
        assert [(m.method, m.layer, m.target) for m in row.maps] == [
            (m.method, m.layer, m.target) for m in expected.maps
        ]
        for stored, other in zip(row.maps, expected.maps, strict=True):
            span = float(np.ptp(other.array())) + 1e-6
            np.testing.assert_allclose(stored.array(), other.array(), atol=2e-3 * span)
    for got, other in zip(short.image_faithfulness(), plain.image_faithfulness(), strict=True):
        assert got.road == pytest.approx(other.road, abs=1e-4)
        assert got.deletion == pytest.approx(other.deletion, abs=1e-4)
    made = [(p.layer, p.channel) for p in short.maximised()]
    assert made == [(p.layer, p.channel) for p in plain.maximised()]


QUICK = [("forward", "host"), ("backward", "python")]
QUICK += [("maximising", "device"), ("reruns", "library"), ("samples", "wrapped")]
REST = [(p, s) for p in PLACES for s in SHORTAGES if (p, s) not in QUICK]


@pytest.mark.parametrize(
    ("place", "shortage"),
    [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)],
)
def test_what_does_not_fit_is_tried_with_less_and_nothing_is_lost(
    work: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    *,
    place: str,
    shortage: str,
) -> None:
    part, flags = PLACES[place]
    write(shortage, part)
    expected = plain(place, tmp_path_factory)
    assert "memory" not in capfd.readouterr().err
    monkeypatch.setenv("MOST", "2")
    assert run("short", *flags) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "memory ran out, so at most 2 images of a batch were computed at a time" in said
    assert_alike(open_run("short"), expected)


@pytest.mark.parametrize(
    ("place", "shortage"),
    [
        ("forward", "host"),
        ("faithfulness", "python"),
        *(
            pytest.param(place, shortage, marks=pytest.mark.slow)
            for place in ("forward", "backward", "faithfulness", "maximising")
            for shortage in ("device", "system", "numpy")
        ),
    ],
)
def test_what_does_not_fit_alone_is_said_and_gone_on_with(
    work: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    shortage: str,
) -> None:
    part, flags = PLACES[place]
    write(shortage, part)
    assert run("plain", *flags, "--batch-size", "1") == 0
    # Memory is gone after so many calls more: no image is at fault.
    (module,) = [m for name, m in sys.modules.items() if name.startswith("_exporter_file_mine")]
    calls = {"forward": 9, "backward": 4, "faithfulness": 24, "maximising": 20}[place]
    monkeypatch.setenv("CALLS", str(len(module.calls) + calls))
    assert run("short", *flags, "--batch-size", "1") == 2
    said = capfd.readouterr().err
    assert said.count("error:") == 1
    assert "not even one" in said
    assert "--resume" in said
    assert "mine.py" in said
    stored = open_run("short")
    assert not stored.complete
    assert all(row.error is None for row in stored.rows())
    monkeypatch.setenv("CALLS", "1000000")
    assert run("short", *flags, "--batch-size", "1", "--resume") == 0
    assert_alike(open_run("short"), open_run("plain"))


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    return cv2.imencode(f".{kind}", pixels)[1].tobytes()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "tiff"])
def test_a_picture_is_not_damaged_because_memory_is_short(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError

    content = encoded(kind)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)  # what OpenCV gives without memory
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", full)
    with pytest.raises(MemoryError):
        decode(content)
    monkeypatch.undo()
    assert decode(content).shape == (40, 40, 3)
    with pytest.raises(ImageError):
        decode(content[: len(content) // 2])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "3"])
def test_an_image_that_memory_was_short_for_is_read_again(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    write("host", "Needing")
    assert run("plain") == 0
    left = {"failures": 1}
    convert = Image.Image.convert
    Image.new("L", (32, 32), 90).save("photos/3.gif")
    Path("photos/3.png").unlink()

    def converted(self: Image.Image, *given: Any, **named: Any) -> Image.Image:
        if left["failures"]:
            left["failures"] -= 1
            raise MemoryError
        return convert(self, *given, **named)

    monkeypatch.setattr(Image.Image, "convert", converted)
    assert run("once", "--workers", workers) == 0
    assert [row.error for row in open_run("once").rows()] == [None] * 7
    left["failures"] = 10**6
    assert run("never", "--workers", workers) == 2
    said = capfd.readouterr().err
    assert "there is not enough memory to read '3.gif': MemoryError" in said
    assert "--resume" in said
    assert not [row for row in open_run("never").rows() if row.error]
    left["failures"] = 0
    assert run("never", "--workers", workers, "--resume") == 0
    assert [row.error for row in open_run("never").rows()] == [None] * 7
