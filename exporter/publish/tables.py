"""Tables for a paper, from a run or a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from exporter.comparison import Comparison, is_comparison, open_comparison
from exporter.errors import ConfigError, RunError, choices, reason
from exporter.publish.of_comparisons import OF_COMPARISONS
from exporter.publish.of_runs import OF_RUNS
from exporter.publish.tabular import Table
from exporter.store import Run, open_run

_Make = TypeVar("_Make")


def table(
    source: str | Path | Run | Comparison, what: str = "", *, out: str | Path | None = None
) -> Table:
    """Return numbers of a run or a comparison as a table for a paper.

    Args:
        source: a run folder or a comparison folder.
        what: of a run ``accuracy``, ``methods``, ``agreement``, ``faithfulness`` or ``classes``;
            of a comparison ``accuracy``, ``flips``, ``similarity``, ``measures``, ``classes`` or
            ``layers``. The first where it is empty.
        out: a file to write: ``.tex``, ``.md`` or ``.csv``.

    Raises:
        RunError: if there is neither, or it does not hold these numbers.
        ConfigError: if there is no such table, or the file is of another kind.

    Examples:
        >>> import tempfile, torch, exporter
        >>> from exporter.demo import photographs
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Flatten(),
        ...     torch.nn.LazyLinear(3))
        >>> _ = model(torch.zeros(1, 3, 224, 224))
        >>> run = exporter.export(model, photographs(), out=tempfile.mkdtemp() + "/run",
        ...     maps=["gradcam", "layercam"], layers=["0"], limit=2, writers=())
        >>> exporter.table(run, "methods").names
        ('Method', 'Layer')
    """
    if not isinstance(source, Run | Comparison):
        source = open_comparison(source) if is_comparison(source) else open_run(source)
    if isinstance(source, Run):
        drawn = _named(OF_RUNS, what, "a run")(source)
    else:
        drawn = _named(OF_COMPARISONS, what, "a comparison")(source)
    if not drawn.rows:
        raise RunError(f"{str(source.path)!r} has no numbers for the table {what or 'accuracy'!r}")
    drawn = drawn.known()
    if out is not None:
        _write(drawn, Path(out))
    return drawn


def _named(kinds: Mapping[str, _Make], what: str, holder: str) -> _Make:
    if what and what not in kinds:
        raise ConfigError(f"there is no table {what!r} of {holder}; {choices(what, kinds)}")
    return kinds[what or next(iter(kinds))]


def _write(drawn: Table, out: Path) -> None:
    kinds = {".tex": drawn.as_latex, ".md": drawn.as_markdown, ".csv": drawn.as_csv}
    if out.suffix not in kinds:
        raise ConfigError(f"a table is no {out.name!r}; its name ends in {', '.join(kinds)}")
    try:
        out.write_text(kinds[out.suffix](), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(out)!r} cannot be written: {reason(error)}") from error
