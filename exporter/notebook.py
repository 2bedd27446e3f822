"""Progress in a notebook: one line below the cell, which is replaced as the work goes on."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from html import escape
from importlib import import_module
from typing import Any

from exporter.console import duration
from exporter.watch import Watch

EVERY = 0.2
"""Seconds between changes of the line."""


def watched(watch: Watch | None) -> AbstractContextManager[Watch]:
    """Return who is told how the work goes on: whoever is given, or the notebook, or nobody."""
    if watch is not None:
        return nullcontext(watch)
    # Whoever has no kernel has not imported it either.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return NotebookLine() if hasattr(shell, "kernel") else nullcontext(Watch())


class NotebookLine(Watch):
    """The line: what is done, how far, and how long it may still take."""

    def __init__(self) -> None:
        shown: Any = import_module("IPython.display")
        self._wrap = shown.HTML
        self._stage, self._done = "starting", 0
        self._total: int | None = None
        self._first = self._begun = self._shown = time.monotonic()
        self._handle: Any = shown.display(shown.HTML("starting"), display_id=True)

    def __enter__(self) -> NotebookLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        spent, self._total = duration(time.monotonic() - self._first), None
        self._show(f"{self._stage}: stopped after {spent}" if kind else f"done in {spent}")

    def begin(self, stage: str, total: int | None = None) -> None:
        """Write the next stage's name."""
        self._stage, self._total, self._done = stage, total, 0
        self._begun = time.monotonic()
        self._show(self._text())

    def advance(self, steps: int = 1) -> None:
        """Count steps, and write how far it is if the last time is a while ago."""
        self._done += steps
        if time.monotonic() - self._shown >= EVERY:
            self._show(self._text())

    def say(self, line: str) -> None:
        """Print a line."""
        print(line)  # noqa: T201

    def _text(self) -> str:
        if not self._total:
            return self._stage
        text = f"{self._stage}: {self._done:,} of {self._total:,}"
        if 0 < self._done < self._total:
            each = (time.monotonic() - self._begun) / self._done
            text += f", about {duration(each * (self._total - self._done))} left"
        return text

    def _show(self, text: str) -> None:
        self._shown = time.monotonic()
        bar = f'<progress value="{self._done}" max="{self._total}"></progress> '
        self._handle.update(self._wrap((bar if self._total else "") + escape(text)))
