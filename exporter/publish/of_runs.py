"""The tables of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from exporter.errors import RunError
from exporter.publish.tabular import Numbers, Table
from exporter.store import Run


def _accuracy(run: Run) -> Table:
    summary = run.summary
    if summary is None:
        raise RunError(
            f"the run {str(run.path)!r} is not complete: {len(run.shards)} of "
            f"{len(run.plan.shards)} shards are done; go on with exporter run --resume"
        )
    if summary.accuracy is None:
        labelled = any(image.label is not None for image in run.plan.images)
        why = "have labels that are no classes of the model" if labelled else "have no labels"
        raise RunError(
            f"the images of the run {str(run.path)!r} {why}, so there is no accuracy; ask for "
            "another table, such as methods"
        )
    low, high = wilson(summary.correct, summary.labelled)
    return Table(
        "Accuracy in percent, with the 95 % interval of Wilson's score.",
        ("Model", "Weights"),
        (Numbers("Images"), Numbers("Accuracy", "higher", 1), Numbers("low", "", 1),
         Numbers("high", "", 1)),
        ((run.plan.model.title, run.plan.model.weights, summary.labelled,
          100 * summary.accuracy, 100 * low, 100 * high),),
    )  # fmt: skip


def wilson(correct: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, by Wilson's score (1927); of must be above 0.

    Examples:
        >>> [round(end, 4) for end in wilson(8, 10)]
        [0.4902, 0.9433]
    """
    z, share = 1.959963984540054, correct / of
    centre = share + z * z / (2 * of)
    half = z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return (centre - half) / (1 + z * z / of), (centre + half) / (1 + z * z / of)


def _titles(run: Run) -> dict[str, str]:
    return {record.name: record.title for record in run.plan.methods}


def _methods(run: Run) -> Table:
    titles = _titles(run)
    return Table(
        "Maps by method and layer: entropy (0 one cell, 1 all cells alike), share of the energy in "
        "the top 20 % of cells, and, where objects are given, the pointing game and energy inside.",
        ("Method", "Layer"),
        (Numbers("Images"), Numbers("Entropy"), Numbers("Top 20 %"),
         Numbers("Pointing", "higher"), Numbers("Inside", "higher")),
        tuple(
            (titles.get(row.method, row.method), row.layer or "input", row.images, row.entropy,
             row.top_share, row.pointing, row.box_energy)
            for row in run.methods()
        ),
    )  # fmt: skip


def _agreement(run: Run) -> Table:
    titles = _titles(run)
    return Table(
        "Mean rank correlation (Spearman) of two methods' maps of the same image.",
        ("Layer", "Method", "Other"),
        (Numbers("Images"), Numbers("Correlation")),
        tuple(
            (row.layer, titles.get(row.first, row.first), titles.get(row.second, row.second),
             row.images, row.correlation)
            for row in run.agreement()
        ),
    )  # fmt: skip


def _faithfulness(run: Run) -> Table:
    rows = run.faithfulness()
    if not rows:
        raise RunError(f"the run {str(run.path)!r} has no faithfulness; run it with --faithfulness")
    titles = _titles(run)
    return Table(
        "Faithfulness: area under the deletion (lower is better) and insertion curve, and ROAD.",
        ("Method", "Layer"),
        (Numbers("Images"), Numbers("Deletion", "lower"), Numbers("Insertion", "higher"),
         Numbers("ROAD", "higher")),
        tuple(
            (titles.get(row.method, row.method), row.layer, row.images, row.deletion,
             row.insertion, row.road)
            for row in rows
        ),
    )  # fmt: skip


def _classes(run: Run) -> Table:
    return Table(
        "Precision, recall and mean confidence by class.",
        ("Class",),
        (Numbers("Images"), Numbers("Predicted"), Numbers("Precision"), Numbers("Recall"),
         Numbers("Confidence")),
        tuple(
            (row.name, row.support, row.predicted, row.precision, row.recall, row.confidence)
            for row in run.classes()
        ),
    )  # fmt: skip


OF_RUNS: Final[Mapping[str, Callable[[Run], Table]]] = {
    "accuracy": _accuracy,
    "methods": _methods,
    "agreement": _agreement,
    "faithfulness": _faithfulness,
    "classes": _classes,
}
