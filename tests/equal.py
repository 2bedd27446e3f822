"""The comparison of two runs that all tests of engines and launchers use."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exporter.store import Run, check, open_run


def contents(run: Path) -> dict[str, str]:
    """Return the checksum of every file whose bytes the settings decide."""
    files = [run / "channels.parquet"] if (run / "channels.parquet").exists() else []
    for folder in ("shards", "summaries", "checksums", "set", "kernels", "maximised"):
        # The plan and run.json say when; a writer may say so too.
        told = ("plan.json.", "run.json.", "writers")
        there = sorted((run / folder).iterdir()) if (run / folder).is_dir() else []
        files += [file for file in there if not file.name.startswith(told)]
    return {
        str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def differences(run: Run | Path, other: Run | Path) -> list[str]:
    """Say in what two finished runs differ; nothing where their images, maps and sums are equal.

    Rows, maps, channels, the whole set's numbers and pictures are compared value by value, and both
    runs are checked.
    """
    here, there = (open_run(each.path if isinstance(each, Run) else each) for each in (run, other))
    rows = list(here.rows()), list(there.rows())
    said = [f"row {a.path}" for a, b in zip(*rows, strict=False) if a != b]
    said += ["the number of rows"] * (len(rows[0]) != len(rows[1]))
    said += ["channels"] * (here.channels() != there.channels())
    said += ["the set's numbers"] * (here.summary != there.summary)
    said += ["maximised pictures"] * (list(here.maximised()) != list(there.maximised()))
    said += ["not complete"] * (not (here.complete and there.complete))
    return said + [str(fault) for each in (here, there) for fault in check(each.path)]
