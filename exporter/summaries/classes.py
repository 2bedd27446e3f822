"""How a model did on the set: its numbers, each class, which are confused, its calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.records import CalibrationBin, ClassRow, ConfusedPair, ratio
from exporter.summaries.scope import Scope

PAIRS: Final = 10_000
"""Confused pairs kept at most, the most frequent first."""

BINS: Final = 15
"""Bins of equal width that confidences are counted in."""

Floats = NDArray[np.float64]

Columns = Mapping[str, NDArray[Any]]
"""The columns of ``IMAGES_SCHEMA`` by name, (N,) each; all but ``id`` float64, NaN for null."""


def columns_of(images: pa.Table) -> Columns:
    """Return the columns of a table of ``IMAGES_SCHEMA``, in plan order."""
    numbers = {name: images[name] for name in images.column_names if name != "id"}
    flags = {name: column for name, column in numbers.items() if column.type == pa.bool_()}
    numbers |= {name: column.cast("int8") for name, column in flags.items()}
    return {"id": images["id"].to_numpy()} | {
        name: column.cast("float64").to_numpy() for name, column in numbers.items()
    }


def numbers(seen: Columns) -> dict[str, Any]:
    """Return the numbers of the whole set, by their names in `SetSummary`."""
    labelled, correct = int((~np.isnan(seen["correct"])).sum()), int(np.nansum(seen["correct"]))
    bins = diagram(seen)
    return {
        "images": len(seen["id"]),
        "read": int(seen["read"].sum()),
        "labelled": labelled,
        "correct": correct,
        "accuracy": ratio(correct, labelled),
        "top5_accuracy": _mean(seen["in_first"]),
        "confidence": _mean(seen["confidence"]),
        "loss": _mean(seen["loss"][np.isfinite(seen["loss"])]),
        "calibration_error": calibration_error(bins),
        "bins": bins,
    }


def class_rows(seen: Columns, scope: Scope) -> list[ClassRow]:
    """Return a row per class that is a label or a prediction of the set, by index."""
    of_label, of_prediction = (dict(_by_class(seen[name])) for name in ("label", "predicted"))
    nothing = np.empty(0, dtype=np.intp)
    rows = []
    for index in sorted(of_label.keys() | of_prediction.keys()):
        given, told = (places.get(index, nothing) for places in (of_label, of_prediction))
        correct = int(seen["correct"][given].sum())
        means = ("confidence", "entropy", "top_share", "agreement")
        rows.append(
            ClassRow(
                index=index,
                name=scope.name(index),
                support=len(given),
                correct=correct,
                predicted=len(told),
                precision=ratio(correct, int((~np.isnan(seen["correct"][told])).sum())),
                recall=ratio(correct, len(given)),
                **{name: _mean(seen[name][told]) for name in means},
                **{f"{name}_spread": _spread(seen[name][told]) for name in means[:2]},
            )
        )
    return rows


def confusion_rows(seen: Columns, scope: Scope) -> list[ConfusedPair]:
    """Return the confused pairs, the most frequent first, of equals the smallest indices."""
    wrong = seen["correct"] == 0
    pairs = (seen[name][wrong].astype(int).tolist() for name in ("label", "predicted"))
    counts = Counter(zip(*pairs, strict=True))
    return [
        ConfusedPair(label, predicted, scope.name(label), scope.name(predicted), images)
        for (label, predicted), images in sorted(counts.items(), key=lambda n: (-n[1], n[0]))
    ]


def diagram(seen: Columns) -> tuple[CalibrationBin, ...]:
    """Return the reliability diagram of the labelled images.

    Returns:
        Bin b holds confidences in (b / 15, (b + 1) / 15].
    """
    known = ~np.isnan(seen["correct"] + seen["confidence"])
    confidence, right = seen["confidence"][known], seen["correct"][known]
    bins = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
    counts, sums, correct = (
        np.bincount(bins, weights, BINS).tolist() for weights in (None, confidence, right)
    )
    return tuple(
        CalibrationBin(
            lower=b / BINS,
            upper=(b + 1) / BINS,
            images=counts[b],
            confidence=ratio(sums[b], counts[b]),
            accuracy=ratio(correct[b], counts[b]),
        )
        for b in range(BINS)
    )


def calibration_error(bins: tuple[CalibrationBin, ...]) -> float | None:
    """Return the expected calibration error; None without labelled images.

    ECE = Σ_b n_b / n · |accuracy_b - confidence_b| (Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017), with 15 bins of equal width.
    """
    gaps = sum(
        part.images * abs(part.accuracy - part.confidence)
        for part in bins
        if part.accuracy is not None and part.confidence is not None
    )
    return ratio(gaps, sum(part.images for part in bins))


def _by_class(values: Floats) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each class of (N,) with the positions that have it, in order; NaN is none."""
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    classes, starts = np.unique(values[order].astype(int), return_index=True)
    return zip(classes.tolist(), np.split(order, starts)[1:], strict=True)


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _spread(values: Floats) -> float | None:
    """Return the standard deviation (of the population) of the numbers among values."""
    known = values[~np.isnan(values)]
    # Less the first of them: equal numbers then have none, whatever rounding does to their mean.
    return float((known - known[0]).std()) if len(known) else None
