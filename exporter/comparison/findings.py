"""What a comparison shows, in sentences: each with its numbers, and the page that shows more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.comparison.aligning import at_stage
from exporter.comparison.joining import Joined
from exporter.comparison.records import (
    ClassChange,
    ComparedRun,
    Contrast,
    LayerDrift,
    Likeness,
    Shift,
)
from exporter.writers.html.findings import Finding
from exporter.writers.html.text import decimal, percent

SURE = 0.05
"""Corrected p below which a difference is called significant."""

FEWEST = 3
"""Images below which a mean is not mentioned."""


def findings(
    joined: Joined,
    runs: Sequence[ComparedRun],
    contrasts: Sequence[Contrast],
    rows: Mapping[str, Sequence[Any]],
) -> Iterator[Finding]:
    """Yield what is worth saying first."""
    names = joined.names
    yield from _accuracy(names, runs, contrasts, joined.baseline)
    yield from _flips(names, contrasts, joined.baseline)
    yield from _maps(joined, rows["similarity"])
    yield from _classes(names, rows["classes"], joined.baseline)
    yield from _measures(names, rows["measures"])
    yield from _layers(names, rows["layers"], joined.baseline)


def signed(value: float, digits: int = 1) -> str:
    """Write a difference with its sign, one that rounds to nothing without.

    >>> signed(-3.14), signed(0.5, 2), signed(-0.01)
    ('−3.1', '+0.50', '0.0')
    """
    written = f"{value:+.{digits}f}"
    return written.replace("-", "−") if float(written) else written[1:]


def unmoved(spearman: float) -> bool:
    """Tell whether maps whose ranks correlate so are the same, but for rounding."""
    return round(spearman, 3) == 1


def _first(name: str) -> str:
    """Return a run's name as the first word of a sentence; names of models stay as they are."""
    return name.capitalize() if name.startswith("step ") else name


