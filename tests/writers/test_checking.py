"""What ``check`` looks for in the writers' folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.store import open_run
from exporter.store.replacing import UNFINISHED
from exporter.writers import check as check_written
from tests.older import make_older


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_run, tmp_path / "run"))


def check(run: Path) -> tuple[str, ...]:
    return tuple(check_written(open_run(run)))


def write(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")


DAMAGE = {
    "empty report": (lambda r: (r / "html").mkdir(), "html/ has no index.html"),
    "empty log": (lambda r: (r / "tensorboard").mkdir(), "tensorboard/ has no *tfevents*"),
    "link": (
        lambda r: write(r / "html/index.html", "<a href='layers/caf%C3%A9.html?x=1#y'>"),
        "html/index.html links to 'layers/caf%C3%A9.html?x=1#y', which is not there",
    ),
    "script": (
        lambda r: write(r / "html/index.html", "<script src=app.js></script>"),
        "links to 'app.js'",
    ),
    "outside": (
        lambda r: write(r / "html/index.html", "<img src='../../photo.jpg'>"),
        "outside the run",
    ),
    "absolute": (lambda r: write(r / "html/index.html", "<a href='/etc/'>"), "is not relative"),
    "no checksums": (
        lambda r: write(r / "html/index.html", ""),
        "checksums/writers-html.sha256 is damaged or missing; write it again with exporter render",
    ),
    "half a log": (
        lambda r: write(r / "wandb" / UNFINISHED, ""),
        "wandb/ is incomplete: its writer was interrupted; write it again with exporter render",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(run: Path, damage: str) -> None:
    assert check(run) == ()
    plant, says = DAMAGE[damage]
    plant(run)
    problems = check(run)
    assert any(says in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_links_that_are_there_are_no_problem(run: Path) -> None:
    make_older(run)  # a page of ours has no checksum
    write(run / "html/a b/猫.html", "<a href='../index.html#top'><img src=''>")
    write(
        run / "html/index.html",
        "<a href='a%20b/%E7%8C%AB.html'><a href='a b/猫.html'><a href='#x'><a href='https://x.org/'>"
        "<img src='data:image/png;base64,AA=='><a href='../kernels/000-conv1.png'><a href='?q=1'>"
        "<a href='mailto:a@b.org'><span data-x='nothing.html'></span>",
    )
    assert check(run) == ()
