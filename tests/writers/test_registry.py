from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from exporter import config, writers
from exporter.errors import ConfigError, WriterError
from exporter.records import Written
from exporter.store import Run, check, open_run
from exporter.writers import WRITERS, WriterOptions, write

NOTHING = WriterOptions(kept=())


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(sample_run, tmp_path / "run"))


def install(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Written]) -> None:
    """Register a writer of the test's own as any other is: one line."""
    monkeypatch.setattr(writers, "WRITERS", MappingProxyType({"mine": function}))


def good(run: Run, folder: Path, options: WriterOptions) -> Written:
    (folder / "file.txt").write_text("new")
    return Written("mine", "mine", "cat file.txt", 0, len(run.plan.images))


def test_the_registry_and_the_settings_know_the_same_writers() -> None:
    assert set(WRITERS) == set(config.WRITERS)


def test_no_sink_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, exporter.writers, exporter.render, exporter.store\n"
        "sinks = {'torch', 'tensorboard', 'wandb', 'jinja2', 'google_crc32c', 'PIL'}\n"
        "bad = sinks & set(sys.modules)\n"
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
    (run.path / ".mine.tmp").mkdir()
    (run.path / ".mine.tmp" / "half.txt").write_text("left by a killed writer")
    assert write(run, "mine", NOTHING).total == 20
    assert [file.name for file in (run.path / "mine").iterdir()] == ["file.txt"]
    assert not [file.name for file in run.path.iterdir() if file.name.startswith(".mine")]
    assert check(run.path) == ()


@pytest.mark.parametrize("error", [ValueError("boom"), ConfigError("boom"), WriterError("boom")])
def test_a_writer_that_fails_leaves_the_sink_that_was_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    install(monkeypatch, good)
    write(run, "mine", NOTHING)

    def fails(run: Run, folder: Path, options: WriterOptions) -> Written:
        (folder / "half.txt").write_text("half")
        raise error

    install(monkeypatch, fails)
    with pytest.raises(WriterError, match="boom"):
        write(run, "mine", NOTHING)
    assert [file.name for file in (run.path / "mine").iterdir()] == ["file.txt"]
    assert not (run.path / ".mine.tmp").exists()
    assert check(run.path) == ()


def test_an_interrupted_writer_cleans_up_and_stays_interrupted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Run, folder: Path, options: WriterOptions) -> Written:
        raise KeyboardInterrupt

    install(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(run, "mine", NOTHING)
    assert not (run.path / ".mine.tmp").exists()


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
    """Killed after the old sink was moved away: it comes back if the next writer fails."""
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


def test_the_writer_of_the_documentation_works(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "add-a-writer.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(\"\"\".*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "add-a-writer.md", "exec"), names)
    install(monkeypatch, names["write"])
    assert write(run, "mine", NOTHING).shown == 20
    lines = (run.path / "mine" / "images.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 21
    first = run.plan.images[0]
    assert lines[1].startswith(f"{first.id},{first.path},")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_tensorboard_writer_leaves_nothing_swapped_in_and_is_rebuilt(run: Run) -> None:
    """SIGKILL while the cards are written: the run has no sink, and the next writer makes it."""
    code = textwrap.dedent(
        f"""
        import os, signal
        from exporter.store import open_run
        from exporter.writers import WriterOptions, write
        from exporter.writers.tensorboard import cards
        whole = cards.Cards.values
        def values(self, row):
            yield from whole(self, row)
            os.kill(os.getpid(), signal.SIGKILL)
        cards.Cards.values = values
        run = open_run({str(run.path)!r})
        write(run, "tensorboard", WriterOptions(kept=tuple(e.id for e in run.plan.images)))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    assert (run.path / ".tensorboard.tmp").exists()
    assert not (run.path / "tensorboard").exists()
    assert all(".tensorboard.tmp" in problem for problem in check(run.path))
    write(run, "tensorboard", WriterOptions(kept=(run.plan.images[0].id,)))
    assert (run.path / "tensorboard").is_dir()
    assert not (run.path / ".tensorboard.tmp").exists()
