"""The numbers of a run that several writers show: of the set, of each method, and its curve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.records import Plan, Prediction, ratio
from exporter.store import Run
from exporter.summaries.sanity import overall
from exporter.writers import links
from exporter.writers.reading import SetNumbers

Scalar = tuple[str, float | None, str]
"""Name, value and what it is."""

THRESHOLDS = 201
"""Points of the precision-recall curve."""

_SCORES = {"probability": "probability", "share": "share of the area", "value": "output"}


def set_scalars(run: Run, numbers: SetNumbers) -> list[Scalar]:
    """Return the scalars of the whole set; None where there is nothing to say."""
    partial = "" if run.complete else " The run is partial: these are the images so far."
    what, judged = score_words(run.plan), numbers.judged
    of = f"of {numbers.losses.size} labelled images.{partial}"
    summary = run.summary if run.complete else None
    agreement = [row.agreement for row in run.measures() if row.agreement is not None]
    return [
        ("images", numbers.read, f"Images read.{partial}"),
        ("skipped", numbers.skipped, "Images that could not be read."),
        (
            "accuracy",
            ratio(numbers.correct, judged),
            f"Share of the {judged} images whose label is a class of the model that the first "
            f"prediction gets right.{partial}",
        ),
        (
            "top-5 accuracy",
            summary.top5_accuracy if summary else None,
            "Share of them whose label is among the first five predictions.",
        ),
        (
            "calibration error",
            summary.calibration_error if summary else None,
            "Expected calibration error over 15 equal bins of confidence, 0 to 1.",
        ),
        (
            "mean loss",
            numbers.losses.mean() if numbers.losses.size else None,
            f"Mean cross-entropy (nats) {of}",
        ),
        (
            "mean confidence",
            numbers.scores.mean() if numbers.scores.size else None,
            f"Mean {what}, {numbers.scores.size} images.{partial}",
        ),
        (
            "agreement",
            float(np.mean(agreement)) if agreement else None,
            "Mean rank correlation of the methods' maps at the deepest stage, -1 to 1.",
        ),
        (
            "flagged maps",
            numbers.flagged,
            "Maps that are zero, constant, not a number, or without a positive value where a ReLU "
            "follows.",
        ),
    ]


def method_scalars(run: Run) -> dict[str, list[Scalar]]:
    """Return the scalars of each method at the deepest stage, by its name."""
    stages = links.stage_names(run.plan)
    scalars: dict[str, list[Scalar]] = defaultdict(list)
    pairs: dict[str, list[float]] = defaultdict(list)
    for pair in run.agreement():
        if stages.get(pair.layer) == links.DEEPEST and pair.correlation is not None:
            pairs[pair.first].append(pair.correlation)
            pairs[pair.second].append(pair.correlation)
    for row in run.methods():
        if stages.get(row.layer) != links.DEEPEST:
            continue
        of = f"Of {row.measured} maps at `{links.code(row.layer or 'input')}`: mean"
        inside = f"Of {row.annotated} images with a box or mask:"
        known = pairs[row.method]
        scalars[row.method] += [
            (
                "agreement",
                ratio(sum(known), len(known)),
                "Mean rank correlation with the other methods' maps, -1 to 1.",
            ),
            ("entropy", row.entropy, f"{of} entropy, 0 one cell, 1 all equal."),
            ("concentration", row.top_share, f"{of} share of energy in the top 20 % of cells."),
            ("pointing", row.pointing, f"{inside} share whose largest cell is inside."),
            ("energy inside", row.box_energy, f"{inside} mean share of energy inside."),
            ("overlap", row.box_overlap, f"{inside} mean intersection over union."),
        ]
    for faith in run.faithfulness():
        of = f"Mean of {faith.images} images:"
        scalars[faith.method] += [
            ("deletion", faith.deletion, f"{of} area under deletion, lower is better."),
            ("insertion", faith.insertion, f"{of} area under insertion, higher is better."),
            ("ROAD", faith.road, f"{of} remove and debias, higher is better."),
            *((other.name, other.value, other.about) for other in faith.others),
        ]
    steps = "with the trained model's maps as it is randomised, mean of the steps but the last"
    for method, (spearman, ssim) in overall(run.sanity()).items():
        scalars[method] += [
            ("sanity rank correlation", spearman, f"Rank correlation {steps}; near 0 is better."),
            ("sanity SSIM", ssim, f"Structural similarity {steps}; near 0 is better."),
        ]
    return scalars


def given_scalars(metrics: Mapping[str, float]) -> list[Scalar]:
    """Return the numbers that whoever made the run gave beside it."""
    return [(name, value, "Given with the run.") for name, value in metrics.items()]


def score_words(plan: Plan) -> str:
    """Return what a confidence is, in words."""
    model = plan.model
    kind = "value" if model.scores == "probability" and model.outputs == 1 else model.scores
    return f"{_SCORES[kind]} of the first prediction"


def precision_recall(run: Run) -> NDArray[np.float32] | None:
    """Return the curve of class 1, where labels are of two classes; see `curve_of`."""
    model = run.plan.model
    two = model.outputs == 2 or (model.outputs == 1 and "binary" in run.plan.target)
    if not two or model.scores != "probability":
        return None
    known = [
        (row.label_index, row.predictions[0])
        for row in run.index
        if row.label_index is not None and row.predictions
    ]
    return curve_of(known) if {label for label, _ in known} == {0, 1} else None


def curve_of(known: Sequence[tuple[int, Prediction]]) -> NDArray[np.float32]:
    """Count what a threshold on the score of class 1 gets right.

    Args:
        known: the label, 0 or 1, and the first prediction of each image.

    Returns:
        float32 (6, THRESHOLDS): true and false positives, true and false negatives, precision and
        recall; column k is the threshold k / (THRESHOLDS - 1).
    """
    labels = np.array([label == 1 for label, _ in known])
    scores = np.array([1 - said.score if said.index == 0 else said.score for _, said in known])
    levels = np.floor(scores * (THRESHOLDS - 1)).astype(int)
    counts = [np.bincount(levels[own], minlength=THRESHOLDS) for own in (labels, ~labels)]
    tp, fp = (count[::-1].cumsum()[::-1] for count in counts)
    tn, fn = fp[0] - fp, tp[0] - tp
    precision, recall = tp / np.maximum(1e-7, tp + fp), tp / np.maximum(1e-7, tp + fn)
    return np.stack((tp, fp, tn, fn, precision, recall)).astype(np.float32)
