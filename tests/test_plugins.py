"""One distribution with one of each door, installed by pip: nothing of the package is edited."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import exporter
from tests.starting import ran

NAME = "exporter_tiny_plugin"
SOURCE = '''
"""A map, a writer, an image source, a faithfulness metric and an engine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import exporter
from exporter.engines import compute_shard
from exporter.faithfulness import metric
from exporter.images import Entry
from exporter.maps import Needs
from exporter.records import Written
from exporter.writers import Writer, WriterOptions


@exporter.method(
    "tinymax", title="Tiny maximum", shows="Where any channel is active.",
    formula="M(x,y) = max_c A_c(x,y)", kind="map", needs=Needs(), channelwise=False,
)
def tinymax(terms):
    return terms.A.amax(1)


class TinyOptions(WriterOptions):
    greeting: str = "hello"


def write(run, folder: Path, options: TinyOptions) -> Written:
    count = sum(1 for _ in run.rows())
    (folder / "count.txt").write_text(f"{options.greeting} {count}\\n")
    return Written("tinytext", "tinytext", "tinytext/count.txt", shown=count, total=count)


WRITER = Writer(write, TinyOptions, expects="count.txt")


class TinyImages:
    """``tiny:N``: N grey pictures."""

    def __init__(self, where: str) -> None:
        self._count = int(where.removeprefix("tiny:"))

    @staticmethod
    def matches(where: object) -> bool:
        return False

    def entries(self) -> Iterator[Entry]:
        for number in range(self._count):
            yield Entry(f"tiny-{number}.png", label="grey")

    def load(self, entry: Entry) -> bytes:
        import cv2

        level = 40 * int(entry.path[5:-4])
        picture = np.full((20, 24, 3), level, np.uint8)
        picture[5:12, 6:14] = 255 - level
        return cv2.imencode(".png", picture)[1].tobytes()


@metric("tinydrop", "Tiny drop, −1 to 1, higher is better")
def tinydrop(ranked) -> float:
    """Return how far the probability falls when the upper half of the ranks goes to 0."""
    gone = ranked.ranks < ranked.ranks.numel() // 2
    variants = torch.stack((ranked.image, ranked.image.masked_fill(gone, 0)))
    whole, rest = ranked.probability(variants)
    return float(whole - rest)


class Counting:
    """Computes the shards one by one in this process, and says so."""

    @staticmethod
    def run(job, missing, store, watch) -> None:
        for shard in missing:
            watch.say(f"tiny engine: shard {shard}")
            store(shard, compute_shard(job, shard))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
'''
ENTRY_POINTS = f"""
[exporter.maps]
tinymax = {NAME}:tinymax
[exporter.writers]
tinytext = {NAME}:WRITER
[exporter.sources]
tiny = {NAME}:TinyImages
[exporter.metrics]
tinydrop = {NAME}:tinydrop
[exporter.engines]
counting = {NAME}:Counting
"""


def build_wheel(folder: Path) -> Path:
    """Write a wheel by hand: building one would fetch a build backend."""
    information = f"{NAME}-1.0.dist-info"
    files = {
        f"{NAME}.py": SOURCE,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{information}/entry_points.txt": ENTRY_POINTS,
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{name},sha256={digest.decode()},{len(text.encode())}\n"
    files[f"{information}/RECORD"] = record + f"{information}/RECORD,,\n"
    wheel = folder / f"{NAME}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distribution is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    target = folder / "site"
    subprocess.run([*install, "--target", str(target), str(build_wheel(folder))], check=True)
    return target


@pytest.mark.slow
def test_an_installed_distribution_adds_one_of_each(site: Path, tmp_path: Path) -> None:
    listed = ran("maps", "--json", at=tmp_path, path=(site,))
    assert "tinymax" in {entry["name"] for entry in json.loads(listed.stdout)}
    out = tmp_path / "run"
    done = ran(
        "run", "--model", f"{NAME}:model", "--images", "tiny:5", "--out", str(out),
        "--map", "tinymax", "--map", "gradcam", "--layer", "1", "--faithfulness",
        "--shard-size", "2", "--engine", "counting", "--writer", "tinytext", "--writer", "html",
        "--writer-option", "tinytext.greeting=counted", at=tmp_path, path=(site,),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [f"tiny engine: shard {n}" in done.stderr for n in range(3)] == [True] * 3
    assert (out / "tinytext" / "count.txt").read_text() == "counted 5\n"
    run = exporter.open_run(out)
    rows = list(run.rows())
    assert [row.path for row in rows] == [f"tiny-{n}.png" for n in range(5)]
    assert all(map_.method in ("tinymax", "gradcam") for row in rows for map_ in row.maps)
    assert run.map(rows[0].id, "tinymax", "1").min() >= 0
    pages = {page.name: page.read_text("utf-8") for page in (out / "html").rglob("*.html")}
    assert "Tiny maximum" in pages["methods.html"]
    assert "Tiny drop" in pages["methods.html"]
    checked = ran("check", str(out), at=tmp_path, path=(site,))
    assert checked.returncode == 0, checked.stdout
    (out / "tinytext" / "count.txt").unlink()
    assert "tinytext" in ran("check", str(out), at=tmp_path, path=(site,)).stdout


@pytest.mark.slow
def test_without_it_there_is_none_of_them(tmp_path: Path) -> None:
    listed = ran("maps", "--json", at=tmp_path)
    assert "tinymax" not in listed.stdout
    refused = ran(
        "run", "--model", "resnet18", "--weights", "none", "--images",
        str(tmp_path), "--out", str(tmp_path / "run"), "--writer", "tinytext", at=tmp_path,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "tinytext" in refused.stderr


@pytest.mark.slow
def test_a_plugin_that_cannot_be_imported_is_named(site: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[exporter.maps]\nlost = not_there:lost\n")
    refused = ran("maps", at=tmp_path, path=(tmp_path, site))
    assert refused.returncode == 2
    assert textwrap.dedent(refused.stderr).count("Traceback") == 0
    assert "broken" in refused.stderr
