"""What figures, tables and supplements say of what they were made from."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import exporter
from exporter.comparison import Comparison
from exporter.errors import RunError
from exporter.paths import command_without_folders
from exporter.publish.choosing import Named
from exporter.store import Run
from exporter.store.anonymous import release


@dataclass(frozen=True)
class Provenance:
    """What something was made from, as it is told to whoever has it.

    Attributes:
        program: the exporter and its version.
        lines: a line per run, and last the command that makes it again, where it is known.
    """

    program: str
    lines: tuple[str, ...]

    @classmethod
    def of(cls, runs: Iterable[Named], command: str = "", *, unnamed: bool = False) -> Provenance:
        """Return what is told of runs: of an anonymous one the hash of its plan alone."""
        version = exporter.__version__
        program = f"exporter {release(version) if unnamed else version}"
        lines = tuple(_line(named, unnamed=unnamed) for named in runs)
        again = (f"made again by: {command}",) if command and not unnamed else ()
        return cls(program, (*lines, *again))


def _line(named: Named, *, unnamed: bool) -> str:
    digest = f"plan {named.run.files.sha256('plan.json')}"
    if unnamed:
        return digest
    plan = named.run.plan
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    return f"run {named.run.name}: {plan.model.described}, {digest}; {versions}"


def runs_behind(source: Run | Comparison) -> list[Named]:
    """Return the run, or those of a comparison that are still where they were compared."""
    if isinstance(source, Run):
        return [Named(source, source.name)]
    runs = []
    for told in source.contents.runs:
        try:
            runs.append(Named(source.open(told), told.name))
        except RunError:
            continue
    return runs


def this_command() -> str:
    """Return the command that is running, without folders."""
    return command_without_folders(shlex.join(["exporter", *sys.argv[1:]]))
