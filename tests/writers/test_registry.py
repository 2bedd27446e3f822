from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import writers
from exporter.cli import main
from exporter.config import OWN_WRITERS
from exporter.errors import ConfigError, WriterError
from exporter.records import Written
from exporter.store import Run, check, open_run
from exporter.writers import Writer, WriterOptions, find_writer, write, writer_names

NOTHING = WriterOptions(kept=())


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(sample_run, tmp_path / "run"))


def install(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Written], *, in_place: bool = False
) -> None:
    """Put a writer of the test's own in the place of those that are installed."""
    writer = Writer(function, in_place=in_place)
    monkeypatch.setattr(writers, "find_writer", lambda _: writer)


def good(run: Run, folder: Path, options: WriterOptions) -> Written:
    (folder / "file.txt").write_text("new")
    return Written("mine", "mine", "cat file.txt", 0, len(run.plan.images))


def test_every_package_of_the_room_is_a_writer() -> None:
    assert set(OWN_WRITERS) <= set(writer_names())
    for name in OWN_WRITERS:
        assert isinstance(find_writer(name), Writer)
        assert issubclass(find_writer(name).options, WriterOptions)


def test_no_library_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, exporter.writers.html, exporter.writers.tensorboard, exporter.writers.wandb\n"
        "libraries = {'torch', 'tensorboard', 'wandb', 'jinja2', 'google_crc32c', 'PIL'}\n"
        "bad = libraries & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(bad)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_writer_is_named_with_the_valid_ones(run: Run) -> None:
    with pytest.raises(WriterError, match="'tensorbord'; did you mean 'tensorboard'"):
        write(run, "tensorbord", NOTHING)


def test_a_writer_takes_the_place_of_the_one_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, good)
    (run.path / "mine").mkdir()
    (run.path / "mine" / "stale.txt").write_text("old")
    assert write(run, "mine", NOTHING).total == 20
    assert [file.name for file in (run.path / "mine").iterdir()] == ["file.txt"]
    assert not [file.name for file in run.path.iterdir() if file.name.startswith(".mine")]
    assert check(run.path) == ()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("error", [ValueError("boom"), ConfigError("boom"), WriterError("boom")])
def test_a_writer_that_fails_leaves_the_folder_that_was_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, in_place: bool
) -> None:
    install(monkeypatch, good, in_place=in_place)
    write(run, "mine", NOTHING)

    def fails(run: Run, folder: Path, options: WriterOptions) -> Written:
        (folder / "half.txt").write_text("half")
        raise error

    install(monkeypatch, fails, in_place=in_place)
    with pytest.raises(WriterError, match="boom"):
        write(run, "mine", NOTHING)
    assert [file.name for file in (run.path / "mine").iterdir()] == ["file.txt"]
    assert not [file.name for file in run.path.iterdir() if file.name.startswith(".mine")]
    assert check(run.path) == ()


def test_an_interrupted_writer_cleans_up_and_stays_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Run, folder: Path, options: WriterOptions) -> Written:
        raise KeyboardInterrupt

    install(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(run, "mine", NOTHING)
    assert not list(run.path.glob(".mine*"))


def test_a_missing_package_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs(run: Run, folder: Path, options: WriterOptions) -> Written:
        import a_package_that_is_not_there  # noqa: F401

        raise AssertionError

    install(monkeypatch, needs)
    with pytest.raises(WriterError, match=r"a_package_that_is_not_there.*pip install"):
        write(run, "mine", NOTHING)


def test_a_swap_that_was_cut_between_its_renames_is_mended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the old folder was moved away: it comes back if the next writer fails."""
    (run.path / ".mine.old").mkdir()
    (run.path / ".mine.old" / "file.txt").write_text("old")

    def fails(run: Run, folder: Path, options: WriterOptions) -> Written:
        raise ValueError("boom")

    install(monkeypatch, fails)
    with pytest.raises(WriterError):
        write(run, "mine", NOTHING)
    assert (run.path / "mine" / "file.txt").read_text() == "old"
    install(monkeypatch, good)
    write(run, "mine", NOTHING)
    assert (run.path / "mine" / "file.txt").read_text() == "new"
    assert not (run.path / ".mine.old").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_tensorboard_writer_leaves_nothing_swapped_in_and_is_rebuilt(run: Run) -> None:
    """SIGKILL while the cards are written: the run has no log, and the next writer makes it."""
    code = textwrap.dedent(
        f"""
        import os, signal
        from exporter.store import open_run
        from exporter.writers import write
        from exporter.writers.tensorboard import TensorBoardOptions
        from exporter.writers.tensorboard import writer
        whole = writer.cards
        def cards(*told):
            yield from whole(*told)
            os.kill(os.getpid(), signal.SIGKILL)
        writer.cards = cards
        run = open_run({str(run.path)!r})
        write(run, "tensorboard", TensorBoardOptions(kept=tuple(e.id for e in run.plan.images)))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    (half,) = run.path.glob(".tensorboard.*.tmp")
    assert not (run.path / "tensorboard").exists()
    (problem,) = check(run.path)
    assert half.name in problem
    assert main(["render", str(run.path), "--writer", "tensorboard", "--keep", "1"]) == 0
    assert (run.path / "tensorboard").is_dir()
    assert not half.exists()
