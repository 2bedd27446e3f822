"""Every control of the report does what it says; one that has no test here fails the list.

A control carries its name in ``data-control``. ``CONTROLS`` has one function a name (in
``controls/``), given the desk it works at: an open tab, the report and its run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.store import Run
from tests.report.controls import images, overview, tables, viewer
from tests.report.desk import CONTROLS, Desk

pytestmark = pytest.mark.browser

PARTS = (images, overview, tables, viewer)
"""Importing them fills ``CONTROLS``."""
TEMPLATES = Path(__file__).parents[2] / "templates"
NAME = re.compile(
    r'(?:data-control="|"data-control": "|dataset\.control = "|(?:to|strip)\(")([^"{]+)"'
)


@pytest.fixture(scope="module")
def desk(
    chromium: Any,
    report: Path,
    run: Run,
    until: Callable[[Any, str], None],
    other_runs: Mapping[str, Path],
) -> Iterator[Desk]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield Desk(page, report, run, until, other_runs)
    context.close()
    assert trouble == []


@pytest.mark.parametrize("name", sorted(CONTROLS))
def test_a_control_does_what_it_says(desk: Desk, name: str) -> None:
    CONTROLS[name](desk)


def test_every_control_has_a_test_and_every_test_a_control() -> None:
    named = set()
    for template in TEMPLATES.iterdir():
        if not template.name.startswith("compare"):  # those are in tests/comparison
            named |= set(NAME.findall(template.read_text("utf-8")))
    assert named == set(CONTROLS)


def test_nothing_can_be_operated_that_has_no_name(desk: Desk, pages: tuple[Path, ...]) -> None:
    unnamed = """[...document.querySelectorAll("a[href], button, input, select, summary, textarea")]
      .filter((one) => !one.dataset.control).map((one) => one.outerHTML.slice(0, 120))"""
    for page in pages:
        desk.open(page.relative_to(desk.report).as_posix())
        assert desk.page.evaluate(unnamed) == [], page.name
    desk.viewer(desk.row)
    assert desk.page.evaluate(unnamed) == []
