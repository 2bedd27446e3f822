"""The program that talks to W&B: it logs one job, a file of JSON, as one offline run.

The writer runs this file as a process of its own, so that the caller's environment, W&B run,
threads and signals are left alone. Only the standard library and W&B are imported here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

# A version that lacks one of them has nothing to switch off there.
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("program_relpath", "program_abspath", "username", "email", "docker"), ""),
    **dict.fromkeys(("silent", "disable_git", "disable_code", "disable_job_creation"), True),
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info"), True),
    **dict.fromkeys(("save_code", "symlink", "x_save_requirements"), False),
    "host": "not-recorded",
    "program": "exporter",
    "x_executable": "python",
    "console": "off",
}


def main() -> None:
    """Log the job that the first argument names; standard output says why, if it fails."""
    # What W&B prints goes to standard error, so that the reason is alone on standard output.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        record(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=answer, flush=True)
        # W&B's own exit hooks would wait for a run that failed half-way.
        os._exit(1)


def record(job: dict[str, Any]) -> None:
    """Log a job into one offline run.

    Args:
        job: ``init``, arguments of ``wandb.init``; ``tables``, each with its ``name``, its
            ``columns`` as (name, kind), its ``rows`` and the ``chart`` of it; ``metrics``, numbers
            over ``step``; ``media``, pictures by name; ``summary``, values by name; the ``prefix``
            of all these names; ``day``, the seconds since 1970 at which W&B is to believe that it
            begins.
    """
    if job.get("day") is not None:
        _begin_at(job["day"])
    # The temporary files of this process only: W&B's service puts a socket in TMPDIR, and the path
    # of a socket may not be longer than about 100 bytes.
    tempfile.tempdir = os.environ["EXPORTER_WANDB_TEMP"]
    # W&B takes pandas where it finds it, for a third of a second, and nothing here is a data frame.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    import wandb

    settings = {name: _SETTINGS[name] for name in _SETTINGS if name in wandb.Settings.model_fields}
    run = wandb.init(mode="offline", settings=wandb.Settings(**settings), **job["init"])
    log(run, job, Path())
    run.finish()
    wandb.teardown()


def log(run: Any, job: dict[str, Any], folder: Path) -> None:
    """Log a job into a run, which stays open."""
    import wandb

    prefix = job["prefix"]
    logged: dict[str, Any] = {}
    for table in job["tables"]:
        name, chart = prefix + table["name"], table["chart"]
        logged[name] = _table(wandb, table, folder)
        if chart is not None:
            x, y, title = chart
            plain = _table(wandb, table, folder)
            logged[f"{name} chart"] = wandb.plot.line(plain, x, y, title=title)
    for name, cell in job["media"].items():
        logged[prefix + name] = _picture(wandb, cell, folder, {})
    # Never ``step=``: that is the run's own count.
    run.define_metric(f"{prefix}step")
    run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")
    run.log({**{prefix + name: value for name, value in job["metrics"].items()}, **logged})
    run.summary.update({prefix + name: value for name, value in job["summary"].items()})


def _table(wandb: Any, table: dict[str, Any], folder: Path) -> Any:
    types = {"text": str, "number": float, "flag": bool, "picture": wandb.Image}
    kinds = [kind for _, kind in table["columns"]]
    logged = wandb.Table(
        columns=[name for name, _ in table["columns"]], dtype=[types[kind] for kind in kinds]
    )
    pictures: dict[str, Any] = {}  # a picture that several rows have is read once
    for cells in table["rows"]:
        logged.add_data(
            *(
                _picture(wandb, cell, folder, pictures)
                if kind == "picture" and cell is not None
                else cell
                for kind, cell in zip(kinds, cells, strict=True)
            )
        )
    return logged


def _picture(wandb: Any, cell: Any, folder: Path, pictures: dict[str, Any]) -> Any:
    """Return a picture with what lies over it; every class of a layer has to be known."""
    told: dict[str, Any] = {"path": cell} if isinstance(cell, str) else cell
    path = told["path"]
    if path in pictures:
        return pictures[path]
    over: dict[str, dict[str, Any]] = {}
    classes: dict[int, str] = {}
    for kind in ("boxes", "masks"):
        for name, layer in told.get(kind, {}).items():
            labels = {int(index): label for index, label in layer["class_labels"].items()}
            place = {"path": str(folder / layer["path"])} if "path" in layer else {}
            over.setdefault(kind, {})[name] = {**layer, **place, "class_labels": labels}
            classes |= labels
    caption = told.get("caption")
    known = [{"id": index, "name": name} for index, name in classes.items()] or None
    pictures[path] = wandb.Image(str(folder / path), caption=caption, classes=known, **over)
    return pictures[path]


def _begin_at(seconds: float) -> None:
    """Have W&B name and stamp the run by the day alone: this process's clock begins there."""
    real, shift = time.time, seconds - time.time()
    time.time = lambda: real() + shift
    os.environ["TZ"] = "UTC"
    if hasattr(time, "tzset"):
        time.tzset()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main()
