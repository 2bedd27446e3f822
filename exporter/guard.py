"""What the user's code raises becomes an error of one sentence, with their file and line."""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TypeVar

from exporter.errors import BackwardError, ExporterError, ModelError, one_line

_T = TypeVar("_T")

AGAIN = "fix it and try again"
"""What to do about code that fails before anything is computed."""

FAILURES = (Exception, SystemExit)
"""What the user's code may raise, for places that go on whatever it is."""

_SHORTAGES = (
    "DefaultCPUAllocator",
    "out of memory",
    "ALLOC_FAILED",
    "bad_alloc",
    "nsufficient memory",
    "annot allocate memory",
    "not enough memory",
)
"""What PyTorch, its libraries and OpenCV say where memory runs out, as a RuntimeError."""

_TORCH = ("torch", "torchvision")
_USER, _LIBRARY, _OURS = range(3)


@contextmanager
def user_code(
    who: str,
    on: str = "",
    *,
    error: type[ExporterError] = ModelError,
    advice: str = "",
    memory: str = "",
) -> Iterator[None]:
    """Turn whatever the user's code raises into an `ExporterError`; wrap each call of it in this.

    The sentence says whose code failed, in which layer of a model, on what, with what, where in
    their files, and what to do. An `ExporterError` passes as it is, but for one from inside that
    does not say on what; so does `KeyboardInterrupt`.

    Args:
        who: whose code it is: ``the model``, ``the factory 'net.py:build'``.
        on: what it was given: ``the image 'cat.jpg'``.
        error: the kind of error to raise.
        advice: what to do, such as ``fix it and go on with --resume``.
        memory: what to do instead where memory ran out (see `is_shortage`).

    Raises:
        ExporterError: of the given kind; its cause is what was raised.

    Examples:
        >>> with user_code("the model", "the image 'cat.jpg'", advice="fix it"):
        ...     {}["x"]
        Traceback (most recent call last):
        exporter.errors.ModelError: the model failed on the image 'cat.jpg': KeyError: 'x' \
(<doctest exporter.guard.user_code[0]>, line 2); fix it
    """
    try:
        yield
    except BaseException as failure:
        cause = failure
        if on and isinstance(failure, ExporterError) and failure.who and failure.__cause__:
            who, error, cause = failure.who, type(failure), failure.__cause__
        elif passes(failure):
            raise
        if memory and is_shortage(cause):
            advice = memory
        raised = error(sentence(who, cause, on, advice))
        raised.who = "" if on else who
        raise raised from cause


def passes(failure: BaseException) -> bool:
    """Say whether `user_code` leaves a failure as it is.

    A generator of ours that is closed in the block is none; what the user's code raises may be.
    """
    if isinstance(failure, GeneratorExit):
        return _USER not in _lines(failure)
    return isinstance(failure, (ExporterError, KeyboardInterrupt))


def is_shortage(failure: BaseException | None) -> bool:
    """Say whether memory ran out, on the host or on a device, in whatever library's words."""
    if isinstance(failure, ExporterError):
        return is_shortage(failure.__cause__)
    if isinstance(failure, OSError):
        return failure.errno == errno.ENOMEM
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return True
    said = one_line(failure) if isinstance(failure, Exception) else ""
    words = isinstance(failure, RuntimeError) or type(failure).__module__ == "cv2"
    return words and any(shortage in said for shortage in _SHORTAGES)


def with_graph(run: Callable[[bool], _T]) -> _T:
    """Run with a graph, or without one where a model runs only so; ``run`` is told which."""
    try:
        return run(True)
    except RuntimeError as error:  # what autograd refuses
        if is_shortage(error):
            raise
    return run(False)


@contextmanager
def backward() -> Iterator[None]:
    """Turn what autograd refuses inside the block into a `BackwardError` with what mends it.

    What code of the user's raises in a backward, anything but a RuntimeError, passes as it is.

    Raises:
        BackwardError: where the backward fails, but for a shortage of memory.
    """
    try:
        yield
    except RuntimeError as failure:
        if is_shortage(failure):
            raise
        raise BackwardError(
            f"the model's backward pass fails ({_told_of_backward(failure)})"
        ) from failure


