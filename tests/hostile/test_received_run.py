"""A run folder from a stranger: its names and notes open, write and send nothing beyond it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.config import WriterConfig, build_writer_config
from exporter.errors import ExporterError
from exporter.run import finish_run
from exporter.store import open_run
from exporter.store.checksums import commit
from exporter.store.files import RunFiles
from exporter.writers import check
from exporter.writers.wandb import writer as wandb_writer
from exporter.writers.writing import remembered, write_all
from tests.hostile.mutations import forge

SECRET = "the secret of another folder"
slow = pytest.mark.slow
LEADING_OUT = {
    "wandb": "online",
    "wandb_entity": "stranger",
    "wandb_project": "theirs",
    "report_url": "https://stranger.example/report",
    "tensorboard_url": "https://stranger.example/board",
}


@pytest.fixture
def place(sample_run: Path, tmp_path: Path) -> Path:
    """A folder with a run and, beside it, files that are none of its business."""
    shutil.copytree(sample_run, tmp_path / "run")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "secret.png").write_text(SECRET)
    (tmp_path / "secret.jpg").write_text(SECRET)
    return tmp_path


def outside(place: Path, writer: str) -> dict[str, str]:
    """Return what is none of a writer's business, by path: beside the run, and in the run."""
    own = tuple(place / "run" / name for name in (writer, "writers.json", "checksums"))
    return {
        file.relative_to(place).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(place.rglob("*"))
        if file.is_file() and not any(file.is_relative_to(path) for path in own)
    }


def rename_ids(name: str) -> Callable[[Path], None]:
    """Call the first image by another id, wherever the run does."""

    def plant(run: Path) -> None:
        plan = json.loads((run / "plan.json").read_text())
        old = plan["images"]["key"][0]
        (run / "plan.json").write_text((run / "plan.json").read_text().replace(old, name))
        for file in [*(run / "shards").glob("*.parquet"), *(run / "set").glob("*.parquet")]:
            table = pq.read_table(file)
            for at, column in enumerate(table.column_names):
                if pa.types.is_string(table.schema.field(column).type):
                    values = [name if v == old else v for v in table.column(column).to_pylist()]
                    kind = table.schema.field(column)
                    table = table.set_column(at, kind, pa.array(values, kind.type))
            pq.write_table(table, file)

    return plant


