"""Draw the report's pages for the documentation: wide, on a phone, dark and in print.

Makes the demo where it is not there, opens its report in headless Chromium and writes JPEG files of
at most 54 kB into ``docs/images/report/``, and ``docs/images/report.png`` for the README. Then the
demo at all sizes and with the map of any class, and the reports of a detector, a segmentation and a
ViT (``screenshot_runs.py``), as files that are only looked at.

    python -m benchmarks.screenshots
    python -m benchmarks.screenshots --looked-at runs/screenshots --only detection,transformer
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.screenshot_runs import RUNS
from exporter.config import WriterConfig
from exporter.render import encode_jpeg
from exporter.store import open_run
from exporter.writers import write
from exporter.writers.writing import writer_options

ROOT = Path(__file__).parents[1]
WIDE, PHONE = {"width": 1440, "height": 1000}, {"width": 390, "height": 844}
HUGE = {"width": 3840, "height": 2160}
LOOKS: tuple[tuple[str, dict[str, int], str], ...] = (
    ("1440", WIDE, "light"),
    ("390", PHONE, "light"),
    ("dark", WIDE, "dark"),
)
MOST = 54_000
"""Bytes of a picture: forty of them and the README's stay under 2.5 MB. Wide pages are kept at
three quarters."""

MOST_README = 300_000
_READY = """document.readyState === "complete" && ![...document.images].some((image) => image.src
  && image.checkVisibility() && image.getBoundingClientRect().top < innerHeight
  && !(image.complete && image.naturalWidth)) && (!document.getElementById("grid")
  || [...document.querySelectorAll("#grid canvas")].some((canvas) => canvas.width > 0))"""


def _pages(report: Path) -> dict[str, str]:
    """Return a name and an address for each kind of page, and for the open viewer."""
    found = {page.stem: page.name for page in sorted(report.glob("*.html"))}
    found.pop("report", None)
    for folder in sorted({page.parent for page in report.glob("*/*.html")}):
        largest = max(folder.glob("*.html"), key=lambda page: page.stat().st_size)
        found[folder.name.rstrip("s") if folder.name != "classes" else "class"] = (
            largest.relative_to(report).as_posix()
        )
    if "layer" in found and (report / "layers.html").exists():
        found["layers"] = "layers.html"
    return found


def _viewer(report: Path) -> str:
    """Return the address of the viewer on the photograph that shows most: the cat, or the first."""
    rows = [row for row in open_run(report.parent).index if row.error is None]
    chosen = next((row for row in rows if "chelsea" in row.path), rows[0])
    return f"images.html#image={chosen.id}"


def settle(tab: Any) -> None:
    """Wait until a page is whole, as far as it is in sight."""
    for _ in range(200):
        if tab.evaluate(_READY):
            break
        tab.wait_for_timeout(50)
    tab.wait_for_timeout(300)


def save(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a JPEG no larger than allowed, of the best quality that fits."""
    if pixels.shape[1] == WIDE["width"]:
        small = cv2.resize(pixels, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        pixels = np.asarray(small, np.uint8)
    for quality in (78, 72, 66, 60, 52, 44, 36):
        content = encode_jpeg(pixels, quality)
        if len(content) <= MOST:
            break
    file.write_bytes(content)
    print(f"{file.relative_to(ROOT)}: {len(content) / 1000:.0f} kB", file=sys.stderr)


def decode(content: bytes) -> NDArray[np.uint8]:
    """Return a screenshot, uint8 (H, W, 3) RGB."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(pixels, np.uint8)[..., ::-1])


def draw(
    report: Path,
    browser: Any,
    out: Path,
    *,
    looks: Sequence[tuple[str, dict[str, int], str]] = LOOKS,
    write: Callable[[Path, NDArray[np.uint8]], None] = save,
    more: Mapping[str, str] | None = None,
) -> None:
    """Draw every page of a report at 1440 and 390 pixels, dark, and as printed.

    Args:
        report: the report's folder.
        browser: a Chromium of playwright.
        out: where the pictures go.
        looks: name, size and colour scheme of each look; beside the first the page is printed.
        write: writes a picture.
        more: further names and addresses.
    """
    pages = {**_pages(report), "viewer": _viewer(report), **(more or {})}
    for look, size, scheme in looks:
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        tab = context.new_page()
        for name, address in pages.items():
            tab.goto("about:blank")
            tab.goto(report.as_uri() + "/" + address)
            settle(tab)
            write(out / f"{name}-{look}.jpg", decode(tab.screenshot()))
            if look == "1440":
                write(out / f"{name}-print.jpg", _printed(tab))
        context.close()


def _printed(tab: Any) -> NDArray[np.uint8]:
    """Return the page as the printer would have it: media print, at the width of A4 paper."""
    size = tab.viewport_size
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 794, "height": 1123})
    tab.wait_for_timeout(200)
    content = tab.screenshot()
    tab.emulate_media(media="screen")
    tab.set_viewport_size(size)
    return decode(content)


def _keep(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture that is only looked at."""
    file.write_bytes(encode_jpeg(pixels, 88))


def draw_looked_at(runs: Mapping[str, Path], browser: Any, out: Path) -> None:
    """Draw what is looked at and not kept: every run at every size, and any class, live.

    Args:
        runs: run folders by name, the demo among them.
        browser: a Chromium of playwright.
        out: where a folder for each goes.
    """
    looks = (*LOOKS, ("3840", HUGE, "light"))
    for name, run in runs.items():
        opened = open_run(run)
        write(opened, "html", writer_options(opened, WriterConfig())["html"])
        report, folder = run.resolve() / "html", out / name
        folder.mkdir(parents=True, exist_ok=True)
        more = {}
        if opened.plan.head is not None and opened.plan.head.layer:
            said = next(row for row in opened.index if row.predictions).predictions
            more["live"] = f"{_viewer(report)}&live={said[1].index}"
        draw(report, browser, folder, looks=looks, write=_keep, more=more)
        print(f"{folder}: {len(list(folder.iterdir()))} pictures", file=sys.stderr)


def draw_readme(report: Path, browser: Any, file: Path) -> None:
    """Draw the README's one picture: the open viewer over the images, as PNG within 300 kB.

    Args:
        report: the report's folder.
        browser: a Chromium of playwright.
        file: the picture.
    """
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    tab = context.new_page()
    tab.goto(report.as_uri() + "/" + _viewer(report))
    settle(tab)
    pixels = decode(tab.screenshot())
    context.close()
    content = b""
    for colours in (256, 192, 128, 96, 64):
        content = _few_colours(pixels, colours)
        if len(content) <= MOST_README:
            break
    file.write_bytes(content)
    print(f"{file.relative_to(ROOT)}: {len(content) / 1000:.0f} kB", file=sys.stderr)


def _few_colours(pixels: NDArray[np.uint8], colours: int) -> bytes:
    """Encode as PNG with a palette, which halves a screenshot."""
    from io import BytesIO

    from PIL import Image

    room = BytesIO()
    picture = Image.fromarray(pixels)
    # The palette first, then the dither: quantize() dithers only to a palette that it is given.
    palette = picture.quantize(colours, method=Image.Quantize.MEDIANCUT)
    dither = Image.Dither.FLOYDSTEINBERG
    picture.quantize(palette=palette, dither=dither).save(room, "PNG", optimize=True)
    return room.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw every picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__)
    parser.add_argument("--run", type=Path, help="a run to draw instead of a fresh demo")
    parser.add_argument("--looked-at", type=Path, default=ROOT / "runs" / "screenshots")
    parser.add_argument(
        "--only", help="which of demo, detection, segmentation, transformer; no docs"
    )
    given = parser.parse_args(arguments)
    only = given.only.split(",") if given.only else ["demo", *RUNS]
    program = shutil.which("chromium")
    if program is None:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    images = ROOT / "docs" / "images"
    with tempfile.TemporaryDirectory(prefix="exporter-shots-") as folder, sync_playwright() as play:
        runs = {name: Path(folder) / name for name in only}
        if "demo" in runs and given.run is not None:
            runs["demo"] = given.run
        elif "demo" in runs:
            from exporter.demo import demo_config
            from exporter.engines import Recipe
            from exporter.run import run as export

            export(Recipe(demo_config(runs["demo"]), "exporter demo"))
        for name in runs.keys() & RUNS.keys():
            RUNS[name](runs[name])
        browser = play.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        if given.only is None:
            opened = open_run(runs["demo"])
            write(opened, "html", writer_options(opened, WriterConfig())["html"])
            report, out = runs["demo"].resolve() / "html", images / "report"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            draw(report, browser, out)
            draw_readme(report, browser, images / "report.png")
            total = sum(file.stat().st_size for file in out.iterdir())
            print(f"{len(list(out.iterdir()))} pictures, {total / 1e6:.2f} MB", file=sys.stderr)
        draw_looked_at(runs, browser, given.looked_at)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
