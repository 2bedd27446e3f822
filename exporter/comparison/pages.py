"""The pages of a comparison's report: what each template is filled with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from exporter.comparison.aligning import at_stage
from exporter.comparison.chart import CHART, chart_lines
from exporter.comparison.findings import p_value, signed
from exporter.comparison.measures import MEASURED
from exporter.comparison.records import ClassChange, ImageComparison, LayerDrift
from exporter.records import ratio
from exporter.render import decode_image
from exporter.writers.html.images import FIRST_PHOTOGRAPHS
from exporter.writers.html.index import photograph_file
from exporter.writers.html.text import percent

if TYPE_CHECKING:
    from exporter.comparison.html import Report

Figures = dict[str, tuple[str, list[str | None]]]
"""By image: the file of its photograph, and a picture of each run's map to lay over it."""

MOST_RUNS = 8
"""Runs of a strip at most: the first, the last and those between at even distances."""

STRIPS = {
    "lost": ("Right to wrong", ", most confident first"),
    "won": ("Wrong to right", ", most confident first"),
    "changed": (
        "Another class",
        " whose verdict stayed the same or is not known, most confident first",
    ),
    "moved": ("Maps that changed most", ", lowest mean rank correlation with the baseline first"),
}
"""Title and order of each strip of the first page."""


_AXES = {"nothing": "runs"} | {
    axis: f"{axis}s" for axis in ("checkpoint", "model", "target", "seed", "method")
}
"""What a comparison is of, where that is not called as its axis."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the report."""

    name: str
    title: str
    template: str
    contents: Callable[[Report], dict[str, Any]]
    exists: Callable[[Report], bool] = lambda _: True


def index(report: Report) -> dict[str, Any]:
    """Fill the first page: what differs, findings, numbers, strips and matrices."""
    told = report.comparison.contents
    columns = _even(len(told.runs), told.baseline)
    return {
        "title": _AXES.get(told.axis, told.axis),
        "deepest": at_stage(told.stages[-1].name) if told.stages else "",
        "strips": [
            (name, *STRIPS[name], [_figure(report, row, columns) for row in rows])
            for name, rows in report.strips.items()
            if rows
        ],
        "columns": [(at, told.runs[at].name) for at in columns],
        "contrasts": {row.run: row for row in told.contrasts},
        "curves": _curves(report),
        "chart_size": CHART,
        "measures": report.comparison.records("measures"),
        "measured": MEASURED,
        "likeness": _matrices(report),
        "signed": signed,
        "p_value": p_value,
    }


def images(report: Report) -> dict[str, Any]:
    """Fill the images page; its scripts read ``data/``."""
    told = report.comparison.contents
    rows = enumerate(islice(report.comparison.images(), FIRST_PHOTOGRAPHS))
    first = [(photograph_file(at, row.id), row) for at, row in rows]
    height, width = report.joined.plans[told.baseline].model.preprocessing.size
    return {"first": first, "still": round(160 * height / width), "shards": told.images > 0}


def classes(report: Report) -> dict[str, Any]:
    """Fill the page of classes: a row per class, a column per run."""
    by_name: dict[str, dict[int, ClassChange]] = {}
    for row in report.comparison.records("classes"):
        by_name.setdefault(row.name, {})[row.run] = row
    rows = sorted(
        by_name.items(),
        key=lambda item: (min(c.p for c in item[1].values()), item[0]),
    )
    return {"classes": rows, "signed": signed, "p_value": p_value}


def layers(report: Report) -> dict[str, Any]:
    """Fill the page of layers: drift curves, dead channels, CKA and the kernels side by side."""
    told = report.comparison.contents
    by_layer: dict[str, dict[int, LayerDrift]] = {}
    for row in report.comparison.records("layers"):
        by_layer.setdefault(row.layer, {})[row.run] = row
    curves = []
    for name, about in (
        ("kernels", "Mean cosine of the kernels with the baseline's"),
        ("channels", "Mean correlation of the channels' pooled responses with the baseline's"),
        ("cka", "Linear CKA with the baseline"),
    ):
        lines = [
            (
                layer,
                [
                    getattr(rows[run], name) if run in rows else None
                    for run in range(len(told.runs))
                ],
            )
            for layer, rows in by_layer.items()
        ]
        lines = [(layer, line) for layer, line in lines if sum(v is not None for v in line) > 1]
        if lines and len(told.runs) > 2:
            curves.append((about, *chart_lines(lines)))
    return {
        "layers": by_layer,
        "curves": curves,
        "kernels": _kernels(report),
        "chart_size": CHART,
    }


