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
            ``columns`` as (name, kind) and its ``rows``; ``summary``, values by name.
    """
    # The temporary files of this process only: W&B's service puts a socket in TMPDIR, and the path
    # of a socket may not be longer than about 100 bytes.
    tempfile.tempdir = os.environ["EXPORTER_WANDB_TEMP"]
    # W&B takes pandas where it finds it, for a third of a second, and nothing here is a data frame.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    import wandb

    settings = {name: _SETTINGS[name] for name in _SETTINGS if name in wandb.Settings.model_fields}
    run = wandb.init(mode="offline", settings=wandb.Settings(**settings), **job["init"])
    run.log({table["name"]: _table(wandb, table) for table in job["tables"]})
    run.summary.update(job["summary"])
    run.finish()
    wandb.teardown()


def _table(wandb: Any, table: dict[str, Any]) -> Any:
    types = {"text": str, "number": float, "flag": bool, "picture": wandb.Image}
    kinds = [kind for _, kind in table["columns"]]
    logged = wandb.Table(
        columns=[name for name, _ in table["columns"]], dtype=[types[kind] for kind in kinds]
    )
    for cells in table["rows"]:
        logged.add_data(
            *(
                wandb.Image(cell) if kind == "picture" and cell is not None else cell
                for kind, cell in zip(kinds, cells, strict=True)
            )
        )
    return logged


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main()
