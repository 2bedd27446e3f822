"""The HTML report's size and speed in headless Chromium, opened as a file.

Sets of 100, 10,000 and 100,000 images are synthesised through the real store (``report_runs.py``
says what is reused) and written by the real writer with 5 methods at 4 layers. Then, each the
median of 5 fresh tabs:

- every kind of page: first contentful paint, and until all is there (the images page: until every
  tile in sight has its photograph and its painted map), both from the start of the navigation;
- a blank page that loads the same bytes until then and does no work: a comment as long as the page,
  the same style sheet and photographs, and each of its scripts as a comment of the same bytes;
- on the images page: filter, search and sort (until the new tiles are there), the key End until the
  last tile is painted, and the memory of JavaScript after a collection.

Then comparisons of three such runs (``report_compared.py``): bytes per image, every page until all
is there, and the memory that comparing takes.

The exit code is 1 where a goal is missed: under 30 kB per image, and every page at no more than
twice its blank page; of comparisons under 40 kB per image, every page within a second up to 10,000
images, and memory that does not grow with the set.

    python -m benchmarks.report --json
    python -m benchmarks.report --json --counts 100,10000 --compared 2000,10000
    python -m benchmarks.report --json --counts none
    python -m benchmarks.report --json --counts none --compared 2000,100000 --methods 1 --small
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report_compared
from benchmarks.report_runs import write_run
from exporter.config import WriterConfig
from exporter.store import open_run
from exporter.writers import write
from exporter.writers.writing import writer_options

COUNTS = (100, 10_000, 100_000)
GOAL_BYTES = 30_000
GOAL_RATIO = 2.0
TRIES = 5
SIZE = {"width": 1280, "height": 900}

# Notes when the page is whole: loaded, and on the images page each tile in sight is painted.
_WATCH = """
(() => {
  if (window !== top) return;
  const every = "#grid button.tile, #sheet button.tile";
  const tiles = () => [...document.querySelectorAll(every)].filter((tile) => {
    const box = tile.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  });
  const painted = (tile) => {
    const image = tile.querySelector("img"), canvas = tile.querySelector("canvas");
    return image && image.complete && image.naturalWidth > 0 && canvas && canvas.width > 0;
  };
  window.benchPainted = () => {
    const seen = tiles();
    return seen.length > 0 && seen.every(painted);
  };
  const look = () => {
    const grid = document.querySelector("#grid, #sheet");
    if (document.readyState === "complete" && (!grid || window.benchPainted())) {
      requestAnimationFrame(() => { window.benchReady = performance.now(); });
    } else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
_TIMES = """(() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  if (!window.benchReady) return null;
  const until = performance.timeOrigin + window.benchReady;
  return { ready: window.benchReady, until, paint: paint ? paint.startTime : null };
})()"""
# Changes a field as a reader would and waits for the list to be there again.
_CHANGE = """([id, value]) => new Promise((done) => {
  const field = document.getElementById(id), before = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    done(performance.now() - before);
  }).observe(document.getElementById("grid"), { childList: true });
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
})"""
_END = """() => new Promise((done) => {
  const before = performance.now();
  const last = document.querySelector("#grid button.tile");
  last.focus();
  last.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
  const total = document.querySelector("#grid li").getAttribute("aria-setsize");
  const look = () => {
    if (document.querySelector(`#grid li[aria-posinset="${total}"]`) && window.benchPainted()) {
      done(performance.now() - before);
    } else requestAnimationFrame(look);
  };
  look();
})"""


def measure(count: int, work: Path, browser: Any) -> dict[str, Any]:
    """Write and open the report of so many images.

    Args:
        count: images.
        work: an empty folder, removed afterwards.
        browser: a Chromium of playwright.

    Returns:
        The size's entry of the printed JSON.
    """
    run_folder = work / "run"
    start = time.perf_counter()
    write_run(run_folder, count)
    synthesised = time.perf_counter() - start
    _say(f"  synthesised in {synthesised:.0f} s")
    run = open_run(run_folder)
    options = writer_options(run, WriterConfig())["html"]
    start = time.perf_counter()
    write(run, "html", options)
    written = time.perf_counter() - start
    _say(f"  report written in {written:.0f} s")
    report = run_folder / "html"
    growing = {name: _bytes(report / name) / count for name in ("data", "list", "photos")}
    entry: dict[str, Any] = {
        "images": count,
        "synthesised_s": synthesised,
        "written_s": written,
        "written_ms_an_image": 1000 * written / count,
        "bytes_an_image": {**growing, "all": sum(growing.values())},
        "pages": [_compare(page, report, work, browser) for page in _pages(report)],
        "images_page": _use(report, browser),
    }
    shutil.rmtree(work)
    return entry


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _pages(report: Path) -> list[Path]:
    """Return every page of the first level, and the largest of each folder of pages."""
    found = sorted(report.glob("*.html"))
    for folder in sorted({page.parent for page in report.glob("*/*.html")}):
        found.append(max(folder.glob("*.html"), key=lambda page: page.stat().st_size))
    return found


def _compare(page: Path, report: Path, work: Path, browser: Any) -> dict[str, Any]:
    asked: list[tuple[str, float]] = []
    until = _open(page.as_uri(), browser, asked)["until"]
    requested = [address for address, when in asked if when < until]
    blank = work / "blank"
    shutil.rmtree(blank, ignore_errors=True)
    blank.mkdir()
    address = _blank(page, requested[1:], blank)
    # In turns, so that both meet the same noise of a shared machine.
    ours, theirs = [], []
    for _ in range(TRIES):
        ours.append(_open(page.as_uri(), browser))
        theirs.append(_open(address, browser))
    _say(f"  {page.relative_to(report)} measured")
    ready = statistics.median(one["ready"] for one in ours)
    floor = statistics.median(one["ready"] for one in theirs)
    return {
        "page": page.relative_to(report).as_posix(),
        "kilobytes": sum(_size(one) for one in requested) / 1000,
        "first_paint_ms": statistics.median(one["paint"] or one["ready"] for one in ours),
        "ready_ms": ready,
        "blank_ms": floor,
        "ratio": ready / floor,
    }


def _blank(page: Path, requested: Sequence[str], folder: Path) -> str:
    """Write the blank page that loads the same bytes, and return its address."""
    lines = ["<!doctype html><meta charset=utf-8><title>blank</title>"]
    for place, address in enumerate(dict.fromkeys(requested)):
        if address.endswith(".js"):
            text = _path(address).read_text("utf-8").replace("*/", "* ")
            (folder / f"{place}.js").write_text(f"/*{text}*/", "utf-8")
            lines.append(f'<script src="{place}.js" defer></script>')
        elif address.endswith(".css"):
            lines.append(f'<link rel="stylesheet" href="{address}">')
        elif address.startswith("file:"):
            lines.append(f'<img src="{address}" width="8" height="8" alt="">')
    lines.append(f"<p>blank<!--{page.read_text('utf-8').replace('--', '- ')}-->")
    (folder / "blank.html").write_text("\n".join(lines), "utf-8")
    return (folder / "blank.html").as_uri()


def _open(
    address: str, browser: Any, asked: list[tuple[str, float]] | None = None
) -> dict[str, float]:
    context = browser.new_context(viewport=SIZE)
    context.add_init_script(_WATCH)
    tab = context.new_page()
    if asked is not None:
        tab.on("requestfinished", lambda one: asked.append((one.url, one.timing["startTime"])))
    tab.goto(address, wait_until="commit")
    times = _times(tab)
    context.close()
    return times


def _times(tab: Any) -> dict[str, float]:
    times: dict[str, float] = _once(tab, _TIMES)
    return times


def _once(tab: Any, expression: str) -> Any:
    """Return what an expression gives once it is true.

    The library's own waiting evaluates it again inside the page, which the page's policy forbids.
    """
    for _ in range(6000):
        value = tab.evaluate(expression)
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"{tab.url} did not become ready in two minutes")


def _use(report: Path, browser: Any) -> dict[str, Any]:
    """Time what a reader does on the images page; the median of 5 of each."""
    context = browser.new_context(viewport=SIZE)
    context.add_init_script(_WATCH)
    tab = context.new_page()
    tab.goto((report / "images.html").as_uri(), wait_until="commit")
    _times(tab)
    _once(tab, "exporter.data.whole()")
    session = context.new_cdp_session(tab)
    memory = _memory(session)
    changes = {
        "filter_verdict_ms": ("outcome", "wrong", ""),
        "filter_class_ms": ("class", "7", ""),
        "search_ms": ("q", "graph 000050", ""),
        "sort_score_ms": ("sort", "high", "set"),
        "sort_name_ms": ("sort", "name", "set"),
    }
    found: dict[str, Any] = {}
    for name, (field, value, back) in changes.items():
        taken = []
        for _ in range(TRIES):
            taken.append(tab.evaluate(_CHANGE, [field, value]))
            tab.evaluate(_CHANGE, [field, back])
        found[name] = statistics.median(taken)
    last = []
    for _ in range(TRIES):
        last.append(tab.evaluate(_END))
        tab.evaluate("scrollTo(0, 0)")
        tab.wait_for_timeout(200)
    found["last_row_ms"] = statistics.median(last)
    found["memory_mb"] = memory
    found["memory_after_use_mb"] = _memory(session)
    context.close()
    return found


def _memory(session: Any) -> float:
    session.send("HeapProfiler.enable")
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "JSHeapUsedSize")) / 1e6


