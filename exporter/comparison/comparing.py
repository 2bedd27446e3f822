"""From run folders to a comparison folder: joined, measured in one pass over the maps, written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

import exporter
from exporter.comparison.differences import shared_classes
from exporter.comparison.findings import findings
from exporter.comparison.folder import (
    DOCUMENT,
    IMAGES,
    TABLES,
    Comparison,
    Contents,
    open_comparison,
)
from exporter.comparison.joining import Joined, join, relative
from exporter.comparison.layers import drift
from exporter.comparison.predictions import (
    Predictions,
    class_changes,
    contrasts,
    flips,
    predictions_of,
    shifts,
    totals,
)
from exporter.comparison.records import (
    SCHEMA_VERSION,
    ComparedRun,
    ImageComparison,
    Likeness,
    MapChange,
    Verdict,
)
from exporter.comparison.similarity import alike
from exporter.errors import RunError
from exporter.records import Row
from exporter.store import records_table, schema_of
from exporter.store.documents import json_bytes
from exporter.store.files import RunFiles
from exporter.store.tables import parquet_bytes
from exporter.summaries.grids import pairs
from exporter.watch import Watch

ROWS_AT_ONCE: Final = 256
"""Rows of maps in memory at a time, of all runs together."""

NUMBERS: Final = ("spearman", "ssim", "iou")

_OWN: Final = ("html", DOCUMENT, IMAGES, *(f"{name}.parquet" for name in TABLES))


def compare(
    *runs: str | Path,
    out: str | Path,
    baseline: str | Path | None = None,
    html: bool = True,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Comparison:
    """Compare runs, and write the comparison folder and its report.

    Runs are joined on the contents of their images; what varies (checkpoints, models, methods,
    targets, seeds, preprocessing) is found in their plans.

    Args:
        *runs: 2 to 50 run folders; checkpoints are put in the order of their steps.
        out: the comparison folder.
        baseline: the run that the others are held against; the first where None.
        html: whether the report is written, ``out/html/index.html``.
        overwrite: replace a comparison that is there.
        watch: told how the work goes on.

    Returns:
        The comparison, open for reading.

    Raises:
        RunError: if a run cannot be read, or no image is in all of them; one sentence.
    """
    watch = watch or Watch()
    watch.begin("joining")
    joined = join(runs, baseline)
    files = _take(Path(out), joined, overwrite=overwrite)
    for note in joined.notes:
        watch.say(note)
    predicted = predictions_of(joined)
    watch.begin("comparing maps", len(joined.ids))
    likeness = _write_images(joined, predicted, files, watch)
    watch.begin("comparing layers")
    layers, channels, cka = drift(joined)
    rows: dict[str, Sequence[Any]] = {
        "classes": class_changes(joined, predicted),
        "similarity": likeness,
        "measures": shifts(joined, predicted),
        "layers": layers,
        "channels": channels,
        "missing": joined.missing,
    }
    for name, record in TABLES.items():
        files.write(f"{name}.parquet", parquet_bytes(records_table(rows[name], schema_of(record))))
    contents = _contents(joined, predicted, rows, cka, files)
    files.write(DOCUMENT, json_bytes(asdict(contents)))
    comparison = open_comparison(files.run)
    if html:
        from exporter.comparison.html import write_report

        watch.begin("writing html", len(joined.ids))
        write_report(comparison, joined, predicted, watch)
    return comparison


def _take(out: Path, joined: Joined, *, overwrite: bool) -> RunFiles:
    """Make the folder, or empty it of an earlier comparison.

    Raises:
        RunError: if something else is there, or a comparison and ``overwrite`` is not given.
    """
    files = RunFiles(out)
    if any(out.resolve() == run.path.resolve() for run in joined.runs):
        raise RunError(f"{str(out)!r} is one of the runs; give --out another folder")
    names = files.names()
    if DOCUMENT in names or any(name in names for name in TABLES):
        if not overwrite:
            raise RunError(
                f"{str(out)!r} holds a comparison; give --overwrite to replace it, or another --out"
            )
    elif names and set(names) - set(_OWN):
        raise RunError(f"{str(out)!r} holds something else; give --out another folder")
    files.make_folder()
    for name in reversed(_OWN):
        files.remove(name)
    return files


def blocks(joined: Joined, columns: Sequence[str]) -> Iterator[tuple[int, list[tuple[Row, ...]]]]:
    """Yield the shared images a few at a time: the place of the first, and each image's rows."""
    readers = [run.chosen(joined.ids, columns) for run in joined.runs]
    images = zip(*readers, strict=True)
    step = max(8, ROWS_AT_ONCE // len(joined.runs))
    start = 0
    while block := list(islice(images, step)):
        yield start, block
        start += len(block)


@dataclass(slots=True)
class _Sums:
    """Sums over images of how alike the maps of a method at a stage are, for every two runs."""

    images: NDArray[np.int64]
    sums: NDArray[np.float64]

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in (3, n, P) values, NaN where there is none."""
        self.images += (~np.isnan(values[0])).sum(axis=0)
        self.sums += np.nansum(values, axis=1)


def _write_images(
    joined: Joined, predicted: Sequence[Predictions], files: RunFiles, watch: Watch
) -> list[Likeness]:
    """Write ``images.parquet`` in one pass over the maps, and return the means of all pairs."""
    base, count = joined.baseline, len(joined.runs)
    first, second = np.array(pairs(count)).T
    # The pair of the baseline and each run.
    column = [
        next((p for p in range(len(first)) if {first[p], second[p]} == {run, base}), -1)
        for run in range(count)
    ]
    others = [run for run in range(count) if run != base]
    by_name = shared_classes(joined.plans)
    flip = [flips(own, predicted[base], by_name=by_name) for own in predicted]
    sums: dict[tuple[str, str], _Sums] = {}
    schema = schema_of(ImageComparison)
    options = {"use_dictionary": True, "compression": "ZSTD"}
    with files.built(IMAGES) as half:
        with pq.ParquetWriter(half, schema, **options) as file:
            for start, images in blocks(joined, ("label", "crop", "maps")):
                told: dict[tuple[str, str], NDArray[np.float64]] = {}
                for method in joined.methods:
                    for stage, values in alike(images, method, joined.stages_of(method)):
                        key = (method.name, stage.name)
                        told[key] = np.stack([getattr(values, name) for name in NUMBERS])
                        shape = len(first)
                        empty = _Sums(np.zeros(shape, np.int64), np.zeros((3, shape)))
                        sums.setdefault(key, empty).add(told[key])
                rows = []
                for n, image in enumerate(images):
                    at = start + n
                    maps = [
                        MapChange(
                            run, *key, *(_number(values[k, n, column[run]]) for k in range(3))
                        )
                        for key, values in told.items()
                        for run in others
                        if not np.isnan(values[:, n, column[run]]).all()
                    ]
                    known = [change.spearman for change in maps if change.spearman is not None]
                    rows.append(
                        ImageComparison(
                            id=image[base].id,
                            path=image[base].path,
                            label=image[base].label,
                            verdicts=tuple(
                                _verdict(own, at, str(flip[run][at]))
                                for run, own in enumerate(predicted)
                            ),
                            likeness=float(np.mean(known)) if known else None,
                            maps=tuple(maps),
                        )
                    )
                file.write_table(records_table(rows, schema))
                watch.advance(len(images))
        half.replace(files.place(IMAGES))
    return [
        Likeness(
            int(first[p]), int(second[p]), *key, int(own.images[p]),
            *(float(own.sums[k, p] / own.images[p]) if own.images[p] else None for k in range(3)),
        )
        for key, own in sums.items()
        for p in range(len(first))
    ]  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _verdict(own: Predictions, at: int, flip: str) -> Verdict:
    code, right = int(own.predicted[at]), own.correct[at]
    return Verdict(
        name=own.names[code] if code >= 0 else None,
        score=_number(own.score[at]),
        correct=None if np.isnan(right) else bool(right),
        flip=flip,
    )


def _contents(
    joined: Joined,
    predicted: Sequence[Predictions],
    rows: Mapping[str, Sequence[Any]],
    cka: Mapping[str, Any],
    files: RunFiles,
) -> Contents:
    labelled = ~np.isnan(sum(own.correct for own in predicted))
    runs = tuple(
        ComparedRun(
            name=name,
            path=relative(run.path, files.run),
            model=run.plan.model.title,
            weights=run.plan.model.weights,
            checkpoint=run.plan.model.checkpoint,
            step=step,
            images=len(run.plan.images),
            complete=run.complete,
            **totals(own, labelled),  # type: ignore[arg-type]
        )
        for run, name, step, own in zip(
            joined.runs, joined.names, joined.steps, predicted, strict=True
        )
    )
    against = tuple(contrasts(joined, list(predicted)))
    agreement: tuple[tuple[float, ...], ...] = ()
    if shared_classes(joined.plans):
        codes = [own.predicted for own in predicted]
        agreement = tuple(tuple(float((a == b).mean()) for b in codes) for a in codes)
    stages = (
        *((joined.pixels,) if any(method.pixel for method in joined.methods) else ()),
        *joined.stages,
    )
    return Contents(
        schema=SCHEMA_VERSION,
        axis=joined.axis,
        baseline=joined.baseline,
        runs=runs,
        differences=joined.differences,
        methods=joined.methods,
        stages=stages,
        images=len(joined.ids),
        missing=len(joined.missing),
        contrasts=against,
        agreement=agreement,
        cka=cka,
        findings=tuple(findings(joined, runs, against, rows)),
        notes=joined.notes,
        versions={"exporter": exporter.__version__},
    )
