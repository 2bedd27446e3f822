"""W&B of a comparison: an offline run, read back from its log and its tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.comparison import Comparison, check, compare
from exporter.render import decode_image
from exporter.writers.wandb import process
from exporter.writers.wandb.process import WORK
from tests.writers.wandb.server import KEY, QUICKLY, serving
from tests.writers.wandb.test_artifacts import Shelf, node_of
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


class Logged(Shelf):
    """A server that has W&B runs, and the artifacts that each has logged, with their types."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, list[tuple[str, str]]] = {}

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "Run" and given["name"] not in {*self.logged, *self.sent}:
            return {"project": {"run": None}}
        if operation == "RunOutputArtifacts":
            nodes = [node_of(*logged) for logged in self.logged[given["run"]]]
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            edges = [{"node": node} for node in nodes]
            found = {"totalCount": len(nodes), "pageInfo": page, "edges": edges}
            return {"project": {"run": {"artifacts": found}}}
        return super().answer(operation, given)

    @property
    def sent(self) -> set[str]:
        return {given["name"] for told, given in self.operations if told == "UpsertBucket"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    """The server, and a key for it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(process, "PATIENCE", QUICKLY)
    with serving(Logged) as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        yield server


def test_a_sync_notes_what_the_compared_runs_have_logged(
    checkpoints: list[Path], server: Logged, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = [shutil.copytree(path, tmp_path / path.name) for path in checkpoints]
    for run in runs:
        (run / "wandb" / f"offline-run-20260101_000000-wandb-{run.name}").mkdir(parents=True)
    comparison = compare(*runs, out=tmp_path / "CMP", writers=("wandb", "html"))
    assert not list(check(comparison))
    # One run has logged its folder, the other its tables, and one was not sent.
    tables = [("run-wandb-c-images:v0", "run_table"), ("run-wandb-c-flips:v1", "run_table")]
    server.logged = {
        "wandb-a": [("run-wandb-a-images:v0", "run_table"), ("run-folder-net:v4", "run-folder")],
        "wandb-c": [("exporter-photographs:v0", "photographs"), *tables],
    }
    assert main(["sync", str(comparison.path)]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "the run has arrived, but not what it was made from" in said
    assert "wandb-b" in said

    server.logged["wandb-b"] = [("run-folder-net:v5", "run-folder")]
    server.operations.clear()
    assert main(["sync", str(comparison.path)]) == 0, capfd.readouterr().err
    (own,) = server.sent
    assert server.used == [
        (own, f"Artifact:{name}")
        for name in ("run-folder-net:v4", *(name for name, _ in tables), "run-folder-net:v5")
    ]


def test_a_comparison_that_lost_a_file_or_is_anonymous_is_not_sent(
    checkpoints: list[Path], server: Logged, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    comparison = compare(*checkpoints, out=tmp_path / "CMP", writers=("wandb",))
    next(file for file in (tmp_path / "CMP/wandb/artifacts").rglob("*") if file.is_file()).unlink()
    assert any("wandb/artifacts/" in problem for problem in check(comparison))
    assert main(["sync", str(comparison.path)]) == 2
    assert "nothing was sent" in capfd.readouterr().err
    compare(*checkpoints, out=tmp_path / "anonymous", writers=("wandb",), anonymous=True)
    assert main(["sync", str(tmp_path / "anonymous")]) == 2
    assert "is anonymous" in capfd.readouterr().err
    assert server.requests == 0
