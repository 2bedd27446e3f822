"""Running W&B's processes: what they see of the caller's environment, and for how long they run.

W&B is never imported in the caller's process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import WriterError

WORK = ".work"
"""The folder, in the writer's, for whatever W&B writes on the way; removed at the end."""

_LINUX = Path("/proc/self/cwd")
HERE = _LINUX if _LINUX.exists() else None
"""A path that means, in each process, the folder it runs in; None where the system has none.

W&B makes the paths that it logs absolute. Below this one they hold wherever the folder is moved,
and say nothing of this machine.
"""

NO_KEY = "W&B has no key to go online with; run wandb login or set WANDB_API_KEY"
KEYLESS = 77
"""Exit status of the program ``remote.py`` where there is none."""

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

# Without these a dead network is retried for hours; the offline copy can be sent again at any time.
PATIENCE = {"RETRY_MAX": "4", "RETRY_WAIT_MIN_SECONDS": "0.5", "RETRY_WAIT_MAX_SECONDS": "8"}


class NoKeyError(WriterError):
    """Nobody is logged in to W&B."""


@contextmanager
def work_folder(folder: Path) -> Iterator[None]:
    """Have the folder `WORK` in a writer's folder inside the block."""
    (folder / WORK / "temp").mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder / WORK, ignore_errors=True)


def environment(folder: Path, *, online: bool) -> dict[str, str]:
    """Return the environment of W&B's processes: the caller's, and W&B writes into ``folder``.

    The caller's own W&B settings (a run's id, a sweep, a service) are left out, so that they are
    not taken for this run's. Online, who and where the user is stays: key, server, and the settings
    of ``wandb login``.
    """
    work = (folder / WORK).resolve()
    kept = {f"WANDB_{name}" for name in _IDENTITY} if online else set()
    values = {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith("WANDB_")
    }
    # A run is logged in WANDB_DIR/wandb, which is ``folder``; a sync has nothing to leave there.
    values["WANDB_DIR"] = str(work if online else work.parents[1])
    values["WANDB_DATA_DIR"] = str(HERE or work.parent)
    values["WANDB_CACHE_DIR"] = str(work)
    if online:
        channels = ("GRAPHQL", "FILE_TRANSFER", "FILE_STREAM")
        values |= {
            f"WANDB__{c}_{name}": value for c in channels for name, value in PATIENCE.items()
        }
    else:
        values["WANDB_CONFIG_DIR"] = str(work)
    values["WANDB_ERROR_REPORTING"] = "false"
    values["EXPORTER_WANDB_TEMP"] = str(work / "temp")
    # What this process can import, the other can too, wherever it was found.
    values["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    return values


def run_python(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> tuple[int, str, str]:
    """Run Python in a folder until it ends; it has ended when this returns, however it does.

    Returns:
        Exit status, standard output and standard error.

    Raises:
        WriterError: if it takes longer than ``timeout`` seconds.
    """
    # Files, because W&B's service inherits them and would keep a pipe open.
    with (
        (folder / WORK / "output.txt").open("w+", encoding="utf-8", errors="replace") as output,
        (folder / WORK / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            # -P: the folder of the program has modules that must not be taken for others.
            [sys.executable, "-P", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            # Ctrl-C is for this process, which ends the other.
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise WriterError(f"W&B did not finish within {timeout:.0f} seconds") from None
        finally:
            if process.poll() is None:
                process.kill()
        output.seek(0)
        errors.seek(0)
        return status, output.read(), errors.read()


def run_remote(arguments: Sequence[str], folder: Path, timeout: float) -> tuple[int, str, str]:
    """Run the program that talks to W&B's server; takes and returns what `run_python` does.

    Raises:
        NoKeyError: if nobody is logged in to W&B.
        WriterError: if it takes too long.
    """
    program = str(Path(__file__).with_name("remote.py"))
    told = run_python((program, *arguments), folder, environment(folder, online=True), timeout)
    if told[0] == KEYLESS:
        raise NoKeyError(NO_KEY)
    return told


def last_line(said: str, status: int) -> str:
    """Return the last line of what a process said, or else its exit status."""
    lines = said.strip().splitlines() or [f"W&B's process ended with status {status}"]
    return lines[-1]
