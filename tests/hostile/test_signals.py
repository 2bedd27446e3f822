"""Ctrl-C, SIGTERM, and systems without threads or memory: every command ends, resumably."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.cli.signals import interruptible
from exporter.store import check, open_run
from tests.hostile.workplace import work_in
from tests.starting import Started, started

MODEL = """
import ctypes, time
from pathlib import Path
import torch
from torch import nn

batches = 0

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        global batches
        batches += len(x) == 2
        if batches == 3 and len(x) == 2 and Path("slow").exists():
            Path("there").touch()
            {slow}
        return self.head(self.block(x).mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net()
"""
SLOW = {
    "sleeps": "time.sleep(60)",
    "computes": "while True: x = x + 0",
    "is stuck in a library": "lock = ctypes.create_string_buffer(64); "
    "[ctypes.CDLL(None).pthread_mutex_lock(lock) for _ in range(2)]",
    "catches everything": """
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass""",
    "fails when interrupted": """
            try:
                time.sleep(60)
            except BaseException:
                raise RuntimeError("no time")""",
}
SETTINGS = """
run --model mine.py:net --images photos --out out --config run.toml --map gradcam --writer html
--shard-size 2 --batch-size 2
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of eight photographs."""
    (tmp_path / "slow").touch()
    work_in(tmp_path, monkeypatch, photographs=8)
    return tmp_path


def third_batch(*arguments: str, patience: float = 60) -> Started:
    """Start the command, and return it once the model is in its third batch."""
    process = started(*arguments, folder=Path.cwd(), patience=patience)
    deadline = time.monotonic() + 90

    def reached() -> bool:
        return Path("there").exists() and any(Path("out/shards").glob("0*"))

    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # the second shard is being stored
    return process


def ended(process: Started | subprocess.Popen[str], within: float) -> str:
    """Return what it said on standard error."""
    try:
        return process.communicate(timeout=within)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def exporter(arguments: list[str]) -> None:
    """Run a command to its end."""
    assert main(arguments) == 0


def resumed() -> None:
    """Go on with the run and check it."""
    before = {path.name: path.stat().st_mtime_ns for path in Path("out/shards").glob("0*")}
    assert 1 <= len(before) <= 2
    Path("slow").unlink()
    exporter([*SETTINGS.split(), "--resume"])
    after = {path.name: path.stat().st_mtime_ns for path in Path("out/shards").glob("0*")}
    assert len(after) == 4
    assert after.items() >= before.items()
    assert check("out") == ()


ONE = [(number, way) for number in (signal.SIGTERM, signal.SIGINT) for way in list(SLOW)[:2]]


@pytest.mark.parametrize(
    ("number", "way"),
    [ONE[0], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ONE[1:])],
)
def test_one_signal_ends_a_run_which_resumes(work: Path, number: int, way: str) -> None:
    (work / "mine.py").write_text(MODEL.format(slow=SLOW[way]))
    process = third_batch(*SETTINGS.split())
    process.send_signal(number)
    said = ended(process, 20)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted; what is done is kept")
    assert "Traceback" not in said
    resumed()


TWO = [(first, second) for first in ("INT", "TERM") for second in ("INT", "TERM")]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["is stuck in a library", "catches everything"])
@pytest.mark.parametrize(("first", "second"), TWO)
def test_a_second_signal_ends_a_run_at_once(work: Path, first: str, second: str, way: str) -> None:
    (work / "mine.py").write_text(MODEL.format(slow=SLOW[way]))
    process = third_batch(*SETTINGS.split())
    process.send_signal(signal.Signals[f"SIG{first}"])
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.Signals[f"SIG{second}"])
    said = ended(process, 5)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("ended at once; what is done is kept")
    assert "Traceback" not in said
    resumed()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["is stuck in a library", "catches everything"])
def test_one_signal_is_enough_in_the_end(work: Path, way: str) -> None:
    (work / "mine.py").write_text(MODEL.format(slow=SLOW[way]))
    process = third_batch(*SETTINGS.split(), patience=2)
    process.terminate()
    said = ended(process, 10)
    assert process.returncode == 130
    assert "Traceback" not in said
    resumed()


@pytest.mark.slow
def test_what_is_raised_instead_of_the_interrupt_is_a_sentence(work: Path) -> None:
    (work / "mine.py").write_text(MODEL.format(slow=SLOW["fails when interrupted"]))
    process = third_batch(*SETTINGS.split())
    process.terminate()
    said = ended(process, 20)
    assert process.returncode == 2
    assert "RuntimeError: no time (mine.py, line " in said
    resumed()


@pytest.mark.slow
def test_a_worker_ends_at_a_signal_and_goes_on(work: Path) -> None:
    (work / "mine.py").write_text(MODEL.format(slow="time.sleep(60)"))
    exporter(["plan", *SETTINGS.split()[1:]])
    process = third_batch("work", "out")
    process.terminate()
    said = ended(process, 20)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted; what is done is kept")
    Path("slow").unlink()
    exporter(["work", "out"])
    exporter(["finish", "out"])
    assert check("out") == ()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("command", ["finish", "render", "check"])
def test_every_command_ends_at_a_signal(work: Path, command: str, seconds: float) -> None:
    Path("slow").unlink()
    (work / "mine.py").write_text(MODEL.format(slow="pass"))
    exporter(["plan", *SETTINGS.split()[1:]])
    exporter(["work", "out"])
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter", command, "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    time.sleep(seconds)
    process.terminate()
    said = ended(process, 20)
    assert process.returncode in (0, 2, 130, -signal.SIGTERM)
    assert "Traceback" not in said
    exporter(["finish", "out"])
    exporter(["render", "out", "--writer", "html"])
    assert check("out") == ()


class Signalled:
    """Is signalled when it is deleted."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def signalled_in_a_callback() -> None:
    thing = threading.Event()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    assert reference() is None


@pytest.mark.parametrize("signalled", [Signalled, signalled_in_a_callback])
def test_an_interrupt_where_nothing_can_be_raised_is_raised_afterwards(
    signalled: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), interruptible(to_the_end=False):
        signalled()
        time.sleep(10)
    assert sys.unraisablehook is before
    assert capsys.readouterr().err == ""


def test_a_signal_after_the_command_ends_the_process_without_a_traceback() -> None:
    code = """
import signal, time
from exporter.cli.signals import interruptible
with interruptible(to_the_end=True):
    pass
signal.raise_signal(signal.SIGTERM)
time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")


def test_an_interrupt_in_an_exec_is_no_other_than_elsewhere() -> None:
    code = """
import sys
from exporter.cli import app
app.group.main = lambda *_, **__: exec("raise KeyboardInterrupt")
sys.exit(app.main())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"interrupted\n")