def runs(report: Report) -> dict[str, Any]:
    """Fill the page of runs: every setting, differences marked."""
    plans, told = report.joined.plans, report.comparison.contents.runs
    rows = [
        ("name of the model", [run.model for run in told]),
        ("weights", [plan.model.weights for plan in plans]),
        ("checkpoint", [_said(run.checkpoint) for run in told]),
        (
            "number of images",
            [f"{run.images:,}{'' if run.complete else ', not finished'}" for run in told],
        ),
    ]
    alike = {"weights": len({plan.model.same_weights for plan in plans}) == 1}
    # As they were asked for, these two say less than what the model was given.
    told_already = {key for key, _ in rows}
    keys = dict.fromkeys(key for plan in plans for key in plan.settings if key not in told_already)
    rows += [(key, [_said(plan.settings.get(key)) for plan in plans]) for key in keys]
    packages = sorted({name for plan in plans for name in plan.versions})
    rows += [
        (f"version of {name}", [plan.versions.get(name, "") for plan in plans]) for name in packages
    ]
    rows += [
        *(
            (f"{name}, given", [_said(run.metrics.get(name)) for run in told])
            for name in dict.fromkeys(name for run in told for name in run.metrics)
        ),
        ("created", [plan.created for plan in plans]),
    ]
    differ = [(key, values, len(set(values)) > 1 and not alike.get(key)) for key, values in rows]
    return {"settings": differ}


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_said(v)}" for k, v in value.items() if v is not None) or "none"
    words = {None: "none", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _even(count: int, baseline: int) -> list[int]:
    """Choose so many runs that fit beside one another.

    >>> _even(3, 0), len(_even(50, 7))
    ([0, 1, 2], 8)
    """
    if count <= MOST_RUNS:
        return list(range(count))
    chosen = {round(at * (count - 1) / (MOST_RUNS - 2)) for at in range(MOST_RUNS - 1)}
    return sorted({*chosen, baseline})


def _figure(report: Report, row: ImageComparison, columns: Sequence[int]) -> dict[str, Any]:
    file, heats = report.figures[row.id]
    told = [
        {
            "heat": heats[at],
            "name": verdict.name,
            "score": "" if verdict.score is None else percent(verdict.score),
            "correct": verdict.correct,
        }
        for at, verdict in enumerate(row.verdicts)
    ]
    return {
        "id": row.id,
        "src": file,
        "path": row.path,
        "label": row.label,
        "likeness": row.likeness,
        "runs": [told[at] for at in columns],
    }


def _curves(report: Report) -> tuple[Sequence[Any], float] | None:
    """Draw over the steps what has a value in at least two runs; None where there are no steps."""
    told = report.comparison.contents
    if any(run.step is None for run in told.runs) or len(told.runs) < 3:
        return None
    agreement: dict[int, float] = {}
    for row in report.comparison.records("measures"):
        if row.measure == "agreement":
            agreement |= {told.baseline: row.baseline, row.run: row.value}
    dead: Counter[int] = Counter()
    channels: Counter[int] = Counter()
    numbers = range(len(told.runs))
    layers = report.comparison.records("layers")
    known = Counter(layer.layer for layer in layers if layer.of)
    for layer in layers:
        if known[layer.layer] == len(told.runs):  # those that every run has
            dead[layer.run] += layer.dead or 0
            channels[layer.run] += layer.of or 0
    lines = (
        ("accuracy", [run.accuracy for run in told.runs]),
        ("agreement", [agreement.get(run) for run in numbers]),
        ("dead channels", [ratio(dead[run], channels[run]) for run in numbers]),
    )
    drawn = [(name, line) for name, line in lines if sum(v is not None for v in line) > 1]
    return chart_lines(drawn) if drawn else None


def _matrices(report: Report) -> list[dict[str, Any]]:
    """Return runs × runs of each method and stage: mean rank correlation of the maps."""
    told = report.comparison.contents
    count = len(told.runs)
    titles = {method.name: method.title for method in told.methods}
    tables: dict[tuple[str, str], list[list[Any]]] = {}
    seen: dict[tuple[str, str], int] = {}
    for row in report.comparison.records("similarity"):
        key = (row.method, row.stage)
        matrix = tables.setdefault(key, [[None] * count for _ in range(count)])
        matrix[row.first][row.second] = matrix[row.second][row.first] = row
        seen[key] = max(seen.get(key, 0), row.images)
    return [
        {
            "title": titles[method],
            "stage": stage,
            "at": at_stage(stage),
            "rows": rows,
            "images": seen[method, stage],
        }
        for (method, stage), rows in tables.items()
        if seen[method, stage]
    ]


def _kernels(report: Report) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Write each run's sheets of kernels; return those of a layer together."""
    told = report.comparison.contents
    layers: dict[str, list[dict[str, Any] | None]] = {}
    for at, run in enumerate(report.joined.runs):
        for number, record in enumerate(run.kernels()):
            sheet = run.kernel_sheet(record)
            height, width = decode_image(sheet).shape[:2]
            file = f"kernels/{at}-{number}.png"
            report.write(file, sheet)
            shown = {"src": file, "width": width, "height": height, "record": record}
            layers.setdefault(record.name, [None] * len(told.runs))[at] = shown
    return list(layers.items())


PAGES = (
    Page("index", "Comparison", "compare-index.html", index),
    Page("images", "Images", "compare-images.html", images),
    Page(
        "classes",
        "Classes",
        "compare-classes.html",
        classes,
        lambda report: bool(report.comparison.records("classes")),
    ),
    Page(
        "layers",
        "Layers",
        "compare-layers.html",
        layers,
        lambda report: bool(report.comparison.records("layers")),
    ),
    Page("runs", "Runs", "compare-runs.html", runs),
)
