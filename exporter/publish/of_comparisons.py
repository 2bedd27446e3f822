"""The tables of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from exporter.comparison import Comparison
from exporter.errors import RunError
from exporter.publish.tabular import Cell, Numbers, Table


def _names(comparison: Comparison) -> list[str]:
    return [run.name for run in comparison.contents.runs]


def _titles(comparison: Comparison) -> dict[str, str]:
    return {method.name: method.title for method in comparison.contents.methods}


def _compared_accuracy(comparison: Comparison) -> Table:
    told = comparison.contents
    if all(run.accuracy is None for run in told.runs):
        raise RunError(
            f"no image of {str(comparison.path)!r} has a label that every run knows; choose "
            "another table, such as similarity"
        )
    by_run = {contrast.run: contrast for contrast in told.contrasts}
    rows: list[tuple[Cell, ...]] = []
    for place, run in enumerate(told.runs):
        contrast = by_run.get(place)
        accuracy = None if run.accuracy is None else 100 * run.accuracy
        ends: list[Cell] = [None, None, None, None]
        if contrast and contrast.difference is not None:
            percent = (contrast.difference, contrast.low, contrast.high)
            ends = [*(None if v is None else 100 * v for v in percent), contrast.p_holm]
        rows.append((run.name, run.labelled, accuracy, *ends))
    return Table(
        f"Accuracy in percent, and its difference from {told.runs[told.baseline].name} with the "
        "95 % interval of a paired bootstrap and the exact p of McNemar's test (Holm).",
        ("Run",),
        (Numbers("Images"), Numbers("Accuracy", "higher", 1), Numbers("Difference", "", 1),
         Numbers("low", "", 1), Numbers("high", "", 1), Numbers("p", p=True)),
        tuple(rows),
    )  # fmt: skip


def _flips(comparison: Comparison) -> Table:
    names = _names(comparison)
    return Table(
        f"Images whose prediction differs from {names[comparison.contents.baseline]}.",
        ("Run",),
        (Numbers("Right to wrong", "lower"), Numbers("Wrong to right", "higher"),
         Numbers("Changed"), Numbers("Images")),
        tuple(
            (names[row.run], row.lost, row.won, row.changed, row.of)
            for row in comparison.contents.contrasts
        ),
    )  # fmt: skip


def _similarity(comparison: Comparison) -> Table:
    names, titles = _names(comparison), _titles(comparison)
    return Table(
        "Similarity of the maps of two runs: rank correlation, structural similarity, and "
        "intersection over union of the top 20 % of cells; means over images.",
        ("Run", "Other", "Method", "Stage"),
        (Numbers("Images"), Numbers("Spearman"), Numbers("SSIM"), Numbers("IoU")),
        tuple(
            (names[row.first], names[row.second], titles.get(row.method, row.method), row.stage,
             row.images, row.spearman, row.ssim, row.iou)
            for row in comparison.records("similarity")
        ),
    )  # fmt: skip


def _measures(comparison: Comparison) -> Table:
    names, titles = _names(comparison), _titles(comparison)
    return Table(
        f"Mean of each measure over the images, and its difference from "
        f"{names[comparison.contents.baseline]} with the 95 % interval of a paired bootstrap.",
        ("Run", "Measure", "Method"),
        (Numbers("Images"), Numbers("Mean"), Numbers("Difference"), Numbers("low"),
         Numbers("high")),
        tuple(
            (names[row.run], row.measure, titles.get(row.method, row.method), row.images,
             row.value, row.difference, row.low, row.high)
            for row in comparison.records("measures")
        ),
    )  # fmt: skip


def _changed_classes(comparison: Comparison) -> Table:
    names = _names(comparison)
    return Table(
        f"Recall by class, beside {names[comparison.contents.baseline]}, with the exact p of "
        "McNemar's test (Holm).",
        ("Class", "Run"),
        (Numbers("Images"), Numbers("Baseline"), Numbers("Recall"), Numbers("p", p=True)),
        tuple(
            (row.name, names[row.run], row.images, row.baseline, row.recall, row.p_holm)
            for row in comparison.records("classes")
        ),
    )  # fmt: skip


def _layers(comparison: Comparison) -> Table:
    names = _names(comparison)
    return Table(
        f"How far each layer has moved from {names[comparison.contents.baseline]}: mean cosine of "
        "the kernels, mean correlation of the channels' responses, linear CKA; and the "
        "channels that are dead.",
        ("Run", "Layer"),
        (Numbers("Kernels"), Numbers("Channels"), Numbers("CKA"), Numbers("Dead")),
        tuple(
            (names[row.run], row.other, row.kernels, row.channels, row.cka, row.dead)
            for row in comparison.records("layers")
        ),
    )  # fmt: skip


OF_COMPARISONS: Final[Mapping[str, Callable[[Comparison], Table]]] = {
    "accuracy": _compared_accuracy,
    "flips": _flips,
    "similarity": _similarity,
    "measures": _measures,
    "classes": _changed_classes,
    "layers": _layers,
}
