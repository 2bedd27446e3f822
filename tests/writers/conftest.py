"""The sample run's report, and a browser page that fails its test on any trouble."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.store import Run, open_run
from exporter.writers import write
from exporter.writers.html import HtmlOptions

TENSORBOARD = "http://localhost:6006"


@pytest.fixture(scope="session")
def run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The sample run in a folder with spaces and other letters, beside what others wrote."""
    place = tmp_path_factory.mktemp("report") / "with spaces & ünï 报告 #1" / "run"
    shutil.copytree(sample_run, place)
    (place / "tensorboard").mkdir()
    (place / "wandb" / "offline-run-20260101_000000-abc").mkdir(parents=True)
    return open_run(place)


@pytest.fixture(scope="session")
def report(run: Run) -> Path:
    """Its report, with five kept images."""
    ids = [row.id for row in run.index if row.error is None]
    options = HtmlOptions(
        kept=tuple(ids[:5]),
        kept_reason={id: f"rule {place}" for place, id in enumerate(ids[:5])},
        tensorboard_url=TENSORBOARD,
    )
    written = write(run, "html", options)
    assert (written.shown, written.total, written.notes) == (19, 20, ())
    assert written.open == "html/index.html"
    return run.path / "html"


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that fails the test on any message, error, dialog or file that does not come."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, has_touch=True)
    made = context.new_page()
    trouble: list[str] = []

    def missing(request: Any) -> None:
        # Leaving a page cuts short what it still loads; a file that is not there says otherwise.
        if request.failure != "net::ERR_ABORTED":
            trouble.append(f"failed: {request.url}: {request.failure}")

    made.on("console", lambda message: trouble.append(message.text))
    made.on("pageerror", lambda error: trouble.append(str(error)))
    made.on("requestfailed", missing)
    made.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
    yield made
    context.close()
    assert trouble == []
