"""A comparison's folders are written again from its tables and its runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.comparison import open_comparison, render
from exporter.errors import RunError
from tests.comparison.conftest import Build


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_report_is_written_again_and_nothing_else(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copied)
    shutil.rmtree(copied / "html")
    shutil.rmtree(copied / "tensorboard")
    assert main(["render", str(copied), "--writer", "html"]) == 0
    assert "html/index.html" in capsys.readouterr().out
    left = {name: file for name, file in before.items() if not name.startswith("tensorboard/")}
    assert contents(copied) == left


def test_what_cannot_be_rendered_is_one_sentence(
    copied: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", str(copied), "--keep", "5"]) == 2
    assert capsys.readouterr().err == (
        "error: a comparison takes no --keep; of the writers' flags it has --writer, "
        "--single-file and --max-size\n"
    )
    (first, *_) = open_comparison(copied).contents.runs
    run = copied.parent / Path(first.path).name
    shutil.rmtree(run)
    with pytest.raises(RunError, match="there is no run in"):
        render(copied, writers=("html",))
    build(run, step=1, checkpoint="epoch-1.pt", names=[f"image {n:02d}" for n in range(1, 9)])
    with pytest.raises(RunError, match="have changed since they were compared; compare them again"):
        render(copied, writers=("html",))