def _told_of_backward(failure: RuntimeError) -> str:
    said = str(failure)
    if "modified by an inplace operation" in said:
        which = re.search(r"output \d+ of (\w+?)(Backward\d*)?,", said)
        what = f"what {which[1]} gave or took" if which else "a tensor that it needs"
        return f"{what} is overwritten in place; let the model work on a copy, without inplace=True"
    if "use_reentrant=True" in said:
        return "a checkpoint of it is reentrant; build it with use_reentrant=False"
    return told(failure)


def sentence(who: str, failure: BaseException, on: str = "", advice: str = "") -> str:
    """Say whose code failed, in which layer, on what, with what and where, and what to do."""
    layer = _layer(failure)
    where = f" in its layer {layer!r}" if layer else ""
    given = f" on {on}" if on else ""
    return f"{who} failed{where}{given}: {told(failure)}{advice and f'; {advice}'}"


def told(failure: BaseException) -> str:
    """Say what was raised, and the user's file and line: ``KeyError: 'x' (net.py, line 12)``."""
    if isinstance(failure, RuntimeError) and isinstance(failure.__cause__, StopIteration):
        failure = failure.__cause__  # a generator of ours was on the way
    if isinstance(failure, SystemExit):
        return f"it called sys.exit({failure.code!r}){_place(failure)}"
    return f"{one_line(failure)}{_place(failure)}"


def why(failure: BaseException) -> str:
    """Say why something failed: our own sentence, or whatever else was raised (see `told`)."""
    return str(failure) if isinstance(failure, ExporterError) else told(failure)


def _place(failure: BaseException) -> str:
    """Say where it was raised: the innermost line of the user's, of a library or of ours.

    Where a layer of torch's own failed, its name is all there is to say.
    """
    if isinstance(failure, SyntaxError) and failure.filename:
        return f" ({_shown(failure.filename)}, line {failure.lineno})"
    through = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(failure.__traceback__)}
    if isinstance(failure, TypeError) and {*map(_owner, through)} == {_OURS}:
        return ""  # theirs does not take what we call it with
    lines = _lines(failure)
    return next((lines[owner] for owner in (_USER, _LIBRARY, _OURS) if owner in lines), "")


def _lines(failure: BaseException) -> dict[int | None, str]:
    """Return the innermost line of each owner's that a failure came through."""
    lines: dict[int | None, str] = {}
    for frame, line in traceback.walk_tb(failure.__traceback__):
        file = frame.f_code.co_filename
        if _calls_a_module(frame):
            lines.pop(_OURS, None)
        elif file != __file__:
            lines[_owner(file)] = f" ({_shown(file)}, line {line})"
    return lines


def _layer(failure: BaseException) -> str:
    """Return the name of the innermost layer whose call failed; ``""`` for the model itself."""
    called = [
        frame.f_locals["self"]
        for frame, _ in traceback.walk_tb(failure.__traceback__)
        if _calls_a_module(frame)
    ]
    try:
        names = {module: name for name, module in called[0].named_modules()} if called else {}
        return next((names[module] for module in reversed(called) if module in names), "")
    except FAILURES:  # the user's class may do anything
        return ""


def _calls_a_module(frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_name == "_call_impl" and Path(code.co_filename).match("torch/nn/modules/*.py")


@cache
def _owner(file: str) -> int | None:
    """Say whose a file is; None for torch's and Python's own."""
    path = Path(file)
    if path.is_relative_to(Path(__file__).parent):
        return _OURS
    installed = [place for place in path.parents if place.name.endswith("-packages")]
    if installed:
        return None if path.relative_to(installed[0]).parts[0] in _TORCH else _LIBRARY
    python = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    own = file.startswith("<frozen ") or any(path.is_relative_to(place) for place in python)
    return None if own else _USER


def _shown(file: str) -> str:
    """Shorten a path to what may be recorded: relative to the current folder, or its name."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):  # the current folder is gone, or the file is elsewhere
        return path.name
