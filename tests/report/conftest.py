"""The report as a person opens it: from a file, at a path with spaces and other letters."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from exporter import export
from exporter.config import WriterConfig
from exporter.demo import photographs
from exporter.records import Faithfulness
from exporter.store import Run, open_run, records_table, schema_of
from exporter.writers import write
from exporter.writers.writing import writer_options
from tests.small import small

pytest.register_assert_rewrite("tests.report.controls", "tests.report.desk")

PLACE = "with spaces & ünï 报告 #1"


def write_report(run: Path, **settings: Any) -> Path:
    """Write the report of a run as ``exporter render`` does and return its folder."""
    opened = open_run(run)
    config = WriterConfig(tensorboard_url="http://localhost:6006", **settings)
    write(opened, "html", writer_options(opened, config)["html"])
    return run / "html"


@pytest.fixture(scope="session")
def writing() -> Callable[..., Path]:
    """``write_report``."""
    return write_report


@pytest.fixture(scope="session")
def run_folder(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report") / PLACE / "run"
    shutil.copytree(sample_run, place)
    return place


@pytest.fixture(scope="session")
def report(run_folder: Path) -> Path:
    """The report, with the single file beside it."""
    return write_report(run_folder, single_file=True)


@pytest.fixture(scope="session")
def other_runs(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Runs that have what the sample lacks, with their reports.

    ``wide`` explains two classes per image and has a layer of more channels than a page shows;
    ``partial`` was interrupted, so that what only the whole set shows is not there yet; ``mixed``
    has more images than fit a window, long names of layers, perturbation methods, and methods that
    are at no layer; ``boxes`` is of a detector, ``regions`` of a segmentation; of ``measured`` one
    knows how faithful the maps are, and whether they point into given boxes.
    """
    place = tmp_path_factory.mktemp("others") / PLACE
    wide = {"target": "top-2", "channels": {"layer4": 300}, "methods": ("gradcam", "layercam")}
    sampled = [
        sampling.SampleImage(f"set/photograph {n:03d}.jpg", sampling.CLASSES[n % 8])
        for n in range(100)
    ]
    mixed = {
        "images": sampled,
        "methods": ("gradcam", "scorecam", "saliency", "occlusion", "rollout"),
        "layers": {
            f"backbone.features.denseblock{n}.denselayer{7 * n}": 28 // n for n in (1, 2, 4)
        },
        "combined": ("attention", "fused"),
    }
    boxed = sampling.SampleImage(
        "street.jpg",
        sampling.CLASSES[0],
        boxes=((60.0, 20.0, 200.0, 140.0),),
        predicted_boxes=((70.0, 30.0, 210.0, 150.0), (80.0, 100.0, 180.0, 260.0)),
    )
    cells = np.zeros((4, 7), np.bool_)
    cells[1:3, 2:6] = True
    segmented = sampling.SampleImage("field.jpg", sampling.CLASSES[1], region=cells)
    found = {
        "boxes": make_run(place / "boxes" / "run", images=[boxed]),
        "regions": make_run(place / "regions" / "run", images=[segmented]),
        "mixed": make_run(place / "mixed" / "run", **mixed),
        "wide": make_run(place / "wide" / "run", **wide),
        "partial": make_run(place / "partial" / "run", shards=2),
    }
    (found["partial"] / "tensorboard").mkdir()
    squares = [(10.0 + 90 * (n % 3), 10.0, 100.0 + 90 * (n % 3), 290.0) for n in range(9)]
    annotated = [
        sampling.SampleImage(f"{n}.jpg", sampling.CLASSES[n % 8], boxes=(box,))
        for n, box in enumerate(squares)
    ]
    measured = make_run(place / "measured" / "run", images=annotated, shard_size=16)
    ids = [entry.id for entry in open_run(measured).plan.images]
    values = [0.1 + 0.7 * (n * 4 % 9) / 9 for n in range(9)]
    faithful = [
        Faithfulness(id, "gradcam", "layer4", None, value, None)
        for id, value in zip(ids, values, strict=True)
    ]
    table = records_table(faithful, schema_of(Faithfulness))
    pq.write_table(table, measured / "summaries/00000-faithfulness.parquet")
    found["measured"] = measured
    found["live"] = place / "live" / "run"
    out, names = found["live"], place / "classes.txt"
    names.write_text("tabby\ntiger cat\ntiger\nteapot\n")
    settings = {"maps": ["gradcam"], "limit": 3, "keep": 2, "writers": (), "classes": names}
    export(small(), photographs(), out=out, **settings)
    for run in found.values():
        write_report(run, **({"keep": 2} if run == out else {}))
    return found


@pytest.fixture(scope="session")
def run(run_folder: Path) -> Run:
    return open_run(run_folder)


@pytest.fixture(scope="session")
def pages(report: Path) -> tuple[Path, ...]:
    """Every page of the report, and the single file."""
    return tuple(sorted(report.rglob("*.html")))
