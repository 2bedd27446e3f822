"""What the command line prints: progress, outcomes, plans, sizes and durations."""

from __future__ import annotations

import shlex
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from exporter.errors import ConfigError, counted, reason
from exporter.records import FLAG_REASONS
from exporter.watch import Watch

if TYPE_CHECKING:
    from exporter.records import Plan, Written
    from exporter.run import Outcome
    from exporter.store import Run

_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that show what follows them in another order."""


class _Console(Console):
    """A console whose output may go nowhere: what is told on standard error ends no command."""

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command; rich's own would exit with 1."""
        raise BrokenPipeError

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, or raise `ConfigError` where standard output takes nothing (``/dev/full``).

        Raises:
            BrokenPipeError: if the reader of standard output went away (``| head``).
        """
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            if not self.stderr:
                raise
        except OSError as error:
            if not self.stderr:
                raise ConfigError(
                    f"standard output cannot be written: {reason(error)}; what is done is kept"
                ) from None


OUT = _Console(highlight=False, soft_wrap=True, emoji=False)
ERR = _Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def shown(text: str) -> str:
    r"""Make a path, a label or a reason safe for a terminal, which obeys control characters.

    >>> shown("a\nb\x1b[2J")
    'a b�[2J'
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) != "Cc":
        return "\ufffd" if character in _REORDERING else character
    return " " if character.isspace() else "\ufffd"


def marked(text: str) -> str:
    """Make text from elsewhere safe for a terminal and for rich's markup."""
    return escape(shown(text))


SAID = ("Random weights", "Calibration", "Confusion", "Dead channels", "Skipped")
"""Findings that the end of a run says; the others are said with more detail, or take a picture."""


def say_outcome(outcome: Outcome) -> None:
    """Print what a run came to: images, accuracy, reports, what was flagged and skipped."""
    plan, totals = outcome.run.plan, outcome.run.totals
    seconds = totals.seconds if totals else 0.0
    OUT.print(
        f"[green]✓[/] {totals.read if totals else 0} of {len(plan.images)} images, "
        f"{explained(plan)} "
        f"in {duration(seconds)}; "
        f"layers: {marked(', '.join(plan.explained))} ({marked(plan.layer_reason)})"
    )
    if totals and totals.accuracy is not None:
        OUT.print(f"accuracy {100 * totals.accuracy:.1f} % of {totals.labelled} labelled images")
    elif plan.label_match:
        OUT.print(marked(plan.label_match))
    # Not for every command: the report's templates take a while to import.
    from exporter.writers.html.findings import findings

    for finding in findings(outcome.run):
        if finding.about in SAID:
            OUT.print(f"{finding.about.lower()}: {marked(finding.text)}")
    say_written(outcome.run, outcome.written, outcome.failed)
    for row in outcome.profile:
        OUT.print(
            f"[bold]{marked(row.stage):<28}[/] {row.seconds:9.2f} s  {100 * row.share:4.0f} %  "
            f"{row.calls:,} × in {counted(row.threads, 'thread')}"
        )
    if totals and totals.flagged:
        for line in flagged_lines(totals.flagged):
            OUT.print(f"[yellow]flagged maps[/] {marked(line)}")
    for note in plan.notes:
        OUT.print(f"[yellow]note[/] {marked(note)}")
    for path, why in outcome.skipped[:20]:
        ERR.print(f"[yellow]skipped[/] {marked(path)}: {marked(why)}")
    if len(outcome.skipped) > 20:
        ERR.print(f"… and {len(outcome.skipped) - 20} more, listed in the report")


def flagged_lines(flagged: Mapping[str, int]) -> list[str]:
    """Say how many maps show nothing and why, one line per reason.

    Examples:
        >>> flagged_lines({"gradcam layer4 zero": 2, "layercam layer4 zero": 1})
        ['gradcam layer4: 2, layercam layer4: 1 (every value is zero: no activation there, or no \
gradient)']
    """
    by_flag: dict[str, list[str]] = {}
    for name, count in flagged.items():
        where, _, flag = name.rpartition(" ")
        by_flag.setdefault(flag, []).append(f"{where}: {count}")
    return [f"{', '.join(maps)} ({FLAG_REASONS[flag]})" for flag, maps in by_flag.items()]


def say_written(run: Run, written: Sequence[Written], failed: Sequence[tuple[str, str]]) -> None:
    """Print how to open what each writer made, and how to write again one that failed."""
    unread = len(run.totals.skipped) if run.totals else 0
    rest = f"; {unread} could not be read" if unread else ""
    for report in written:
        # A writer names a file of the run, or a command.
        is_file = report.open.startswith(f"{report.path}/")
        how = str(run.path / report.open) if is_file else report.open
        OUT.print(
            f"[bold]{report.writer:<12}[/] {marked(how)}  "
            f"({report.shown} of {report.total} images{rest})"
        )
        for note in report.notes:
            OUT.print(f"{'':<12} {marked(note)}")
    for name, why in failed:
        again = shlex.join(["exporter", "render", str(run.path), "--writer", name])
        ERR.print(
            f"[bold red]error:[/] the writer {name!r} failed: {marked(why)}; the run is intact, "
            f"and {marked(again)} writes it again"
        )


FIRST, EVERY = 5.0, 30.0
"""Seconds until the first line of progress, and between lines, where there is no terminal."""


class Bar(Watch):
    """A progress bar with the time left; without a terminal, a plain line now and then.

    A thread prints the lines: a step may take minutes, and says nothing meanwhile.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lines = threading.Thread(target=self._tell, daemon=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=ERR,
            transient=True,
            disable=not ERR.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        self._progress.start()
        if not ERR.is_terminal:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._lines.is_alive():
            self._lines.join()
        self._progress.stop()

    def begin(self, stage: str, total: int | None = None) -> None:
        """Replace the bar by the next stage's."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(shown(stage), total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, steps)

    def _tell(self) -> None:
        """Print where the work is, now and then, until it is over."""
        wait = FIRST
        while not self._over.wait(wait):
            wait = EVERY
            for task in self._progress.tasks[-1:]:
                line = marked(task.description)
                if task.total:
                    line += f": {task.completed:,.0f} of {task.total:,.0f}"
                    left = task.time_remaining
                    line += "" if left is None else f", about {duration(left)} left"
                ERR.print(line)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(marked(line))


def explained(plan: Plan) -> str:
    """Write what maps a run has: ``2 methods at 4 layers and 1 pixel method``."""
    pixel = sum(method.pixel for method in plan.methods)
    attended = sum(method.attended for method in plan.methods)
    at_layers = len(plan.methods) - pixel - attended
    # Not layers of the model, but what is made from several of them.
    layers = [name for name in plan.explained if name not in ("attention", "fused")]
    parts = [f"{counted(at_layers, 'method')} at {counted(len(layers), 'layer')}"] * bool(at_layers)
    parts += [counted(attended, "attention method")] * bool(attended)
    parts += [counted(pixel, "pixel method")] * bool(pixel)
    return " and ".join(parts) or "no maps"


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``4.2 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def size(count: int) -> str:
    """Write bytes as a person would: ``12 bytes``, ``3.4 MB``."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
