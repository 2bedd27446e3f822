"""Comparisons of three runs: how large and fast their report is, and what comparing them takes.

Runs are synthesised as in ``report_runs.py``, of the same images, with other maps and predictions,
and without activations, which a comparison does not read. They are compared in a process of their
own, with all three writers; its largest memory is noted, and that of what it starts.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report_runs import METHODS, write_run

RUNS = 3
COUNTS = (2_000, 10_000, 20_000)
GOAL_BYTES = 40_000
GOAL_READY = 1000.0
GOAL_OF = 10_000
"""Images up to which the report has to open within ``GOAL_READY`` milliseconds."""

GOAL_GROWTH = 1.5
"""How much more memory the largest comparison may take than the smallest, in times of it."""


def measure_comparison(
    count: int,
    work: Path,
    opened: Callable[[str], float],
    tries: int,
    methods: int,
    *,
    small: bool = False,
) -> dict[str, Any]:
    """Write runs of so many images, compare them, and open the report.

    Args:
        count: images.
        work: an empty folder, removed afterwards.
        opened: opens an address in a fresh tab, and gives the milliseconds until all is there.
        tries: how often each page is opened.
        methods: how many the runs have maps of.
        small: whether their maps and photographs are as small as can be.

    Returns:
        The comparison's entry of the printed JSON.
    """
    runs = [work / f"run-{seed}" for seed in range(RUNS)]
    for seed, run in enumerate(runs):
        write_run(run, count, seed, methods=METHODS[:methods], strongest=0, small=small)
    print(f"  {RUNS} runs of {count} images synthesised", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.report_compared", *map(str, runs)]
    said = subprocess.run(
        [*command, str(work / "CMP")], check=True, capture_output=True, text=True
    ).stdout
    report = work / "CMP" / "html"
    files = [file for part in ("data", "photos") for file in (report / part).rglob("*.*")]
    pages = {
        page.name: statistics.median(opened(page.as_uri()) for _ in range(tries))
        for page in sorted(report.glob("*.html"))
    }
    entry = {
        "images": count,
        "runs": RUNS,
        "methods": methods,
        **json.loads(said),
        "bytes_an_image": sum(file.stat().st_size for file in files) / count,
        "ready_ms": pages,
    }
    shutil.rmtree(work)
    return entry


def missed_by_comparisons(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Say which goals the comparisons miss."""
    said = []
    for entry in entries:
        of = f"{entry['runs']} runs of {entry['images']} images"
        if entry["bytes_an_image"] >= GOAL_BYTES:
            said.append(f"{of}: {entry['bytes_an_image']:.0f} bytes per image")
        said += [
            f"{of}: {page} takes {ready:.0f} ms"
            for page, ready in entry["ready_ms"].items()
            if ready > GOAL_READY and entry["images"] <= GOAL_OF
        ]
    peaks = [entry["peak_mb"] for entry in entries]
    if peaks and peaks[-1] > GOAL_GROWTH * peaks[0]:
        said.append(f"comparing takes {peaks[-1]:.0f} MB, and {peaks[0]:.0f} MB of fewer images")
    return said


def main(folders: Sequence[str]) -> None:
    """Compare runs, the last folder being the comparison, and print what that took."""
    from exporter.comparison import compare

    begun = time.perf_counter()
    *runs, out = folders
    compare(*runs, out=out)
    taken = time.perf_counter() - begun
    peak, started = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps({"compared_s": taken, "peak_mb": peak, "peak_of_started_mb": started}))


if __name__ == "__main__":
    main(sys.argv[1:])
