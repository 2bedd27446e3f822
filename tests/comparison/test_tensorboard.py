"""TensorBoard of a comparison, read back with its own loader."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from exporter.comparison import Comparison, compare
from exporter.comparison.tensorboard import IMAGES, choose
from exporter.render import COLORMAPS, decode_image
from exporter.store import open_run
from exporter.writers.tensorboard.serving import serve
from tests.writers.tensorboard.test_serving import opened, waited

Log = dict[str, dict[str, dict[int, Any]]]


def read(folder: Path) -> Log:
    """Return what was written by run, tag and step."""
    found: Log = defaultdict(lambda: defaultdict(dict))
    for file in folder.rglob("*tfevents*"):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                found[file.parent.name][value.tag][event.step] = value.tensor
    return found


class Alive(SimpleNamespace):
    """What can be referred to weakly."""


def test_images_are_chosen_with_few_of_them_in_memory() -> None:
    alive, most = 0, 0

    def ended() -> None:
        nonlocal alive
        alive -= 1

    def rows() -> Iterator[Any]:
        nonlocal alive, most
        for n in range(1000):
            flips = [SimpleNamespace(flip="lost" if n % 40 == 39 else "")]
            likeness = None if n % 7 == 0 else n * 389 % 1000 / 1000
            row = Alive(id=n, verdicts=flips, likeness=likeness)
            weakref.finalize(row, ended)
            alive += 1
            most = max(most, alive)
            yield row
            del row

    chosen = [row.id for row in choose(SimpleNamespace(images=rows))]
    flipped = range(39, 1000, 40)[: IMAGES // 2]
    moved = sorted((n * 389 % 1000, n) for n in range(1000) if n % 7 and n not in flipped)
    assert chosen == sorted([*flipped, *(n for _, n in moved[: IMAGES // 2])])
    assert most <= 2 * IMAGES


@pytest.fixture(scope="module")
def log(comparison: Comparison) -> Log:
    return read(comparison.path / "tensorboard")


def numbers(log: Log, tag: str) -> dict[int, float]:
    tensors = log["resnet18"][f"set/{tag}"]
    return {step: float(np.frombuffer(t.tensor_content or b"", "<f4")[0]) if t.tensor_content
            else t.float_val[0] for step, t in tensors.items()}  # fmt: skip


def test_checkpoints_are_the_steps_of_one_run(log: Log, comparison: Comparison) -> None:
    assert set(log) == {"resnet18", "contact sheets"}
    told = comparison.contents
    steps = [run.step for run in told.runs]
    accuracy = dict(zip(steps, [run.accuracy for run in told.runs], strict=True))
    assert numbers(log, "accuracy") == pytest.approx(accuracy)
    won = {steps[row.run]: row.won for row in told.contrasts}
    assert numbers(log, "wrong to right") == won
    likeness = {
        steps[row.second]: row.spearman
        for row in comparison.records("similarity")
        if (row.first, row.method, row.stage) == (0, "gradcam", "layer4")
    }
    assert numbers(log, "likeness/gradcam at layer4") == pytest.approx(likeness)
    assert {"_hparams_/session_start_info", "_hparams_/experiment"} <= set(log["resnet18"])


def test_every_method_and_stage_has_pages_of_rows_and_columns(log: Log) -> None:
    methods, stages = ("gradcam", "eigencam"), ("layer3", "layer4")
    assert set(log["contact sheets"]) == {
        f"{m}/{s} {page:02d}" for m in methods for s in stages for page in (1, 2)
    }
    tensor = log["contact sheets"]["gradcam/layer4 01"][0]
    width, height, content = tensor.string_val
    assert decode_image(content).shape == (int(height), int(width), 3)


def test_a_difference_is_the_later_map_less_the_baselines(
    log: Log, comparison: Comparison, checkpoints: list[Path]
) -> None:
    row = next(comparison.images())
    name = row.path.replace("<", "").replace(">", "")
    tag = next(t for t in log["resnet18"] if t.startswith("difference gradcam/") and "00" in t)
    assert name.split()[-1] in tag
    drawn = log["resnet18"][tag]
    assert set(drawn) == {3, 5}
    pictures = [decode_image(content).astype(int) for content in drawn[5].string_val[2:]]
    assert len(pictures) == 3
    maps = []
    for run in (checkpoints[0], checkpoints[1]):
        positive = np.maximum(open_run(run).map(row.id, "gradcam", "layer4"), 0)
        low = positive.min()
        maps.append((positive - low) / (positive.max() - low))
    # The middle of each cell, where nothing is interpolated, is the table's colour.
    side = pictures[2].shape[0] // 7
    seen = pictures[2][side // 2 :: side, side // 2 :: side]
    levels = np.rint(127.5 * (1 + maps[1] - maps[0])).astype(np.uint8)
    assert np.abs(seen - COLORMAPS["diverging"][levels]).mean() < 4


@pytest.mark.slow
def test_models_are_neighbouring_runs(build: Any, tmp_path: Path) -> None:
    runs = [build(tmp_path / name, step=n, model=name) for n, name in enumerate(("vgg", "resnet"))]
    folder = compare(*runs, out=tmp_path / "CMP", writers=("tensorboard",)).path
    assert set(read(folder / "tensorboard")) == {"vgg", "resnet", "contact sheets"}
    assert not (folder / "html").exists()


@pytest.mark.slow
@pytest.mark.browser
def test_every_link_to_the_log_of_a_comparison_shows_its_pictures(
    comparison: Comparison, log: Log, chromium: Any
) -> None:
    with serve([comparison.path], port=0) as views, chromium.new_page() as page:
        told = dict(views)
        for run, tags in log.items():
            drawn = [tag for tag in tags if run != "resnet18" or tag.startswith("difference ")]
            waited(told["everything"], run, drawn, "images")
        sheets = opened(page, told["rows of images, columns of runs"])
        assert ("contact sheets", "gradcam/layer4 01") in sheets
        assert {run for run, _ in sheets} == {"contact sheets"}
        moved = opened(page, told["how each map has changed"])
        assert {run for run, _ in moved} == {"resnet18"}
        assert all(tag.startswith("difference ") for _, tag in moved)
        assert "every image, all its maps" not in told
        page.goto("about:blank")
        page.goto(told["settings and these numbers"])
        page.get_by_text("resnet18").first.wait_for(timeout=60_000)
