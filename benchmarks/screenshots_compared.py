"""Draw the pictures of docs/compare.md from the two comparisons that it tells of.

    python examples/training_story.py --out runs/examples
    python -m benchmarks.screenshots_compared runs/examples/training_story/run/comparison CMP

where CMP compares the two ImageNet models, as that page says.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.screenshots import ROOT, decode, save, settle
from exporter.comparison import Comparison, open_comparison
from exporter.stores import Place

SIZE = {"width": 1280, "height": 860}
FOLDER = ROOT / "docs" / "images" / "compare"


def looks(story: Comparison, models: Comparison) -> dict[str, tuple[Place, str, str]]:
    """Return of each picture the page, what follows its address, and what is scrolled to."""
    first, last = story.path / "html", len(story.contents.runs) - 1
    second = models.path / "html"
    grass = next(row.id for row in models.images() if row.path.endswith("grass.jpg"))
    return {
        "index": (first / "index.html", "", ""),
        "images": (first / "images.html", f"#flip=won&run={last}", ""),
        "layers": (first / "layers.html", "", ""),
        "models-flips": (second / "index.html", "", "#strip-changed"),
        "difference": (second / "images.html", f"#image={grass}&mode=difference", ""),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the five pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("story", type=Path, help="the comparison of the training's epochs")
    parser.add_argument("models", type=Path, help="the comparison of the two models")
    given = parser.parse_args(arguments)
    pages = looks(open_comparison(given.story), open_comparison(given.models))
    with sync_playwright() as play:
        browser: Any = play.chromium.launch(executable_path=shutil.which("chromium"))
        for name, (page, state, place) in pages.items():
            tab = browser.new_context(viewport=SIZE, color_scheme="light").new_page()
            tab.goto(Path(page).resolve().as_uri() + state)
            settle(tab)
            if place:
                tab.evaluate("place => document.querySelector(place).scrollIntoView()", place)
                settle(tab)
            save(FOLDER / f"{name}.jpg", decode(tab.screenshot()))
        browser.close()


if __name__ == "__main__":
    main()
