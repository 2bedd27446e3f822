"""Ctrl-C and SIGTERM: the first ends a command resumably, and the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

from exporter.errors import INTERRUPTED

PATIENCE = 60.0
"""Seconds that a command has to end in after the first signal."""
_TOGETHER = 0.5
"""Seconds within which signals count as one: a launcher passes on what the terminal sends too."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_END, _AGAIN = b"\0", b"\xff"
"""What the watcher is told beside signals: to end, and that an interrupt was lost."""
_PAUSE = 0.05
"""Seconds until a lost interrupt is raised again."""
_KEPT: list[socket.socket] = []
"""Sockets that have to stay open while the process ends."""


@contextlib.contextmanager
def interruptible(*, to_the_end: bool) -> Iterator[None]:
    """Raise `KeyboardInterrupt` at SIGTERM as at Ctrl-C, and end the process at a second signal.

    The process ends too if the first signal has not ended the command in `PATIENCE` seconds: the
    main thread may be in a library that waits for a thread that the system did not start. A run
    folder is whole at any moment, so that nothing is lost but the shard that is being computed.

    Args:
        to_the_end: whether the process ends with the command: from then on, while Python waits for
            threads, a signal ends it at once, since nothing is left that could catch an interrupt;
            otherwise signals are afterwards the caller's, as they were.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    watcher = threading.Thread(target=_end_after_signals, args=(heard,), daemon=True)
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not (interrupted and watcher.is_alive()):
            interrupted = True
            raise KeyboardInterrupt

    def end(*_: object) -> None:
        if not interrupted:  # at the next one the watcher ends the process
            os._exit(INTERRUPTED)

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        nonlocal interrupted
        # It came where Python lets nothing be raised: in a weak reference's callback, in __del__.
        if interrupted and unraisable.exc_type is KeyboardInterrupt:
            interrupted = False
            with contextlib.suppress(OSError):
                told.send(_AGAIN)
        else:
            hook(unraisable)

    if threading.current_thread() is not threading.main_thread():  # the caller owns the signals
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, lost
    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    # Python writes to it where the signal arrives, whatever the main thread is in.
    earlier = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    with contextlib.suppress(RuntimeError):  # no more threads may be started
        watcher.start()
    try:
        yield
    finally:
        if to_the_end:
            for number in _SIGNALS:
                signal.signal(number, end)
            _KEPT.extend((heard, told))
        else:
            signal.set_wakeup_fd(earlier)
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook
            told.send(_END)
            if watcher.ident is not None:
                watcher.join()


def _end_after_signals(heard: socket.socket) -> None:
    """End the process at the second signal, or a while after the first; return where told to."""
    first = None
    while True:
        heard.settimeout(None if first is None else PATIENCE)
        try:
            number = heard.recv(1)
        except TimeoutError:
            break
        if number == _END:
            return
        if number == _AGAIN:
            time.sleep(_PAUSE)
            os.kill(os.getpid(), signal.SIGINT)
        if number[0] in _SIGNALS:
            if first is not None and time.monotonic() - first > _TOGETHER:
                break
            first = first or time.monotonic()
    with contextlib.suppress(OSError, AttributeError, ValueError):
        # Not through its buffer, which the main thread may hold; 2 may be a pipe of `quiet_codecs`.
        there = sys.stderr.fileno()
        os.write(there, b"ended at once; what is done is kept: --resume continues from it\n")
    os._exit(INTERRUPTED)


def _forget() -> None:
    """Let no signal to a child of this process be taken for one to this process."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
