"""What the report's controls are tried at, and the list of them."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from exporter.records import Row
from exporter.store import Run, open_run


@dataclass
class Desk:
    """What a control is tried at."""

    page: Any
    report: Path
    run: Run
    until: Callable[[Any, str], None]
    others: Mapping[str, Path]

    def at(self, other: str) -> Desk:
        """Return the desk with another report: ``wide`` or ``partial``."""
        run = open_run(self.others[other])
        return replace(self, report=self.others[other] / "html", run=run)

    def open(self, name: str, state: str = "") -> None:
        self.page.goto("about:blank")
        self.page.goto((self.report / name).as_uri() + state)

    def images(self, state: str = "") -> None:
        self.open("images.html", state)
        self.wait(
            "document.querySelector('button.tile') || !document.getElementById('none').hidden"
        )

    def viewer(self, row: Row, state: str = "") -> None:
        self.open("images.html", f"#image={row.id}{state}")
        self.wait("document.querySelector('#v-table canvas')?.width > 0")

    def wait(self, condition: str) -> None:
        self.until(self.page, condition)

    def control(self, name: str) -> Any:
        return self.page.locator(f'[data-control="{name}"]').first

    def names(self) -> list[str]:
        return self.page.locator("button.tile .file").all_inner_texts()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def slide(self, name: str, value: int) -> None:
        """Move a slider as a hand does: each step tells of itself, the end too."""
        self.control(name).evaluate(
            """(slider, value) => {
              slider.value = value;
              slider.dispatchEvent(new Event("input", { bubbles: true }));
              slider.dispatchEvent(new Event("change", { bubbles: true }));
            }""",
            value,
        )

    def tiles(self, number: int) -> None:
        self.wait(f"document.querySelectorAll('button.tile').length === {number}")

    @property
    def rows(self) -> list[Row]:
        return list(self.run.rows())

    @property
    def row(self) -> Row:
        return next(row for row in self.run.rows() if row.maps)


Try = Callable[[Desk], None]
CONTROLS: dict[str, Try] = {}


def control(*names: str) -> Callable[[Try], Try]:
    """Say which controls a function tries."""

    def note(function: Try) -> Try:
        CONTROLS.update(dict.fromkeys(names, function))
        return function

    return note


def file(row: Row) -> str:
    return row.path.rpartition("/")[2]


def canvas(desk: Desk, selector: str) -> np.ndarray:
    url = desk.page.locator(selector).first.evaluate("c => c.toDataURL('image/png')")
    encoded = np.frombuffer(b64decode(url.partition(",")[2]), np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def changed(desk: Desk, selector: str, act: Callable[[], object]) -> bool:
    before = canvas(desk, selector)
    act()
    for _ in range(100):
        after = canvas(desk, selector)
        if after.shape != before.shape or (after != before).any():
            return True
        desk.page.wait_for_timeout(20)
    return False


def class_of_the_most(desk: Desk) -> tuple[int, int]:
    """Open the page of the class that is predicted most; return its index and how often."""
    first = [row.predictions[0].index for row in desk.rows if row.predictions]
    index = max(set(first), key=first.count)
    desk.open(f"classes/{index}.html")
    return index, first.count(index)


def layer_page(desk: Desk) -> str:
    desk.open("layers.html")
    desk.page.locator(".cards").get_by_role("link", name="layer4").click()
    # The table lies below the maximised pictures, and its images are loaded when it is near.
    desk.wait("document.querySelector('table.channels')")
    desk.page.evaluate("document.querySelector('table.channels').scrollIntoView()")
    desk.wait("document.querySelector('.tops img')")
    return str(desk.page.evaluate("location.pathname.split('/').pop()"))
