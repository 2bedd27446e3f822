"""The whole report without a pointer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.store import Run

pytestmark = pytest.mark.browser

REACHABLE = """[...document.querySelectorAll(
  "a[href], button, input, select, summary, [tabindex='0']"
)].filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled
  && one.tabIndex >= 0 && !one.closest("details:not([open]) > :not(summary)")).length"""
FOCUSED = "document.activeElement === document.body ? null : document.activeElement.outerHTML"
# A ring, or another change, shows where the focus is.
SHOWN = """(() => {
  const style = getComputedStyle(document.activeElement);
  return style.outlineStyle !== "none" || style.boxShadow !== "none";
})()"""


def test_tab_reaches_everything_and_shows_where_it_is(
    page: Any, report: Path, until: Callable[[Any, str], None]
) -> None:
    for name in ("index.html", "images.html", "layers.html", "methods.html"):
        page.goto((report / name).as_uri())
        if name == "images.html":
            until(page, "document.querySelector('button.tile canvas')?.width > 0")
        wanted = page.evaluate(REACHABLE)
        seen: list[str] = []
        for _ in range(wanted + 2):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused is None:
                break
            seen.append(focused)
            assert page.evaluate(SHOWN), (name, focused[:100])
        assert len(seen) >= wanted, (name, len(seen), wanted)


def test_an_image_is_found_opened_read_and_left_by_keys(
    page: Any, report: Path, run: Run, until: Callable[[Any, str], None]
) -> None:
    page.goto((report / "images.html").as_uri())
    until(page, "document.querySelector('button.tile')")
    page.keyboard.press("/")
    page.keyboard.type("chel")
    until(page, "document.querySelectorAll('button.tile').length === 1")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('tile')"):
            break
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#v-table canvas')?.width > 0")
    assert page.locator("#v-path").inner_text() == "chelsea.jpg"
    # The focus stays in the dialog.
    for _ in range(60):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body"
            " || document.getElementById('viewer').contains(document.activeElement)"
        )
    page.locator("#v-frame").focus()
    page.keyboard.press("3")
    until(page, "document.getElementById('v-caption').textContent.startsWith('Eigen-CAM')")
    page.keyboard.press("Shift+ArrowDown")
    until(page, "document.getElementById('v-value').textContent.startsWith('Value')")
    page.keyboard.press("Escape")
    until(page, "document.activeElement.classList.contains('tile')")
    assert page.evaluate("document.activeElement.textContent").endswith("chelsea.jpg")


def test_moving_through_the_grid_by_keys(
    page: Any, report: Path, run: Run, until: Callable[[Any, str], None]
) -> None:
    page.goto((report / "images.html").as_uri())
    until(page, "document.querySelector('button.tile')")
    total = len(run.plan.images)
    page.locator("button.tile").first.focus()
    for key, place in (
        ("ArrowRight", 1),
        ("End", total - 1),
        ("ArrowLeft", total - 2),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        until(page, f"document.activeElement.dataset.place === '{place}'")
