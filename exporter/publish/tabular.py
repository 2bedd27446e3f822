"""A table as LaTeX (booktabs, siunitx), Markdown or CSV."""

from __future__ import annotations

import csv
import io
import re
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
        p: whether they are probabilities under a hypothesis, of which a small one is never 0.000.
    """

    name: str
    better: Better = ""
    digits: int = 3
    p: bool = False

    def written(self, value: float, below: str = "<") -> str:
        """Write a number; ``below`` stands before the bound of a p that is too small for it."""
        if isinstance(value, int):
            return str(value)
        if self.p and value < 10**-self.digits:
            return f"{below}{10**-self.digits:.{self.digits}f}"
        return f"{value:z.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        caption: what it shows, one sentence, with the units.
        names: headings of the columns of text, which come first.
        numbers: the columns of numbers.
        rows: cells of both; a number that is not known is None.

    Examples:
        >>> scores = (Numbers("Accuracy", better="higher"),)
        >>> rows = (("a", 0.5), ("b", 1))
        >>> drawn = Table("How often each model is right.", ("Model",), scores, rows)
        >>> drawn.best(0)
        1
        >>> print(drawn.as_csv(), end="")
        Model,Accuracy
        a,0.5
        b,1
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
        """Return the best number of a column as it is rounded; None where none is better."""
        known = [row[len(self.names) + column] for row in self.rows]
        digits, better = self.numbers[column].digits, self.numbers[column].better
        values = [round(value, digits) for value in known if isinstance(value, int | float)]
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
        body = [self._cells(row, _escaped, "**{}**", "–", "<") for row in self.rows]
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
        body = [self._cells(row, tex, r"\bfseries {}", "{--}", "{$<$}") for row in self.rows]
        lines = [
            r"% \usepackage{booktabs,siunitx}",
            rf"\begin{{tabular}}{{{'l' * len(self.names)}{''.join(widths)}}}",
            r"  \toprule",
            f"  {' & '.join(heads)} " + r"\\",
            r"  \midrule",
            *(f"  {' & '.join(cells)} " + r"\\" for cells in body),
            r"  \bottomrule",
            r"\end{tabular}",
            f"% {' '.join(self.caption.split())}",
        ]
        return "\n".join(lines) + "\n"

    def _cells(
        self,
        row: Sequence[Cell],
        escape: Callable[[str], str],
        bold: str,
        nothing: str,
        below: str,
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
                text = number.written(cell, below)
                best = round(cell, number.digits) == self.best(column)
                cells.append(bold.format(text) if best else text)
        return cells


def _escaped(text: str) -> str:
    # Between letters, a line is a line.
    return re.sub(r"[\\|<&*`~\[]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", re.sub(r"\s+", " ", text))
