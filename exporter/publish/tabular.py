"""A table as LaTeX (booktabs, siunitx), Markdown or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from exporter.publish.latex import tex

Cell = str | int | float | None
Better = Literal["", "higher", "lower"]


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Attributes:
        name: its heading.
        better: which of its numbers is the best, if any.
        digits: digits after the point.
    """

    name: str
    better: Better = ""
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        caption: what it shows, one sentence, with the units.
        names: headings of the columns of text, which come first.
        numbers: the columns of numbers.
        rows: cells of both; a number that is not known is None.
    """

    caption: str
    names: tuple[str, ...]
    numbers: tuple[Numbers, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def known(self) -> Table:
        """Return it without the columns in which no number is known."""
        first = len(self.names)
        kept = [
            n for n in range(len(self.numbers)) if any(r[first + n] is not None for r in self.rows)
        ]
        return replace(
            self,
            numbers=tuple(self.numbers[n] for n in kept),
            rows=tuple((*row[:first], *(row[first + n] for n in kept)) for row in self.rows),
        )

    def best(self, column: int) -> float | None:
        """Return the best number of a column; None where no number is better than another."""
        known = [row[len(self.names) + column] for row in self.rows]
        values = [value for value in known if isinstance(value, int | float)]
        better = self.numbers[column].better
        if not better or len(set(values)) < 2:
            return None
        return max(values) if better == "higher" else min(values)

    def as_csv(self) -> str:
        """Return it with every digit that is known."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.names, *(column.name for column in self.numbers)])
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return text.getvalue()

    def as_markdown(self) -> str:
        """Return it for a README, the best numbers bold."""
        heads = [*self.names, *(column.name for column in self.numbers)]
        rules = ["---"] * len(self.names) + ["---:"] * len(self.numbers)
        body = [self._cells(row, _escaped, lambda text: f"**{text}**", "–") for row in self.rows]
        lines = [list(map(_escaped, heads)), rules, *body]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def as_latex(self) -> str:
        """Return it with booktabs and siunitx's S columns, the best numbers bold."""
        widths = []
        for place, column in enumerate(self.numbers, len(self.names)):
            values = [row[place] for row in self.rows]
            whole = max(
                (len(f"{abs(v):.0f}") for v in values if isinstance(v, int | float)), default=1
            )
            sign = "-" if any(isinstance(v, int | float) and v < 0 for v in values) else ""
            digits = 0 if all(not isinstance(v, float) for v in values) else column.digits
            widths.append(f"S[table-format={sign}{whole}.{digits},detect-weight,mode=text]")
        heads = [*map(tex, self.names), *(f"{{{tex(column.name)}}}" for column in self.numbers)]
        body = [
            self._cells(row, tex, lambda text: rf"\bfseries {text}", "{--}") for row in self.rows
        ]
        lines = [
            r"% \usepackage{booktabs,siunitx}",
            rf"\begin{{tabular}}{{{'l' * len(self.names)}{''.join(widths)}}}",
            r"  \toprule",
            f"  {' & '.join(heads)} " + r"\\",
            r"  \midrule",
            *(f"  {' & '.join(cells)} " + r"\\" for cells in body),
            r"  \bottomrule",
            r"\end{tabular}",
            f"% {self.caption}",
        ]
        return "\n".join(lines) + "\n"

    def _cells(
        self,
        row: Sequence[Cell],
        escape: Callable[[str], str],
        bold: Callable[[str], str],
        nothing: str,
    ) -> list[str]:
        cells = []
        for place, cell in enumerate(row):
            column = place - len(self.names)
            if column < 0 or isinstance(cell, str):
                cells.append(escape(str("" if cell is None else cell)))
            elif cell is None:
                cells.append(nothing)
            else:
                number = self.numbers[column]
                text = str(cell) if isinstance(cell, int) else f"{cell:.{number.digits}f}"
                cells.append(bold(text) if cell == self.best(column) else text)
        return cells


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
