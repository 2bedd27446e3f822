"""Writing a figure, and what is said of it: in its metadata, and in LaTeX."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import ConfigError, reason
from exporter.publish.choosing import Grid, Named
from exporter.publish.latex import code, listed, tex
from exporter.publish.look import Look
from exporter.publish.provenance import Provenance
from exporter.records import parse_target
from exporter.store import Run
from exporter.writers.html.text import score_words, target_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 300
SUFFIXES = (".pdf", ".svg", ".png")
SAME: Any = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "exporter",
    "text.usetex": False,
    "axes.unicode_minus": True,
}
"""What would change the bytes; matplotlib's own settings, and none of a user's, are beside it."""


def save(drawn: Figure, out: Path, provenance: Provenance) -> None:
    """Write a figure as PDF, SVG or PNG, with what it was made from in its metadata.

    The same figure gives the same bytes.

    Raises:
        ConfigError: if the file is of another kind, or cannot be written.
    """
    from matplotlib import style

    kind = out.suffix.lower()
    if kind not in SUFFIXES:
        raise ConfigError(
            f"a figure cannot be called {out.name!r}; its name ends in {', '.join(SUFFIXES)}"
        )
    said, program = "; ".join(provenance.lines), provenance.program
    metadata: dict[str, dict[str, Any]] = {
        ".pdf": {"Creator": program, "Producer": "matplotlib", "CreationDate": None,
                 "Subject": said},
        ".svg": {"Creator": program, "Date": None, "Description": said},
        ".png": {"Software": program, "Description": said},
    }  # fmt: skip
    try:
        with style.context(["default", SAME]):
            drawn.savefig(out, format=kind[1:], metadata=metadata[kind], dpi=DPI)
    except OSError as error:
        raise ConfigError(f"{str(out)!r} cannot be written: {reason(error)}") from error


def latex(grid: Grid, out: Path, look: Look) -> str:
    r"""Return a LaTeX figure environment with a caption that says what is shown.

    It includes the file at ``\linewidth``, an SVG by the package svg.

    Raises:
        ConfigError: if LaTeX reads a character of the file's name as something else.
    """
    wrong = re.search(r'[%#{}\\~$&^"]', out.name)
    if wrong:
        raise ConfigError(
            f"LaTeX cannot include a file called {out.name!r}; give --out a name without {wrong[0]}"
        )
    titles = dict.fromkeys(column.title for column in grid.columns)
    maps = [grid.map(grid.rows[0], column, look.target) for column in grid.columns]
    layers = [code(name) for name in dict.fromkeys(stored.layer for stored in maps) if name]
    at = f" at {listed(layers)}" if layers else ""
    models = listed(list(dict.fromkeys(tex(_model(named)) for named in grid.runs)))
    explained = listed(list(dict.fromkeys(tex(_explained(each.run, look)) for each in grid.runs)))
    units = dict.fromkeys(score_words(each.run.plan)["unit"] for each in grid.runs)
    predicted = any(row.predictions for rows in grid.rows for row in rows)
    ends = (
        "from blue (negative) over white (zero) to red, as far as its largest magnitude; "
        "its smallest and largest value are below it"
        if look.signed
        else "from its smallest to its largest value, which are below it"
    )
    rectified = dict.fromkeys(column.title for column in grid.columns if column.relu)
    cut = ""
    if rectified and not look.signed:
        cut = (
            f" Negative values of {listed(list(map(tex, rectified)))} are set to zero, as the "
            "definition says."
        )
    rule = f" Images: {tex(grid.rule)}." if grid.rule else ""
    caption = (
        f"{listed(list(map(tex, titles)))} of {models}{at}; explained, where a method depends on "
        f"it: {explained}. Each map is coloured ({tex(look.colormap)}) {ends}. {_opaque(look)}"
        f"{cut}"
        f"{f' A name with a number is a prediction with its {listed(list(units))}.' * predicted}"
        f"{rule}"
    )
    scalable = out.suffix.lower() == ".svg"
    include = "includesvg" if scalable else "includegraphics"
    return "\n".join(
        [
            *[r"% \usepackage{svg}"] * scalable,
            r"\begin{figure}[t]",
            r"  \centering",
            rf"  \{include}[width=\linewidth]{{{out.name}}}",
            rf"  \caption{{{caption}}}",
            rf"  \label{{fig:{re.sub(r'[^A-Za-z0-9]+', '-', out.stem)}}}",
            r"\end{figure}",
        ]
    )


def _opaque(look: Look) -> str:
    """Say where a map covers the photograph."""
    said = "It is equally opaque everywhere." if look.uniform else "Higher values are more opaque."
    below = f" Below {look.threshold * 100:g} \\% of its range it is not drawn."
    return said + below * (look.threshold > 0)


def _model(named: Named) -> str:
    model = named.run.plan.model
    said = model.described
    return said if named.name == model.title else f"{named.name}: {said}"


def _explained(run: Run, look: Look) -> str:
    """Say what the maps that are shown explain: of several targets, the first."""
    plan = run.plan
    target = plan.target if look.target is None else look.target
    said = target_text(target, plan.model.classes)
    several = parse_target(target, plan.model.classes).k > 1
    return f"the first of {said}" if several else said