@pytest.mark.slow
def test_a_signal_to_a_child_of_the_model_is_none_to_the_run(work: Path) -> None:
    child = """
            import os, signal
            child = os.fork()
            if child == 0:
                time.sleep(60)
            time.sleep(0.2)
            for _ in range(3):
                os.kill(child, signal.SIGTERM)
                time.sleep(0.6)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)"""
    (work / "mine.py").write_text(MODEL.format(slow=child))
    process = third_batch(*SETTINGS.split(), patience=0.5)
    ended(process, 60)
    assert process.returncode == 0


# The limit of processes does not hold for root, so another user runs the command, with the right to
# read root's files.
NOBODY = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups "
    "--inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override"
)
LIMITS = [
    *(f"prlimit --as={megabytes}000000" for megabytes in (600, 2000, 4000, 4800, 7000)),
    *(f"{NOBODY} prlimit --nproc={count}" for count in (1, 2, 4, 8)),
]


def ended_or_terminated(process: subprocess.Popen[str]) -> str:
    """Return what it said; Python can wait forever for a thread that got no memory to begin.

    Two SIGTERMs then end it, and never is SIGKILL needed.
    """
    for patience in (60, 20, 20):
        try:
            return process.communicate(timeout=patience)[1]
        except subprocess.TimeoutExpired:
            process.terminate()
    process.kill()
    pytest.fail(f"it ignores SIGTERM; it said {process.communicate()[1]!r}")


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.rpartition(" ")[2])
def test_a_run_without_threads_or_memory_ends_and_is_gone_on_with(work: Path, limit: str) -> None:
    if "nproc" in limit and (os.getuid() or not shutil.which("setpriv")):
        pytest.skip("only root can become a user without processes")
    Path("slow").unlink()
    (work / "mine.py").write_text(MODEL.format(slow="pass"))
    run = [sys.executable, "-m", "exporter", *SETTINGS.split(), "--writer", "tensorboard"]
    limited = subprocess.Popen(
        [*limit.split(), *run],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "HOME": str(work)},
    )
    said = ended_or_terminated(limited)
    assert limited.returncode not in (1, 120), said
    if limited.returncode:
        exporter([*run[3:], "--resume"])
    assert check("out") == ()
    assert len(list(open_run("out").rows())) == 8


def test_signals_are_heard_in_a_process_that_has_many_files_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 1400 > hard >= 0:
        pytest.skip(f"the system lets a process open {hard} files")
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with pytest.raises(KeyboardInterrupt), interruptible(to_the_end=False):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed == []


def test_an_interrupt_while_the_command_is_loaded_is_one_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "exporter.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "exporter.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["exporter", "maps"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("exporter", run_name="__main__")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
