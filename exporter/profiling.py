"""What a run spends its time on: its stages by thread, as a table and as a trace.

The stages of the chain are those that whoever watches is told of; the steps of a batch, which
threads do beside one another, are the functions that carry `timed`. Nothing is measured unless a
`Profile` is entered; other processes that share the run are not seen.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from exporter.records import StageTime
from exporter.watch import Watch

_P = ParamSpec("_P")
_R = TypeVar("_R")

MOST_SPANS = 100_000
"""Spans that a trace holds; the table counts all."""

_current: Profile | None = None


class Profile(Watch):
    """Hears how a run goes on, measures what its stages take, and tells another watch.

    Args:
        watch: told everything, too.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._begun = time.perf_counter_ns()
        self._stage: tuple[str, int] | None = None
        self._turn = threading.Lock()
        self._spans: list[tuple[str, int, int, int]] = []
        self._sums: dict[str, tuple[int, int, set[int]]] = {}
        self._threads: dict[int, tuple[int, str]] = {}

    def __enter__(self) -> Profile:
        global _current  # noqa: PLW0603 - the threads of a run find it here
        _current = self
        return self

    def __exit__(self, *_: object) -> None:
        global _current  # noqa: PLW0603
        _current = None

    def begin(self, stage: str, total: int | None = None) -> None:
        """End the stage before, and begin one."""
        self._end_stage()
        self._stage = stage, time.perf_counter_ns()
        self._watch.begin(stage, total)

    def advance(self, steps: int = 1) -> None:
        """Tell the other watch."""
        self._watch.advance(steps)

    def say(self, line: str) -> None:
        """Tell the other watch."""
        self._watch.say(line)

    def memory_short(self, images: int) -> None:
        """Tell the other watch."""
        self._watch.memory_short(images)

    def add(self, name: str, start: int, stop: int) -> None:
        """Add a span of this thread, from and to a time in ns."""
        thread = threading.current_thread()
        with self._turn:
            number, _ = self._threads.setdefault(
                thread.ident or 0, (len(self._threads), thread.name)
            )
            calls, spent, threads = self._sums.get(name, (0, 0, set()))
            self._sums[name] = calls + 1, spent + stop - start, threads | {number}
            if len(self._spans) < MOST_SPANS:
                self._spans.append((name, number, start, stop))

    def table(self) -> tuple[StageTime, ...]:
        """Return what each stage took so far, in the order in which they first ended."""
        self._end_stage()
        whole = time.perf_counter_ns() - self._begun
        with self._turn:
            rows = [
                StageTime(name, calls, len(threads), spent / 1e9, spent / whole)
                for name, (calls, spent, threads) in self._sums.items()
            ]
        return tuple(rows)

    def trace(self) -> bytes:
        """Return the spans as Chrome's trace events, which Perfetto and chrome://tracing open."""
        with self._turn:
            events: list[dict[str, Any]] = [
                {"name": "thread_name", "ph": "M", "pid": 1, "tid": number, "args": {"name": name}}
                for number, name in self._threads.values()
            ]
            events += [
                {
                    "name": name,
                    "ph": "X",
                    "pid": 1,
                    "tid": thread,
                    "ts": (start - self._begun) / 1e3,
                    "dur": (stop - start) / 1e3,
                }
                for name, thread, start, stop in self._spans
            ]
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode()

    def _end_stage(self) -> None:
        if self._stage is not None:
            self.add(*self._stage, time.perf_counter_ns())
            self._stage = None


def timed(name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Have what a function takes added to the profile of the run, where there is one.

    Args:
        name: of the step, in the table and the trace.
    """

    def wrap(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def measured(*args: _P.args, **options: _P.kwargs) -> _R:
            profile = _current
            if profile is None:
                return function(*args, **options)
            start = time.perf_counter_ns()
            try:
                return function(*args, **options)
            finally:
                profile.add(name, start, time.perf_counter_ns())

        return measured

    return wrap
