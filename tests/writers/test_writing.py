"""The writers of a run: one process at a time, and a note that is no condition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.config import WriterConfig
from exporter.store import open_run
from exporter.store.checksums import commit
from exporter.store.files import RunFiles
from exporter.store.lock import RunLock
from exporter.watch import Watch
from exporter.writers.writing import remembered, write_all

NONE = WriterConfig(writers=(), keep=7)


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sample_run, tmp_path / "run")


class Ear(Watch):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep the line."""
        self.lines.append(line)


def test_nothing_is_read_or_written_while_another_writes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another process is writing may look damaged: who has no lock says nothing of it."""
    (run / "shards/00001.parquet").rename(run / "moved")
    plan = (run / "plan.json").read_bytes()
    (run / "plan.json").write_bytes(plan[:-9])
    lock = RunLock(run)
    for command in ("render", "work", "finish"):
        assert main([command, str(run)]) == 2
        assert "another process is writing the run" in capsys.readouterr().err
    lock.release()
    assert not (run / "writers.json").exists()
    (run / "moved").rename(run / "shards/00001.parquet")
    (run / "plan.json").write_bytes(plan)
    assert main(["render", str(run), "--writer", "html"]) == 0
    RunLock(run).release()


def test_what_the_writers_were_told_is_repeated(run: Path) -> None:
    write_all(open_run(run), NONE)
    assert remembered(RunFiles(run))["keep"] == 7
    assert remembered(RunFiles(run))["writers"] == []


def test_a_run_that_cannot_be_noted_is_rendered_and_it_is_said(run: Path) -> None:
    (run / "writers.json").mkdir()
    ear = Ear()
    written, failed = write_all(open_run(run), WriterConfig(writers=("html",)), ear)
    assert [folder.writer for folder in written] == ["html"]
    assert not failed
    (line,) = ear.lines
    assert "writers.json" in line


def test_settings_of_another_version_are_left_out(run: Path) -> None:
    note = json.dumps({"keep": 5, "sparkle": True})
    commit(RunFiles(run), {"writers.json": note.encode()})
    assert remembered(RunFiles(run)) == {"keep": 5}
