"""W&B of a comparison: an offline run, read back from its log and its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.comparison import Comparison, compare
from exporter.render import decode_image
from exporter.writers.wandb.process import WORK
from tests.writers.wandb.test_writer import artifacts, updates

pytestmark = pytest.mark.slow  # W&B takes four seconds


@pytest.fixture(scope="module")
def written(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(*checkpoints, out=tmp_path_factory.mktemp("w&b") / "CMP", writers=("wandb",))


def table(written: Comparison, name: str) -> tuple[list[str], list[list[Any]]]:
    (file,) = (written.path / "wandb").glob(f"offline-run-*/files/media/table/{name}_*.json")
    content = json.loads(file.read_text("utf-8"))
    return content["columns"], content["data"]


def test_the_wide_table_has_a_row_per_image_and_columns_per_run(written: Comparison) -> None:
    columns, rows = table(written, "images")
    images = list(written.images())
    assert columns[:7] == [
        "id",
        "path",
        "label",
        *(f"step 1 {w}" for w in ("prediction", "score", "right", "flip")),
    ]
    assert columns[-4:] == [
        f"step {s} {m} likeness" for s in (3, 5) for m in ("gradcam", "eigencam")
    ]
    assert [row[0] for row in rows] == [image.id for image in images]
    for row, image in zip(rows, images, strict=True):
        told = dict(zip(columns, row, strict=True))
        assert told["step 5 prediction"] == image.verdicts[2].name
        assert told["step 5 flip"] == image.verdicts[2].flip
        change = next(
            c for c in image.maps if (c.run, c.method, c.stage) == (2, "gradcam", "layer4")
        )
        assert told["step 5 gradcam likeness"] == pytest.approx(change.spearman)


def test_flips_and_tables_name_the_runs(written: Comparison) -> None:
    columns, rows = table(written, "flips")
    flipped = [(image.id, v.flip) for image in written.images() for v in image.verdicts if v.flip]
    assert [(row[0], row[columns.index("flip")]) for row in rows] == flipped
    for name in ("classes", "similarity", "layers", "measures"):
        columns, rows = table(written, name)
        assert len(rows) == len(written.records(name))
        place = columns.index("run" if "run" in columns else "first")
        assert {row[place] for row in rows} <= {"step 1", "step 3", "step 5"}


def test_pictures_are_there_and_the_run_is_a_comparison(written: Comparison) -> None:
    folder = written.path / "wandb"
    assert not (folder / WORK).exists()
    _, rows = table(written, "pictures")
    assert len(rows) == 12
    log = next(folder.rglob("*.wandb")).read_bytes()
    assert b"compare" in log
    assert b"step 1 and step 3 and step 5" in log
    staged = [file.read_bytes() for file in (folder / "artifacts").rglob("*") if file.is_file()]
    pictures = [content for content in staged if content.startswith(b"\xff\xd8")]
    assert len(set(pictures)) >= 12 * 3 - 3
    assert decode_image(pictures[0]).shape == (224, 224, 3)
    # A number of the same name would take the place of a table.
    assert not artifacts(folder).keys() & updates(folder, "summary").keys()
