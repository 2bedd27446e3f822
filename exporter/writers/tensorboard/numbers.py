"""TensorBoard's numbers of a run: scalars, histograms, curves and the confusion.

Tags are the same in every run, so that models, methods and checkpoints draw lines in one chart:
``set/…`` in the run of the model and in that of each method, ``statistics/…`` of layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.render import confusion_sheet, encode_png
from exporter.writers import links
from exporter.writers.reading import SetNumbers
from exporter.writers.tensorboard.events import (
    histogram_summary,
    image_summary,
    tensor_summary,
)

if TYPE_CHECKING:
    from exporter.records import ModelRecord, Plan, Prediction
    from exporter.store import Run

Scalar = tuple[str, float | None, str]
"""Name below ``set/``, value and what it is."""

CONFUSED = 20
"""Classes of the picture of the confusion matrix, those with most labels."""

THRESHOLDS = 201

_SCORES = {"probability": "probability", "share": "share of the area", "value": "output"}


def set_scalars(run: Run, numbers: SetNumbers) -> list[Scalar]:
    """Return the scalars of the whole set; None where there is nothing to say."""
    partial = "" if run.complete else " The run is partial: these are the images so far."
    what, judged = _score(run.plan), numbers.judged
    of = f"of {numbers.losses.size} labelled images.{partial}"
    summary = run.summary if run.complete else None
    agreement = [row.agreement for row in run.measures() if row.agreement is not None]
    return [
        ("images", numbers.read, f"Images read.{partial}"),
        ("skipped", numbers.skipped, "Images that could not be read."),
        (
            "accuracy",
            numbers.correct / judged if judged else None,
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
                sum(known) / len(known) if known else None,
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
            ("deletion", faith.deletion, f"{of} area under deletion, less is better."),
            ("insertion", faith.insertion, f"{of} area under insertion, more is better."),
            ("ROAD", faith.road, f"{of} remove and debias, more is better."),
            *((other.name, other.value, other.about) for other in faith.others),
        ]
    return scalars


def scalar_summaries(scalars: Iterable[Scalar]) -> Iterator[Any]:
    """Yield the summary of each scalar that has a finite value."""
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    for name, number, description in scalars:
        if number is not None and np.isfinite(number):
            yield scalar_pb(f"set/{links.tag_text(name)}", number, description)


def set_summaries(run: Run, numbers: SetNumbers) -> Iterator[Any]:
    """Yield histograms, statistics of layers, and the pictures and curves of the predictions."""
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    if numbers.scores.size:
        yield histogram_summary("set/confidence", numbers.scores, f"The {_score(run.plan)}.")
    for layer, rows in groupby(run.channels(), key=lambda row: row.layer):
        channels, name = list(rows), links.tag_text(layer)
        count = len(channels)
        said = f"Mean share of exact zeros, {count} channels, {channels[0].images} images."
        sparsity = np.mean([row.sparsity for row in channels])
        yield scalar_pb(f"statistics/sparsity/{name}", float(sparsity), said)
        said = f"Share of the {count} channels that are zero in every image."
        dead = np.mean([row.dead for row in channels])
        yield scalar_pb(f"statistics/dead channels/{name}", float(dead), said)
        said = "Mean activation of each channel over positions and images."
        means = np.array([row.mean for row in channels])
        yield histogram_summary(f"statistics/mean activation/{name}", means, said)
    yield from _confusion(run)
    yield from _precision_recall(run)


def _score(plan: Plan) -> str:
    model = plan.model
    kind = "value" if model.scores == "probability" and model.outputs == 1 else model.scores
    return f"{_SCORES[kind]} of the first prediction"


def _confusion(run: Run) -> Iterator[Any]:
    """Yield the confusion matrix of the classes with most labels, if there are labels."""
    classes = sorted(run.classes(), key=lambda row: (-row.support, row.index))[:CONFUSED]
    places = {row.index: place for place, row in enumerate(classes) if row.support}
    if not places:
        return
    counts = np.zeros((len(places), len(places)), np.int64)
    for row in classes[: len(places)]:
        counts[places[row.index], places[row.index]] = row.correct
    for pair in run.confusion():
        if pair.label in places and pair.predicted in places:
            counts[places[pair.label], places[pair.predicted]] = pair.images
    drawn = confusion_sheet([row.name for row in classes[: len(places)]], counts)
    labelled = sum(row.support > 0 for row in run.classes())
    yield image_summary(
        "set/confusion",
        [encode_png(drawn)],
        (drawn.shape[1], drawn.shape[0]),
        description=f"Images by label (rows) and first prediction (columns): {len(places)} of "
        f"{labelled} labelled classes, those with most labels. Colours are shares of a row.",
    )


def _precision_recall(run: Run) -> Iterator[Any]:
    """Yield the precision-recall curve of class 1, where labels are of two classes."""
    model = run.plan.model
    two = model.outputs == 2 or (model.outputs == 1 and "binary" in run.plan.target)
    if not two or model.scores != "probability":
        return
    known = [
        (row.label_index, row.predictions[0])
        for row in run.index
        if row.label_index is not None and row.predictions
    ]
    if {label for label, _ in known} == {0, 1}:
        yield precision_recall(model, known)


def precision_recall(model: ModelRecord, known: Sequence[tuple[int, Prediction]]) -> Any:
    """Return the summary of precision and recall of class 1 over 201 thresholds.

    Args:
        model: of two classes.
        known: the label and the first prediction of each image.
    """
    from tensorboard.plugins.pr_curve import metadata

    labels = np.array([label == 1 for label, _ in known])
    scores = np.array([1 - said.score if said.index == 0 else said.score for _, said in known])
    levels = np.floor(scores * (THRESHOLDS - 1)).astype(int)
    counts = [np.bincount(levels[own], minlength=THRESHOLDS) for own in (labels, ~labels)]
    tp, fp = (count[::-1].cumsum()[::-1] for count in counts)
    tn, fn = fp[0] - fp, tp[0] - tp
    precision, recall = tp / np.maximum(1e-7, tp + fp), tp / np.maximum(1e-7, tp + fn)
    name = model.classes[1] if len(model.classes) > 1 else "class 1"
    said = f"Precision and recall of {name}, {len(known)} labelled images."
    content = metadata.create_summary_metadata("", links.escape_markdown(said), THRESHOLDS)
    curve = np.stack((tp, fp, tn, fn, precision, recall)).astype(np.float32)
    return tensor_summary("set/precision and recall", content, curve)
