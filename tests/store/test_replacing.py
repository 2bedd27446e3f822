"""What is written again is whole at every moment: the process is killed at each step of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exporter.errors import RunError
from exporter.records import Written
from exporter.store import check, create_run, open_run, reopen_run
from exporter.store.checksums import commit, is_altered, noted, settle_interrupted, verify
from exporter.store.files import RunFiles
from exporter.writers import Writer, WriterOptions, write
from exporter.writers import check as check_written

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is not of that system")

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


def moments(run: Path, do: Callable[[], object], every: int = 1) -> Iterator[int]:
    """Do something to copies of a run, killed at each of its steps; yield once it was.

    The run is put back before each, and is at last what it is without a kill.
    """
    before = run.with_name(f"before {run.name}")
    shutil.copytree(run, before)
    for moment in range(1, 1000, every):
        shutil.rmtree(run)
        shutil.copytree(before, run)
        child = os.fork()
        if child == 0:
            _kill_at(str(run), moment)
            do()
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        yield moment
        if not killed:
            assert moment > 3, "there was nothing to be killed at"
            return


def _kill_at(run: str, moment: int) -> None:
    left = moment

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _EVENTS and str(arguments[0]).startswith(run):
            reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
            left -= not reads
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_run, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("writers.json", "plan.json", "recipe.json")
        ),
    ],
)
def test_a_document_is_the_old_or_the_new_one_with_its_checksum(run: Path, name: str) -> None:
    files = RunFiles(run)
    commit(files, {name: b"old"}, "a")
    seen = set()
    for moment in moments(run, partial(commit, files, {name: b"new"}, "b")):
        content = files.read(name)
        seen.add(content)
        assert not is_altered(files, name), moment
        assert noted(files, name) == {b"old": "a", b"new": "b"}[content]
        settle_interrupted(files)
        assert not is_altered(files, name), moment
        assert list((run / "checksums").glob(".*.next")) == []
        commit(files, {name: b"third"})
        assert verify(files, name)
    assert seen == {b"old", b"new"}


@pytest.mark.slow
def test_what_is_neither_the_old_nor_the_new_one_is_noticed(run: Path) -> None:
    files = RunFiles(run)
    commit(files, {"writers.json": b"old"})
    for _ in moments(run, partial(commit, files, {"writers.json": b"new"})):
        (run / "writers.json").write_bytes(b"rotted")
        assert is_altered(files, "writers.json")
        settle_interrupted(files)
        assert is_altered(files, "writers.json")


def make(run: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, in_place: bool) -> None:
    """Write a folder of two files as ``html/``."""

    def fill(_: object, folder: Path, __: WriterOptions) -> Written:
        (folder / "pages").mkdir()
        (folder / "pages/one.html").write_text(text)
        (folder / "two.txt").write_text(text)
        return Written("html", "html", "html/two.txt", 1, 1)

    mine = Writer(fill, expects="two.txt", in_place=in_place)
    monkeypatch.setattr("exporter.writers.find_writer", lambda _: mine)
    write(open_run(run), "html", WriterOptions())


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True])
def test_a_writers_folder_is_the_old_or_the_new_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, *, in_place: bool
) -> None:
    make(run, monkeypatch, "old", in_place=in_place)
    seen = set()
    for moment in moments(run, partial(make, run, monkeypatch, "new", in_place=in_place)):
        for problem in check_written(open_run(run)):
            assert "interrupted; write it again with exporter render" in problem, moment
        reopen_run(run, shared=False).close()
        assert list(check_written(open_run(run))) == []
        assert check(run) == ()
        texts = {(run / "html" / name).read_text() for name in ("two.txt", "pages/one.html")}
        assert len(texts) == 1, moment
        seen |= texts
        assert list(run.glob(".*")) == []
    assert seen == {"old", "new"}


def test_a_run_that_was_killed_twice_before_its_plan_was_there_is_begun(
    sample_run: Path, tmp_path: Path, sampling: ModuleType
) -> None:
    run = tmp_path / "run"
    for name in ("shards", "summaries", "checksums"):
        (run / name).mkdir(parents=True)
    for name in ("plan.json.sha256", ".plan.json.sha256.next"):
        shutil.copy(sample_run / "checksums/plan.json.sha256", run / "checksums" / name)
    create_run(run, sampling.sample_plan()).close()
    assert check(run)[0].startswith("the run is not complete: 0 of 3")
    assert [file.name for file in (run / "checksums").iterdir()] == ["plan.json.sha256"]


def finish(sampling: ModuleType, run: Path) -> None:
    with create_run(run, sampling.sample_plan(), resume=True) as folder:
        assert not folder.complete
        sampling.finish_run(folder, 2.5)


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_run_json_stays_until_there_is_another(run: Path, sampling: ModuleType, every: int) -> None:
    """What a run that lacks a table says is lost at no moment while it is finished again."""
    (run / "channels.parquet").unlink()
    seconds = set()
    for moment in moments(run, partial(finish, sampling, run), every):
        totals = open_run(run).totals
        assert totals is not None, moment
        seconds.add(totals.seconds)
    assert seconds == {1.5, 2.5}
    assert check(run) == ()


def test_a_finish_that_is_refused_changes_nothing(run: Path) -> None:
    (run / "shards/00001.parquet").unlink()
    (run / "set/classes.parquet").write_bytes(b"rotted")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with reopen_run(run, shared=False) as folder, pytest.raises(RunError, match="lacks 1 of 3"):
        folder.refuse_missing()
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
