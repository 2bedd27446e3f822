"""What the report shows of the whole set: strips, calibration, pairs, concentration, agreement.

All of it was computed with the run and is read here; what a run lacks is not shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from exporter.records import (
    ClassRow,
    ConfusedPair,
    MethodAgreement,
    MethodRow,
    Plan,
    RedundantPair,
    SetSummary,
)

if TYPE_CHECKING:
    from exporter.store import Run

SHOWN = 8
"""Images of a strip that are drawn."""

PAIRS_ON_OVERVIEW, PAIRS_ON_CLASSES = 12, 200


@dataclass(frozen=True, slots=True)
class SetViews:
    """What the run knows of its set; each is None or empty where it was not computed.

    Attributes:
        summary: numbers, bins of calibration, strips and rules.
        classes: a row a class.
        confusion: confused pairs, the most frequent first.
        methods: a row a method and layer.
        agreement: a row a layer and pair of methods.
        redundant: pairs of redundant channels.
    """

    summary: SetSummary | None
    classes: Sequence[ClassRow]
    confusion: Sequence[ConfusedPair]
    methods: Sequence[MethodRow]
    agreement: Sequence[MethodAgreement]
    redundant: Sequence[RedundantPair]


def gather(run: Run) -> SetViews:
    """Read what the run knows of its set."""
    return SetViews(
        run.summary,
        run.classes(),
        run.confusion(),
        run.methods(),
        run.agreement(),
        run.redundant(),
    )


def strip_ids(views: SetViews) -> set[str]:
    """Return the images that the strips of the overview draw."""
    strips = views.summary.strips if views.summary else ()
    return {id for strip in strips for id in strip.ids[:SHOWN]}


def strips(views: SetViews, figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each strip with its rule and drawn images."""
    found = []
    for strip in views.summary.strips if views.summary else ():
        items = [figures[id] for id in strip.ids[:SHOWN] if id in figures]
        name, _, rule = strip.rule.partition(": ")
        if items:
            found.append({"name": name, "rule": rule, "of": strip.of, "shown": items})
    return found


def calibration(views: SetViews) -> dict[str, Any] | None:
    """Return the reliability diagram in units of a 100 by 100 square, y downwards.

    Returns:
        None where nothing was labelled; else ``error`` (a share), ``labelled``, ``confidence``,
        ``accuracy`` and ``bins``, each with its bar, its number of images and its gap.
    """
    summary = views.summary
    if summary is None or summary.calibration_error is None:
        return None
    most = max((one.images for one in summary.bins), default=0)
    bins = [
        {
            "lower": one.lower,
            "upper": one.upper,
            "images": one.images,
            "accuracy": one.accuracy,
            "confidence": one.confidence,
            "x": 100 * one.lower,
            "width": 100 * (one.upper - one.lower),
            "top": 100 - 100 * (one.accuracy or 0),
            "height": 100 * (one.accuracy or 0),
            "point": 100 * (one.confidence or 0),
            "share": 14 * one.images / most,
        }
        for one in summary.bins
        if one.images
    ]
    return {
        "error": summary.calibration_error,
        "labelled": summary.labelled,
        "confidence": summary.confidence,
        "accuracy": summary.accuracy,
        "bins": bins,
    }


def pairs(views: SetViews, plan: Plan, most: int, root: str) -> dict[str, Any] | None:
    """Return the most frequent confused pairs, each with a link to its images.

    Args:
        views: what the run knows.
        plan: its labels and classes.
        most: pairs at most.
        root: what leads to the report's first page.
    """
    if not views.confusion:
        return None
    times = Counter(plan.label_index.values())
    label_of = {index: label for label, index in plan.label_index.items() if times[index] == 1}
    pages = {one.index for one in views.classes}
    rows = []
    for pair in views.confusion[:most]:
        state = {"class": str(pair.predicted)}
        if pair.label in label_of:
            state["label"] = label_of[pair.label]
        rows.append(
            {
                "pair": pair,
                "label_page": f"{root}classes/{pair.label}.html" if pair.label in pages else None,
                "page": f"{root}classes/{pair.predicted}.html" if pair.predicted in pages else None,
                "images": f"{root}images.html#{urlencode(state)}" if len(state) == 2 else None,
                "share": pair.images / views.confusion[0].images,
            }
        )
    return {"rows": rows, "of": views.summary.confused_pairs if views.summary else len(rows)}


def concentration(views: SetViews, method: str) -> dict[str, Any]:
    """Return how concentrated one method's maps are, a row a layer, and which columns it needs."""
    rows: list[dict[str, Any]] = []
    annotated = 0
    for one in views.methods:
        if one.method == method:
            annotated = max(annotated, one.annotated)
            most = max(one.histogram, default=0)
            bars = [(at, 20 * n / most) for at, n in enumerate(one.histogram) if n and most]
            rows.append({"row": one, "bars": bars})
    return {"rows": rows, "annotated": annotated}


def faithfulness(run: Run) -> dict[str, Any] | None:
    """Return how faithful each method's maps are, and where; None where nobody asked."""
    titles = {one.name: one.title for one in run.plan.methods}
    known = run.faithfulness()
    rows = [{"title": titles[one.method], "row": one} for one in known]
    return {"layer": known[0].layer, "rows": rows} if known else None


def agreement(views: SetViews, plan: Plan) -> list[dict[str, Any]]:
    """Return a symmetric matrix of rank correlations for each layer."""
    titles = {one.name: one.title for one in plan.methods}
    layers: dict[str, dict[tuple[str, str], MethodAgreement]] = {}
    for one in views.agreement:
        known = layers.setdefault(one.layer, {})
        known[one.first, one.second] = known[one.second, one.first] = one
    found = []
    for layer, known in layers.items():
        names = [name for name in titles if any(name == first for first, _ in known)]
        matrix = [
            (titles[row], [None if row == column else _cell(known.get((row, column)))
                           for column in names])
            for row in names
        ]  # fmt: skip
        images = max(one.images for one in known.values())
        heads = [titles[name] for name in names]
        found.append({"layer": layer, "heads": heads, "rows": matrix, "images": images})
    return found


def _cell(pair: MethodAgreement | None) -> dict[str, Any]:
    if pair is None or pair.correlation is None:
        return {"value": None, "tint": "none"}
    step = round(10 * abs(pair.correlation))
    return {"value": pair.correlation, "tint": f"{'m' if pair.correlation < 0 else 'p'}{step}"}
