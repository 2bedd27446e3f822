"""TensorBoard's numbers of a run: scalars, histograms, curves and the confusion.

Tags are the same in every run, so that models, methods and checkpoints draw lines in one chart:
``set/…`` in the run of the model and in that of each method, ``statistics/…`` of layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from exporter.render import confusion_sheet, encode_png
from exporter.store import Run
from exporter.writers import links
from exporter.writers.reading import SetNumbers
from exporter.writers.scalars import THRESHOLDS, Scalar, precision_recall, score_words
from exporter.writers.tensorboard.events import (
    histogram_summary,
    image_summary,
    tensor_summary,
)

CONFUSED = 20
"""Classes of the picture of the confusion matrix, those with most labels and predictions."""


def scalar_summaries(scalars: Iterable[Scalar], group: str = "set") -> Iterator[Any]:
    """Yield the summary of each scalar that has a finite value, under ``group/``."""
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    for name, number, description in scalars:
        if number is not None and np.isfinite(number):
            yield scalar_pb(f"{group}/{links.tag_text(name)}", number, description)


def set_summaries(run: Run, numbers: SetNumbers) -> Iterator[Any]:
    """Yield histograms, statistics of layers, and the pictures and curves of the predictions."""
    from tensorboard.plugins.pr_curve import metadata as pr_curve
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    if numbers.scores.size:
        yield histogram_summary("set/confidence", numbers.scores, f"The {score_words(run.plan)}.")
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
    curve = precision_recall(run)
    if curve is not None:
        said = f"Precision and recall of {links.class_name(run.plan.model, 1)}."
        content = pr_curve.create_summary_metadata("", links.escape_markdown(said), THRESHOLDS)
        yield tensor_summary("set/precision and recall", content, curve)


def _confusion(run: Run) -> Iterator[Any]:
    """Yield the confusion matrix of the classes with most images, if there are labels."""
    every = run.classes()
    classes = sorted(every, key=lambda row: (-row.support - row.predicted, row.index))[:CONFUSED]
    places = {row.index: place for place, row in enumerate(classes)}
    if not any(row.support for row in classes):
        return
    counts = np.zeros((len(places), len(places)), np.int64)
    for row in classes:
        counts[places[row.index], places[row.index]] = row.correct
    for pair in run.confusion():
        if pair.label in places and pair.predicted in places:
            counts[places[pair.label], places[pair.predicted]] = pair.images
    drawn = confusion_sheet([row.name for row in classes], counts)
    yield image_summary(
        "set/confusion",
        [encode_png(drawn)],
        (drawn.shape[1], drawn.shape[0]),
        description=f"Images by label (rows) and first prediction (columns): {len(places)} of "
        f"{len(every)} classes, those with most images. Colours are shares of a row.",
    )
