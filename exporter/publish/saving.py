"""Writing a figure, and what is said of it: in its metadata, and in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import exporter
from exporter.errors import ConfigError, reason
from exporter.publish.choosing import Grid
from exporter.publish.latex import code, listed, tex
from exporter.publish.look import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 300
SUFFIXES = (".pdf", ".svg", ".png")
_SAME: Any = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "exporter",
    "text.usetex": False,
    "axes.unicode_minus": True,
}


def save(drawn: Figure, out: Path, grid: Grid) -> None:
    """Write a figure as PDF, SVG or PNG: the same bytes for the same figure.

    What it was made from is in its metadata: model, hash of the plan, version.

    Raises:
        ConfigError: if the file is of another kind, or cannot be written.
    """
    import matplotlib as mpl

    kind = out.suffix.lower()
    if kind not in SUFFIXES:
        raise ConfigError(f"a figure is no {out.name!r}; its name ends in {', '.join(SUFFIXES)}")
    said = "; ".join(provenance(grid))
    program = f"exporter {exporter.__version__}"
    metadata: dict[str, dict[str, Any]] = {
        ".pdf": {"Creator": program, "Producer": "matplotlib", "CreationDate": None,
                 "Subject": said},
        ".svg": {"Creator": program, "Date": None, "Description": said},
        ".png": {"Software": program, "Description": said},
    }  # fmt: skip
    try:
        with mpl.rc_context(_SAME):
            drawn.savefig(out, format=kind[1:], metadata=metadata[kind], dpi=DPI)
    except OSError as error:
        raise ConfigError(f"{str(out)!r} cannot be written: {reason(error)}") from error


def provenance(grid: Grid) -> Iterator[str]:
    """Yield, of each run, what its maps were made from."""
    for named in grid.runs:
        plan = named.run.plan
        digest = named.run.files.sha256("plan.json")[:12]
        yield f"{plan.model.title} ({plan.model.weights}), plan {digest}"


def latex(grid: Grid, out: Path, look: Look) -> str:
    r"""Return a LaTeX figure environment with a caption that says what is shown.

    It includes the file at ``\linewidth``.
    """
    plans = [named.run.plan for named in grid.runs]
    titles = dict.fromkeys(column.title for column in grid.columns)
    shown = {grid.map(grid.rows[0], column, look.target).layer for column in grid.columns} - {""}
    at = f" at {listed([code(name) for name in sorted(shown)])}" if shown else ""
    models = listed([tex(f"{plan.model.title} ({plan.model.weights})") for plan in plans])
    explained = tex(plans[0].target if look.target is None else look.target)
    ends = "from blue (negative) over white (zero) to red" if look.signed else "from its smallest "
    ends += "" if look.signed else "to its largest value, both below it,"
    rectified = dict.fromkeys(column.title for column in grid.columns if column.relu)
    cut = (
        f" Negative values of {listed(list(map(tex, rectified)))} are set to zero, as the "
        "definition says."
    )
    rule = f" Images: {tex(grid.rule)}." if grid.rule else ""
    caption = (
        f"{listed(list(map(tex, titles)))} of {models}{at}; explained: {explained}. Each map is "
        f"coloured ({tex(look.colormap)}) {ends} and is as opaque as it is strong."
        f"{cut if rectified and not look.signed else ''}{rule}"
    )
    return "\n".join(
        [
            r"\begin{figure}[t]",
            r"  \centering",
            rf"  \includegraphics[width=\linewidth]{{{out.name}}}",
            rf"  \caption{{{caption}}}",
            rf"  \label{{fig:{re.sub(r'[^A-Za-z0-9]+', '-', out.stem)}}}",
            r"\end{figure}",
        ]
    )
