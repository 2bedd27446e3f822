"""Running W&B's processes: what they see of the caller's environment, and the pipe to one.

W&B is never imported in the caller's process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from exporter.errors import WriterError

WORK = ".work"
"""The folder, in the sink's, for whatever W&B writes on the way; removed at the end."""

_BATCH = 256
_IDENTITY = (
    "API_KEY",
    "BASE_URL",
    "APP_URL",
    "IDENTITY_TOKEN_FILE",
    "CREDENTIALS_FILE",
    "CONFIG_DIR",
    "INSECURE_DISABLE_SSL",
    "HTTP_TIMEOUT",
    "X_EXTRA_HTTP_HEADERS",
)


def environment(work: Path, *, online: bool) -> dict[str, str]:
    """Return the environment of W&B's processes: the caller's, and W&B writes into ``work``.

    The caller's own W&B settings (a run's id, a sweep, a service) are left out, so that they are
    not taken for this run's. Online, who and where the user is stays: key, server, and the settings
    of ``wandb login``.

    Args:
        work: the folder for whatever W&B writes.
        online: whether a server is spoken to.
    """
    kept = {f"WANDB_{name}" for name in _IDENTITY} if online else set()
    found = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith("WANDB_")
    }
    found |= {f"WANDB_{name}": str(work) for name in ("DIR", "DATA_DIR", "CACHE_DIR")}
    if not online:
        found["WANDB_CONFIG_DIR"] = str(work)
    found["WANDB_ERROR_REPORTING"] = "false"
    found["EXPORTER_WANDB_TEMP"] = str(work / "temp")
    # What this process can import, the other can too, wherever it was found.
    found["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return found


class Session:
    """The other end of `exporter.writers.wandb.session`."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process = process
        self._errors = errors
        self._rows: list[list[Any]] = []

    def send(self, command: dict[str, Any]) -> None:
        """Send a command, after the rows that wait."""
        self._flush()
        self._put(command)

    def table(self, name: str, columns: Iterable[tuple[str, str]]) -> None:
        """Begin a table."""
        self.send({"do": "table", "name": name, "columns": list(columns)})

    def row(self, cells: list[Any]) -> None:
        """Add a row to the table."""
        self._rows.append(cells)
        if len(self._rows) == _BATCH:
            self._flush()

    def finish(self) -> dict[str, Any]:
        """End the run and return what the program answers."""
        self.send({"do": "finish"})
        return self._answer()

    def _flush(self) -> None:
        if self._rows:
            self._put({"do": "rows", "rows": self._rows})
            self._rows = []

    def _put(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except OSError:
            # It ended early, and its answer says why.
            self._answer()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._process.wait()
        if not line:
            self._errors.seek(0)
            said = [text.strip() for text in self._errors if text.strip()]
            raise WriterError(
                f"W&B's process ended early: {said[-1] if said else 'no reason given'}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WriterError(f"W&B refused the run: {answer['error']}")
        return answer


@contextmanager
def session(folder: Path) -> Iterator[Session]:
    """Start the program with its paths relative to ``folder``; it has ended when this returns.

    Args:
        folder: the sink's folder, with ``WORK/temp`` in it.
    """
    work = (folder / WORK).resolve()
    program = Path(__file__).resolve().with_name("session.py")
    with (
        (work / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            # -P: this folder holds a wandb.py of its own, which must not be found as W&B.
            [sys.executable, "-P", str(program)],
            cwd=folder,
            env=environment(work, online=False),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for this process, which ends the other.
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Session(process, errors)
        finally:
            if process.poll() is None:
                process.kill()
