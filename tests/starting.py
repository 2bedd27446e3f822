"""The command line in a process of its own, without the seconds that a start takes.

`started` asks a process that has imported the exporter for a fork of itself. Tests of what happens
while modules are imported, or to a process that lacks something from the start, start their own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


class Started:
    """A command that runs, with the part of `subprocess.Popen` that tests need.

    Attributes:
        returncode: how it ended, minus the signal that ended it; None while it runs.
    """

    def __init__(self, parent: subprocess.Popen[bytes], pid: int, said: tuple[Path, Path]) -> None:
        self._parent, self.pid, self._said = parent, pid, said
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        return self._ended(0)

    def _ended(self, within: float) -> int | None:
        stdout = self._parent.stdout
        assert stdout is not None
        if self.returncode is None and select.select([stdout], [], [], within)[0]:
            self.returncode = int(stdout.readline())
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end and return what it wrote to standard output and standard error."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired("exporter", timeout)
        out, err = (file.read_text("utf-8") for file in self._said)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL and wait."""
        self.send_signal(signal.SIGKILL)
        self._ended(20)


@cache
def _parent() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.starting"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # what is read ahead would hide from `select`
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def started(*arguments: str, folder: Path, patience: float = 60) -> Started:
    """Start the command in the working directory; one at a time.

    Args:
        arguments: what follows ``exporter``.
        folder: where to keep what it writes.
        patience: seconds that one signal has, before it ends the process by force.
    """
    said = (folder / f"{time.monotonic_ns()}.out", folder / f"{time.monotonic_ns()}.err")
    asked = {
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "said": [str(file) for file in said],
        "patience": patience,
    }
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(f"{json.dumps(asked)}\n".encode())
    return Started(parent, int(parent.stdout.readline()), said)


def ran(
    *arguments: str, at: Path, path: tuple[Path, ...] = (), patience: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder to its end, as on a machine where other things are installed.

    Args:
        arguments: what follows ``exporter``.
        at: the working directory.
        path: folders that modules and entry points are found in, too.
        patience: seconds that it may take.
    """
    with tempfile.TemporaryDirectory() as kept, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (*path, ROOT))))
        patch.chdir(at)
        process = started(*arguments, folder=Path(kept))
        out, err = process.communicate(patience)
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _fork() -> dict[str, Any] | None:
    """Fork for each line that is read; return its content in the fork, and None in the end."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return dict(json.loads(line))
        _tell(child)
        _tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return None


def _main() -> None:
    # pyarrow imports pandas where it is installed, and the plug-in brings most that writers need.
    import pandas as pd  # noqa: F401
    import tensorboard.plugins.hparams.summary_v2  # noqa: F401
    import torch  # noqa: F401

    import exporter.run  # noqa: F401
    from exporter.cli import main, signals

    asked = _fork()
    if asked is None:
        return
    os.environ.update(asked["environment"] | {"OMP_NUM_THREADS": "1"})
    os.chdir(asked["folder"])
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for number, file in enumerate([os.devnull, *asked["said"]]):
        opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    # Whatever starts the tests may ignore it, as a shell does for what it runs beside itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals.PATIENCE = asked["patience"]
    sys.argv = ["exporter", *asked["arguments"]]
    sys.exit(main())


if __name__ == "__main__":
    _main()