def _path(address: str) -> Path:
    from urllib.parse import unquote, urlsplit

    return Path(unquote(urlsplit(address).path))


def _size(address: str) -> int:
    return _path(address).stat().st_size if address.startswith("file:") else 0


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def missed(entry: dict[str, Any]) -> list[str]:
    """Say which goals an entry misses."""
    count, size = entry["images"], entry["bytes_an_image"]["all"]
    said = [] if size < GOAL_BYTES else [f"{count} images: {size:.0f} bytes per image"]
    said += [
        f"{count} images: {page['page']} takes {page['ratio']:.2f} × its blank page"
        for page in entry["pages"]
        if page["ratio"] > GOAL_RATIO
    ]
    return said


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2 if value < 100 else 0)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _counts(given: str | None, otherwise: Sequence[int]) -> Sequence[int]:
    if given is None:
        return otherwise
    return [] if given == "none" else [int(one) for one in given.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size, print the figures and say which goals are missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument(
        "--counts",
        help="images of each set, with commas between, or none (default: 100,10000,100000)",
    )
    parser.add_argument(
        "--compared", help="images of each comparison, or none (default: 2000,10000,20000)"
    )
    parser.add_argument(
        "--methods",
        type=int,
        default=5,
        help="methods of the runs that are compared (default: 5)",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="compare runs whose maps and photographs are as small as can be",
    )
    given = parser.parse_args(arguments)
    counts, compared = (
        _counts(given.counts, COUNTS),
        _counts(given.compared, report_compared.COUNTS),
    )
    program = shutil.which("chromium")
    if program is None:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    entries, comparisons = [], []
    with tempfile.TemporaryDirectory(prefix="exporter-bench-") as folder, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        for count in counts:
            work = Path(folder) / str(count)
            work.mkdir()
            _say(f"{count} images")
            entries.append(_rounded(measure(count, work, browser)))
        for count in compared:
            work = Path(folder) / f"compared-{count}"
            work.mkdir()
            _say(f"comparison of {count} images")

            def opened(address: str) -> float:
                return _open(address, browser)["ready"]

            comparisons.append(
                _rounded(
                    report_compared.measure_comparison(
                        count, work, opened, TRIES, given.methods, small=given.small
                    )
                )
            )
        browser.close()
    problems = [problem for entry in entries for problem in missed(entry)]
    problems += report_compared.missed_by_comparisons(comparisons)
    if given.json:
        goals = {"bytes_an_image": GOAL_BYTES, "ratio": GOAL_RATIO}
        told = {"goals": goals, "sets": entries, "comparisons": comparisons, "missed": problems}
        print(json.dumps(told, indent=1))
    else:
        for entry in entries:
            print(f"{entry['images']} images: {entry['bytes_an_image']['all']:.0f} bytes per image")
            for page in entry["pages"]:
                print(f"  {page['page']}: {page['ready_ms']} ms, {page['ratio']} × blank")
            print(f"  {entry['images_page']}")
        for entry in comparisons:
            print(f"comparison: {entry}")
        for problem in problems:
            print(f"missed: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
