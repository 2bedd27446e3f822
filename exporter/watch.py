"""Who is told how the work goes on."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """What is told how the work goes on; every method may be called from any thread."""

    def begin(self, stage: str, total: int | None = None) -> None:
        """Say that a stage of ``total`` steps begins (None: nobody knows how many)."""

    def advance(self, steps: int = 1) -> None:
        """Say that so many steps of the stage are done."""

    def say(self, line: str) -> None:
        """Say one line that the user should read."""


class Silence:
    """The watch of whoever does not want to be told."""

    def begin(self, stage: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""
