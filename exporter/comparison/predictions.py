"""What the runs predict of the images that they share, and how that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exporter.comparison.differences import shared_classes
from exporter.comparison.joining import Joined
from exporter.comparison.measures import MEASURES, Floats, Measured, measures_of
from exporter.comparison.records import ClassChange, Contrast
from exporter.comparison.statistics import holm, mcnemar, paired_interval
from exporter.records import Plan, ratio
from exporter.store import Run
from exporter.summaries.classes import calibration_error, diagram


@dataclass(frozen=True)
class Predictions:
    """What one run says of each of the N shared images.

    Attributes:
        names: class names by code, the same for all runs.
        predicted: (N,) code of the first prediction, -1 without one.
        score: (N,) its score, NaN without one.
        correct: (N,) 1 right, 0 wrong, NaN where that is not known.
        labels: (N,) code of the label as a class, -1 where it is none.
        measures: (N,) by what was measured and of which maps, NaN where it was not.
    """

    names: tuple[str, ...]
    predicted: NDArray[np.intp]
    score: Floats
    correct: Floats
    labels: NDArray[np.intp]
    measures: Mapping[Measured, Floats]


def predictions_of(joined: Joined) -> list[Predictions]:
    """Read what each run predicts of the shared images."""
    codes: dict[str, int] = {}
    read = [_columns(run, joined.places, codes) for run in joined.runs]
    names = tuple(codes)
    return [
        Predictions(names, own["predicted"].astype(np.intp), own["score"], own["correct"],
                    own["label"].astype(np.intp), dict(measures_of(joined, run, own)))
        for run, own in enumerate(read)
    ]  # fmt: skip


def _columns(run: Run, place: Mapping[str, int], codes: dict[str, int]) -> dict[str, Floats]:
    columns = {name: np.full(len(place), np.nan) for name in ("score", "correct", *MEASURES)}
    columns |= {name: np.full(len(place), -1.0) for name in ("predicted", "label")}
    plan = run.plan
    for measured in run.measures():
        at = place.get(measured.id)
        if at is None:
            continue
        if measured.predicted is not None:
            name = class_name(plan, measured.predicted)
            columns["predicted"][at] = codes.setdefault(name, len(codes))
        for name, value in (
            ("score", measured.confidence),
            ("correct", measured.correct),
            *((name, getattr(measured, name)) for name in MEASURES),
        ):
            if value is not None:
                columns[name][at] = value
    for image in plan.images:
        at, index = place.get(image.id), plan.label_index.get(image.label or "")
        if at is not None and index is not None:
            name = class_name(plan, index)
            columns["label"][at] = codes.setdefault(name, len(codes))
    return columns


def class_name(plan: Plan, index: int) -> str:
    """Return the name by which a class is matched: its own, or its number."""
    classes = plan.model.classes
    return classes[index] if 0 <= index < len(classes) else str(index)


def totals(own: Predictions, labelled: NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Return the numbers of one run over the images that all runs judge.

    Args:
        own: what the run predicts.
        labelled: (N,) whether every run knows whether it is right.
    """
    right, score = own.correct[labelled], own.score[labelled]
    bins = diagram({"correct": right, "confidence": score})
    known = own.score[~np.isnan(own.score)]
    return {
        "labelled": len(right),
        "accuracy": ratio(float(right.sum()), len(right)),
        "calibration_error": calibration_error(bins),
        "confidence": float(known.mean()) if len(known) else None,
    }


def flips(own: Predictions, base: Predictions, *, by_name: bool) -> NDArray[np.str_]:
    """Return how each image changed against the baseline.

    Returns:
        (N,) ``lost`` (right to wrong), ``won`` (wrong to right), ``changed`` (another class, and
        neither of these) or ``""``.
    """
    flip = np.full(len(own.score), "", dtype="U7")
    if by_name:
        flip[(own.predicted != base.predicted) & (own.predicted >= 0) & (base.predicted >= 0)] = (
            "changed"
        )
    flip[(base.correct == 1) & (own.correct == 0)] = "lost"
    flip[(base.correct == 0) & (own.correct == 1)] = "won"
    return flip


def contrasts(joined: Joined, predicted: list[Predictions]) -> list[Contrast]:
    """Compare each run's predictions with the baseline's, corrected for their number."""
    base = predicted[joined.baseline]
    by_name = shared_classes(joined.plans)
    rows = []
    for run, own in enumerate(predicted):
        if run == joined.baseline:
            continue
        both = ~np.isnan(own.correct + base.correct)
        right, before = own.correct[both], base.correct[both]
        interval = paired_interval(right - before) if both.any() else None
        lost, won = int((before > right).sum()), int((right > before).sum())
        told = (own.predicted >= 0) & (base.predicted >= 0)
        rows.append(
            Contrast(
                run=run,
                images=int(both.sum()),
                accuracy=ratio(float(right.sum()), len(right)),
                baseline=ratio(float(before.sum()), len(right)),
                difference=interval and interval.mean,
                low=interval and interval.low,
                high=interval and interval.high,
                lost=lost,
                won=won,
                changed=int((own.predicted != base.predicted)[told].sum()) if by_name else None,
                of=int(told.sum()),
                p=mcnemar(lost, won) if both.any() else None,
                p_holm=None,
            )
        )
    return _corrected(rows)


def _corrected(rows: list[Contrast]) -> list[Contrast]:
    tested = [row.p for row in rows if row.p is not None]
    remaining = iter(holm(tested))
    return [row if row.p is None else replace(row, p_holm=next(remaining)) for row in rows]


def class_changes(joined: Joined, predicted: list[Predictions]) -> list[ClassChange]:
    """Return how each class fares in each run, the largest changes of a run first."""
    base = predicted[joined.baseline]
    tested = []
    for run, own in enumerate(predicted):
        if run == joined.baseline:
            continue
        known = ~np.isnan(own.correct + base.correct) & (base.labels >= 0)
        for code in np.unique(base.labels[known]):
            of_class = known & (base.labels == code)
            right, before = own.correct[of_class], base.correct[of_class]
            lost, won = int((before > right).sum()), int((right > before).sum())
            tested.append((base.names[code], run, before, right, lost, won, mcnemar(lost, won)))
    corrected = holm([p for *_, p in tested])
    rows = [
        ClassChange(
            name, run, len(right), float(before.mean()), float(right.mean()), lost, won, p, q
        )
        for (name, run, before, right, lost, won, p), q in zip(tested, corrected, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.run, row.p, -abs(row.recall - row.baseline), row.name))