def in_json(file: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Change a document of the run."""

    def plant(run: Path) -> None:
        document = json.loads((run / file).read_text())
        change(document)
        (run / file).write_text(json.dumps(document))

    return plant


def link(name: str, to: str) -> Callable[[Path], None]:
    """Put a link in the place of something of the run."""

    def plant(run: Path) -> None:
        path = run / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(run.parent / to)

    return plant


def sheet(to: str) -> Callable[[Path], None]:
    def change(kernels: Any) -> None:
        rows = kernels if isinstance(kernels, list) else kernels.get("kernels", [])
        for row in rows:
            row["sheet"] = to

    return in_json("kernels/kernels.json", change)


PLANTED = {
    "id up": rename_ids("../../../beside/planted"),
    "id absolute": rename_ids("/tmp/planted"),
    "id of a page": rename_ids("../index"),
    "method up": in_json("plan.json", lambda p: p["methods"][0].update(name="../../../beside/x")),
    "model up": in_json("plan.json", lambda p: p["model"].update(name="../../../../beside/x")),
    "layer up": in_json("plan.json", lambda p: p["layers"][0].update(name="../../beside/x")),
    "sheet up": sheet("../../secret.jpg"),
    "sheet absolute": sheet("/etc/passwd"),
    "folder before": link(".html.old", "beside"),
    "report": link("html", "beside"),
    "log": link("tensorboard", "beside"),
    "note": link("writers.json", "secret.jpg"),
    "kernels": link("kernels", "beside"),
    "W&B": link("wandb", "beside"),
}
QUICK = ("id up", "sheet absolute", "report")


@pytest.mark.parametrize(
    ("way", "writer"),
    [
        pytest.param(way, writer, marks=() if way in QUICK and writer != "wandb" else slow)
        for way in PLANTED
        for writer in ("html", "tensorboard", "wandb")
    ],
)
def test_a_writer_stays_in_the_run(
    place: Path, way: str, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place / "run"
    with suppress(FileNotFoundError):
        PLANTED[way](run)
    forge(run)
    before = outside(place, writer)
    with suppress(ExporterError):
        write_all(open_run(run), WriterConfig(writers=(writer,), keep=3, single_file=True))
    assert outside(place, writer) == before
    for file in run.rglob("*"):
        if file.is_file() and not file.is_symlink() and not file.is_relative_to(place / "beside"):
            content = file.read_bytes()
            assert SECRET.encode() not in content, file
            assert b"root:x:0" not in content, file


# ------------------------------------------------------------ consent


class Wire:
    """Counts what would have been sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        monkeypatch.setattr(wandb_writer, "sync", self._sync)

    def _sync(self, *told: Any, **named: Any) -> tuple[None, str]:
        self.sent += 1
        return None, "it was asked to send"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    return Wire(monkeypatch)


def log_of(run: Path) -> bytes:
    (log,) = (run / "wandb").rglob("*.wandb")
    return log.read_bytes()


def test_what_a_run_remembers_is_no_consent(place: Path, wire: Wire) -> None:
    run = place / "run"
    note = {"writers": ["wandb"], "keep": 2, **LEADING_OUT}
    commit(RunFiles(run), {"writers.json": json.dumps(note).encode()})
    told = remembered(RunFiles(run))
    assert told == {"writers": ["wandb"], "keep": 2}
    written, failed = write_all(open_run(run), build_writer_config(told))
    assert (wire.sent, failed) == (0, ())
    assert written[0].open.startswith("exporter sync ")
    assert b"stranger" not in log_of(run)
    assert b"theirs" not in log_of(run)


@pytest.mark.slow
def test_a_finished_run_is_finished_again_without_being_sent(place: Path, wire: Wire) -> None:
    run = place / "run"
    note = {"writers": ["wandb"], "keep": 2, **LEADING_OUT}
    commit(RunFiles(run), {"writers.json": json.dumps(note).encode()})
    assert finish_run(run).failed == ()
    assert wire.sent == 0
    assert b"stranger" not in log_of(run)


@pytest.mark.slow
def test_the_command_line_is_consent(place: Path, wire: Wire) -> None:
    run = place / "run"
    told = remembered(RunFiles(run)) | {"writers": ["wandb"], "keep": 2, "wandb": "online"}
    write_all(open_run(run), build_writer_config(told))
    assert wire.sent == 1


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_a_server_that_came_with_the_run_is_found_and_no_command_leads_to_it(
    place: Path, folder: str
) -> None:
    run = place / "run"
    (run / "wandb" / "offline-run-20260101_000000-abc").mkdir(parents=True, exist_ok=True)
    write_all(open_run(run), WriterConfig(writers=("html",), keep=2))
    assert "wandb sync" in (run / "html" / "index.html").read_text()
    (run / "wandb" / folder).mkdir()
    (run / "wandb" / folder / "settings").write_text(
        "[default]\nbase_url = http://stranger.example"
    )
    write_all(open_run(run), WriterConfig(writers=("html",), keep=2))
    assert "wandb sync" not in (run / "html" / "index.html").read_text()
    assert any("would say where wandb sync sends" in line for line in check(open_run(run)))


@pytest.mark.parametrize("name", ["offline-run-1; touch x", "offline-run-$(id)", "offline-run-a b"])
def test_a_folder_s_name_becomes_no_command(place: Path, name: str) -> None:
    run = place / "run"
    (run / "wandb" / name).mkdir(parents=True, exist_ok=True)
    write_all(open_run(run), WriterConfig(writers=("html",), keep=2))
    assert name.partition("-run-")[2] not in (run / "html" / "index.html").read_text()
