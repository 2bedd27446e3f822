"""Tables for a paper, from a run or a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from exporter.comparison import Comparison, is_comparison, open_comparison
from exporter.errors import ConfigError, RunError, choices, reason
from exporter.publish.of_comparisons import OF_COMPARISONS
from exporter.publish.of_runs import OF_RUNS
from exporter.publish.provenance import Provenance, runs_behind
from exporter.publish.tabular import Table
from exporter.store import Run, open_run
from exporter.store import anonymous as anonymous_view

_Make = TypeVar("_Make")


def table(
    source: str | Path | Run | Comparison,
    what: str = "",
    *,
    anonymous: bool = False,
    out: str | Path | None = None,
    command: str = "",
) -> Table:
    """Return numbers of a run or a comparison as a table for a paper.

    Args:
        source: a run folder or a comparison folder.
        what: of a run ``accuracy``, ``methods``, ``agreement``, ``faithfulness`` or ``classes``;
            of a comparison ``accuracy``, ``flips``, ``similarity``, ``measures``, ``classes`` or
            ``layers``. The first if it is empty.
        anonymous: identify runs only by the hash of their plan, for double-blind review.
        out: a file to write: ``.tex``, ``.md`` or ``.csv``. It says what it was made from; for a
            ``.csv`` this is in ``.csv-metadata.json`` beside it (CSV on the Web).
        command: the command that makes it again, which the file then contains.

    Raises:
        RunError: if there is neither, or it does not hold these numbers.
        ConfigError: if there is no such table, or the file has another suffix.

    Examples:
        >>> from exporter.demo import example_run
        >>> table(example_run(), "methods").names
        ('Method', 'Layer')
    """
    if not isinstance(source, Run | Comparison):
        source = open_comparison(source) if is_comparison(source) else open_run(source)
    provenance = Provenance.of(runs_behind(source), command, unnamed=anonymous)
    source = _unnamed(source) if anonymous else source
    if isinstance(source, Run):
        drawn = _named(OF_RUNS, what, "a run")(source)
    else:
        drawn = _named(OF_COMPARISONS, what, "a comparison")(source)
    if not drawn.rows:
        raise RunError(f"{str(source.path)!r} has no numbers for the table {what or 'accuracy'!r}")
    drawn = drawn.known()
    if out is not None:
        _write(drawn, Path(out), provenance)
    return drawn


def _unnamed(source: Run | Comparison) -> Run | Comparison:
    """Return a run or a comparison whose runs are not called by their folders."""
    if isinstance(source, Run):
        return anonymous_view(source)
    runs = tuple(
        replace(run, name=f"run {number}") if Path(run.path).name in run.name else run
        for number, run in enumerate(source.contents.runs, 1)
    )
    return Comparison(source.files, replace(source.contents, runs=runs))


def _named(kinds: Mapping[str, _Make], what: str, holder: str) -> _Make:
    if what and what not in kinds:
        raise ConfigError(f"there is no table {what!r} of {holder}; {choices(what, kinds)}")
    return kinds[what or next(iter(kinds))]


def _write(drawn: Table, out: Path, provenance: Provenance) -> None:
    lines = [" ".join(line.split()) for line in (provenance.program, *provenance.lines)]
    hidden = [line.replace(">", "&gt;") for line in lines]
    kinds = {
        ".tex": lambda: drawn.as_latex() + "".join(f"% {line}\n" for line in lines),
        ".md": lambda: drawn.as_markdown() + "".join(f"\n<!-- {line} -->\n" for line in hidden),
        ".csv": drawn.as_csv,
    }
    if out.suffix not in kinds:
        raise ConfigError(
            f"a table cannot be called {out.name!r}; its name ends in {', '.join(kinds)}"
        )
    try:
        out.write_text(kinds[out.suffix](), encoding="utf-8")
        if out.suffix == ".csv":
            told = {
                "@context": "http://www.w3.org/ns/csvw",
                "url": out.name,
                "dc:description": drawn.caption,
                "dc:creator": provenance.program,
                "dc:source": list(provenance.lines),
            }
            beside = out.with_name(f"{out.name}-metadata.json")
            beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(out)!r} cannot be written: {reason(error)}") from error