def p_value(p: float) -> str:
    """Write a p-value.

    >>> p_value(0.0004), p_value(0.25)
    ('p < 0.001', 'p = 0.25')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _accuracy(
    names: Sequence[str], runs: Sequence[ComparedRun], contrasts: Sequence[Contrast], base: int
) -> Iterator[Finding]:
    known = [row for row in contrasts if row.difference is not None]
    if not known:
        return
    row = max(known, key=lambda row: abs(row.difference or 0))
    assert row.accuracy is not None
    if not any(other.lost + other.won for other in known):
        yield Finding(
            "Accuracy",
            f"{'Both' if len(names) == 2 else 'All'} runs are right on the same images, "
            f"{percent(row.accuracy)} of {row.images:,} that are labelled.",
            "index",
            "numbers",
        )
    else:
        yield _most_changed(names, row, base, len(known))
    errors = [run for run in runs if run.calibration_error is not None]
    if len(errors) > 1:
        best = min(errors, key=lambda run: run.calibration_error or 0)
        worst = max(errors, key=lambda run: run.calibration_error or 0)
        if best is not worst:
            yield Finding(
                "Calibration",
                f"{_first(best.name)} is calibrated best: its calibration error is "
                f"{percent(best.calibration_error or 0)}, that of {worst.name} is "
                f"{percent(worst.calibration_error or 0)}.",
                "index",
                "numbers",
            )


def _most_changed(names: Sequence[str], row: Contrast, base: int, tests: int) -> Finding:
    assert row.accuracy is not None and row.baseline is not None and row.p_holm is not None
    assert row.difference is not None and row.low is not None and row.high is not None
    sure = "a significant difference" if row.p_holm < SURE else "not a significant difference"
    many = f", corrected for {tests} comparisons" if tests > 1 else ""
    difference, low, high = (signed(100 * v) for v in (row.difference, row.low, row.high))
    return Finding(
        "Accuracy",
        f"{_first(names[row.run])} is right on {percent(row.accuracy)} of {row.images:,} labelled "
        f"images and {names[base]} on {percent(row.baseline)}: {difference} points (95 % interval "
        f"{low} to {high}; McNemar's exact {p_value(row.p_holm)}{many}), {sure}.",
        "index",
        "numbers",
    )


def _flips(names: Sequence[str], contrasts: Sequence[Contrast], base: int) -> Iterator[Finding]:
    judged = [row for row in contrasts if row.images]
    if any(row.lost + row.won for row in judged):
        row = max(judged, key=lambda row: row.lost + row.won)
        yield Finding(
            "Flips",
            f"From {names[base]} to {names[row.run]}, {row.won:,} of {row.images:,} images went "
            f"from wrong to right and {row.lost:,} from right to wrong.",
            "images",
            f"flip=any&run={row.run}",
        )
    named = [row for row in contrasts if row.changed is not None and row.of]
    if named and not judged:
        row = max(named, key=lambda row: row.changed or 0)
        yield Finding(
            "Disagreement",
            f"{names[base]} and {names[row.run]} predict different classes for {row.changed:,} of "
            f"{row.of:,} images.",
            "images",
            f"flip=any&run={row.run}",
        )


def _maps(joined: Joined, rows: Sequence[Likeness]) -> Iterator[Finding]:
    names, base = joined.names, joined.baseline
    known = [
        row
        for row in rows
        if base in (row.first, row.second) and row.spearman is not None and row.images >= FEWEST
    ]
    if not known:
        return
    titles = {method.name: method.title for method in joined.methods}
    low, high = (choose(known, key=lambda row: row.spearman or 0) for choose in (min, max))

    def pair(row: Likeness) -> str:
        return f"{names[base]} and {names[row.second if row.first == base else row.first]}"

    def told(row: Likeness) -> str:
        return f"{titles[row.method]} at {at_stage(row.stage)}"

    def number(row: Likeness) -> str:
        return f"mean rank correlation {decimal(row.spearman or 0)}, {row.images:,} images"

    if unmoved(low.spearman or 0):
        yield Finding("Maps", "The maps of all runs rank their cells in the same order.", "images")
        return
    if low is high:
        text = f"The maps of {told(low)} differ between {pair(low)} ({number(low)})."
    elif pair(low) == pair(high):
        text = (
            f"Between {pair(low)}, the maps of {told(low)} differ most ({number(low)}) and those "
            f"of {told(high)} least ({number(high)})."
        )
    else:
        text = (
            f"Maps differ most between {pair(low)} for {told(low)} ({number(low)}), and least "
            f"between {pair(high)} for {told(high)} ({number(high)})."
        )
    place = [m.name for m in joined.methods].index(low.method)
    yield Finding("Maps", text, "images", f"sort=moved&method={place}")


def _classes(names: Sequence[str], rows: Sequence[ClassChange], base: int) -> Iterator[Finding]:
    sure = [row for row in rows if row.p_holm < SURE]
    if sure:
        row = max(sure, key=lambda row: abs(row.recall - row.baseline))
        yield Finding(
            "Classes",
            f"The class {row.name} changes most in {names[row.run]}: {percent(row.recall)} of its "
            f"{row.images:,} images are right, and {percent(row.baseline)} in {names[base]} "
            f"({p_value(row.p_holm)}, corrected for {len(rows):,} classes and runs).",
            "classes",
        )


def _measures(names: Sequence[str], rows: Sequence[Shift]) -> Iterator[Finding]:
    clear = [
        row for row in rows if row.measure in {"insertion", "pointing"} and row.low * row.high > 0
    ]
    if clear:
        row = max(clear, key=lambda row: abs(row.difference))
        what = {
            "insertion": "Insertion (the score when the map's highest cells are shown first)",
            "pointing": "Pointing (the largest cell lies in the given region)",
        }[row.measure]
        yield Finding(
            "Faithfulness",
            f"{what} of {row.method} changes by {signed(row.difference, 3)} in {names[row.run]} "
            f"(95 % interval {signed(row.low, 3)} to {signed(row.high, 3)}, "
            f"{row.images:,} images).",
            "index",
            "measures",
        )


def _layers(names: Sequence[str], rows: Sequence[LayerDrift], base: int) -> Iterator[Finding]:
    moved = [row for row in rows if row.run != base and row.kernels is not None]
    if any(round(row.kernels or 0, 3) < 1 for row in moved):
        last = [row for row in moved if row.run == max(row.run for row in moved)]
        most = min(last, key=lambda row: row.kernels or 0)
        yield Finding(
            "Kernels",
            f"From {names[base]} to {names[most.run]} the kernels of layer {most.layer} change "
            f"most: their mean cosine is {decimal(most.kernels or 0)}.",
            "layers",
        )
    same = [row for row in rows if row.dead is not None and row.layer == row.other]
    dead = {(row.run, row.layer): row.dead or 0 for row in same}
    grown = [
        (count - dead[base, layer], run, layer)
        for (run, layer), count in dead.items()
        if run != base and (base, layer) in dead
    ]
    if grown and (most_dead := max(grown, key=lambda item: abs(item[0])))[0]:
        _, run, layer = most_dead
        yield Finding(
            "Dead channels",
            f"Layer {layer} has {dead[run, layer]} channels that no image activates in "
            f"{names[run]} and {dead[base, layer]} in {names[base]}.",
            "layers",
        )
