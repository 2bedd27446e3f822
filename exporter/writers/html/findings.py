"""What a run found, in sentences that a person would say first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from exporter.records import COMBINED, MEANS_NOTHING, Plan, ratio
from exporter.store import Run
from exporter.summaries.sanity import unmoved
from exporter.writers.html.text import count, decimal, layer_words, number, percent, score
from exporter.writers.links import shown_path

EVEN = 0.02
"""Difference of mean confidence and accuracy below which nothing is said of it."""

CALIBRATED = 0.05
"""Expected calibration error from which on a model is not called well calibrated."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence.

    Attributes:
        about: what it is about, in a word or two.
        text: the sentence.
        page: the report's page that shows more, without ``.html``; ``layer`` for a layer's own.
        at: the place on that page, or the state of the images page; of ``layer`` its name.
    """

    about: str
    text: str
    page: str
    at: str = ""


def findings(run: Run) -> list[Finding]:
    """Say what a run found, the most telling first; nothing of a run that is not complete."""
    if run.summary is None:
        return []
    parts = (_accuracy, _confusion, _agreement, _faithfulness, _sanity, _flagged, _dead, _unread)
    return [finding for part in (_random, *parts, _first) for finding in part(run)]


def _random(run: Run) -> Iterator[Finding]:
    if run.plan.model.random:
        text = f"The model was given no weights, and {MEANS_NOTHING}."
        yield Finding("Random weights", text, "index", "what")


def _accuracy(run: Run) -> Iterator[Finding]:
    summary = run.summary
    if summary is None or summary.accuracy is None:
        return
    text = (
        f"The model is right on {number(summary.correct)} of "
        f"{count(summary.labelled, 'labelled image')} ({percent(summary.accuracy)})."
    )
    yield Finding("Accuracy", text, "images", "outcome=wrong")
    surest = sum(part.images * (part.confidence or 0) for part in summary.bins)
    confidence = ratio(surest, sum(part.images for part in summary.bins))
    if confidence is None or summary.calibration_error is None:
        return
    gap = confidence - summary.accuracy
    how = "well calibrated"
    if abs(gap) >= EVEN:
        how = "overconfident" if gap > 0 else "underconfident"
    elif summary.calibration_error >= CALIBRATED:
        how = "neither over- nor underconfident on average, but not well calibrated"
    yield Finding(
        "Calibration",
        f"It is {how}: its mean confidence is {percent(confidence)}, its expected calibration "
        f"error is {percent(summary.calibration_error)}.",
        "index",
        "calibration",
    )


def _confusion(run: Run) -> Iterator[Finding]:
    pairs = run.confusion(limit=2)
    # One image says nothing of what is mistaken most often.
    if not pairs or pairs[0].images < 2:
        return
    pair, tied = pairs[0], len({pair.images for pair in pairs}) < len(pairs)
    labels = [name for name, index in run.plan.label_index.items() if index == pair.label]
    support = next((row.support for row in run.classes() if row.index == pair.label), 0)
    state = urlencode({"class": pair.predicted, "label": labels[0]}) if len(labels) == 1 else ""
    yield Finding(
        "Confusion",
        f"It mistakes {pair.label_name} for {pair.predicted_name} most often"
        f"{', and another pair as often' if tied else ''}: "
        f"{number(pair.images)} of {count(support, 'image')} with that label.",
        "images" if state else "classes",
        state or "pairs",
    )


def _agreement(run: Run) -> Iterator[Finding]:
    by_layer: dict[str, list[float]] = defaultdict(list)
    for row in run.agreement():
        if row.correlation is not None:
            by_layer[row.layer].append(row.correlation)
    means = {
        layer: sum(values) / len(values)
        for layer, values in by_layer.items()
        if layer not in ("", *COMBINED)
    }
    if not means:
        return
    most, least = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    text = (
        f"The mean rank correlation of the methods' maps at {layer_words(most)} is "
        f"{decimal(means[most])}."
    )
    if len(means) > 1:
        text = (
            f"The methods agree most at {layer_words(most)} (mean rank correlation "
            f"{decimal(means[most])}) and least at {layer_words(least)} ({decimal(means[least])})."
        )
    yield Finding("Agreement", text, "methods", "agree")


def _faithfulness(run: Run) -> Iterator[Finding]:
    measured = [row for row in run.faithfulness() if row.insertion is not None]
    if len(measured) < 2:
        return
    best = max(measured, key=lambda row: row.insertion or 0.0)
    yield Finding(
        "Faithfulness",
        f"By insertion, the maps of {_title(run.plan, best.method)} are the most faithful: "
        f"{decimal(best.insertion or 0.0)}, mean of {count(best.images, 'image')}.",
        "methods",
        "faithful",
    )


def _sanity(run: Run) -> Iterator[Finding]:
    rows = run.sanity()
    if not rows:
        return
    titles = [_title(run.plan, method) for method in unmoved(rows)]
    text = "Every method's maps change as the model is randomised."
    if titles:
        text = (
            f"The maps of {' and '.join(titles)} hardly change as the model is randomised, so they "
            "say little of what it has learnt."
        )
    yield Finding("Sanity", text, "methods", "sane")


def _flagged(run: Run) -> Iterator[Finding]:
    flagged = run.totals.flagged if run.totals else {}
    if not flagged:
        return
    worst, total = max(flagged, key=flagged.__getitem__), sum(flagged.values())
    method, _, rest = worst.partition(" ")
    layer, _, flag = rest.rpartition(" ")
    where = f"{_title(run.plan, method)}{f' at {layer_words(layer)}' if layer else ''}"
    if flagged[worst] < total:
        which = f", most often {where} ({number(flagged[worst])}, {flag})"
    else:
        which = f"{':' if total == 1 else ', all of'} {where} ({flag})"
    text = f"{count(total, 'map shows', 'maps show')} nothing{which}."
    yield Finding("Flagged", text, "images", "maps=flagged")


def _dead(run: Run) -> Iterator[Finding]:
    dead: dict[str, list[bool]] = defaultdict(list)
    for row in run.channels():
        dead[row.layer].append(row.dead)
    if not any(map(any, dead.values())):
        return
    worst = max(dead, key=lambda layer: sum(dead[layer]) / len(dead[layer]))
    yield Finding(
        "Dead channels",
        f"No image activates {number(sum(dead[worst]))} of {count(len(dead[worst]), 'channel')} of "
        f"{layer_words(worst)}.",
        "layer",
        worst,
    )


def _unread(run: Run) -> Iterator[Finding]:
    skipped = len(run.totals.skipped) if run.totals else 0
    if skipped:
        text = f"{count(skipped, 'image')} could not be read."
        yield Finding("Skipped", text, "index", "skipped")


def _first(run: Run) -> Iterator[Finding]:
    strips = run.summary.strips if run.summary else ()
    for strip in strips[:1]:
        row = run.row(strip.ids[0])
        said = f"{row.predictions[0].name} ({score(row.predictions[0].score, run.plan)})"
        label = f", labelled {row.label}" if row.correct is False else ""
        yield Finding(
            "Look first",
            f"Begin with {shown_path(row.path)} ({strip.name}): predicted {said}{label}.",
            "images",
            f"image={row.id}",
        )


def _title(plan: Plan, method: str) -> str:
    return next((known.title for known in plan.methods if known.name == method), method)
