"""From run folders to a comparison folder: joined, measured in one pass over the maps, written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

import exporter
from exporter.comparison.differences import shared_classes
from exporter.comparison.findings import findings
from exporter.comparison.folder import (
    IMAGES,
    TABLES,
    Comparison,
    Contents,
    open_comparison,
)
from exporter.comparison.images import PairSums, compare_images
from exporter.comparison.joining import Joined, join, metrics_of, relative
from exporter.comparison.layers import drift
from exporter.comparison.measures import shifts
from exporter.comparison.predictions import (
    Predictions,
    class_changes,
    contrasts,
    predictions_of,
    totals,
)
from exporter.comparison.records import (
    SCHEMA_VERSION,
    ComparedRun,
    ImageComparison,
    Likeness,
)
from exporter.comparison.rendering import WRITERS, refuse_writers, write_all
from exporter.errors import RunError
from exporter.store import Run, records_table, refuse_damaged, schema_of
from exporter.store.anonymous import key_of, release, write_key
from exporter.store.documents import json_bytes
from exporter.store.files import RunFiles
from exporter.store.layout import CHECKSUMS, COMPARISON, is_temporary
from exporter.store.tables import parquet_bytes
from exporter.stores import Place, on_disk
from exporter.watch import Watch

_OWN: Final = (*WRITERS, CHECKSUMS, COMPARISON, IMAGES, *(f"{name}.parquet" for name in TABLES))


def compare(
    *runs: str | Place | Run,
    out: str | Path,
    baseline: str | Place | None = None,
    writers: Collection[str] = WRITERS,
    overwrite: bool = False,
    single_file: bool = False,
    max_size: int | str = "20MB",
    anonymous: bool = False,
    watch: Watch | None = None,
) -> Comparison:
    """Compare runs, and write the comparison folder and its report.

    Runs are joined on the contents of their images; what varies (checkpoints, models, methods,
    targets, seeds, preprocessing) is found in their plans.

    Args:
        *runs: 2 to 50 run folders, or open runs; checkpoints are put in the order of their steps.
        out: the comparison folder.
        baseline: the run that the others are compared with; the first if None.
        writers: ``tensorboard``, ``wandb`` (offline) and ``html``, each a folder of the comparison.
        overwrite: replace a comparison that is there, with its key.
        single_file: write the report as one file too, ``html/report.html``.
        max_size: largest size of that file, such as ``20MB``; maps are left out to fit.
        anonymous: leave out of the whole folder who made the runs, where and with which files, for
            double-blind review; ``OUT.key.csv`` beside it keeps the images' names.
        watch: is told about progress.

    Returns:
        The comparison, open for reading.

    Raises:
        RunError: if a run cannot be read or is damaged, or no image is in all of them, in one
            sentence.
        ConfigError: if there is no such writer, or the size is invalid.
        WriterError: if the single file does not fit.

    Examples:
        >>> import tempfile
        >>> from exporter.demo import example_run
        >>> comparison = compare(
        ...     example_run().path, example_run(1).path, out=tempfile.mkdtemp(), writers=()
        ... )
        >>> comparison.contents.axis, comparison.contents.images
        ('weights', 2)
    """
    watch = watch or Watch()
    most = refuse_writers(writers, single_file=single_file, max_size=max_size)
    folder = on_disk(out, "a comparison is written to the disk")
    watch.begin("joining")
    joined = join(runs, baseline, unnamed=anonymous)
    for run in joined.runs:
        refuse_damaged(run, watch)
    files = _take(folder, joined, overwrite=overwrite)
    for note in joined.notes:
        watch.say(note)
    predicted = predictions_of(joined)
    watch.begin("comparing maps", len(joined.ids))
    likeness = _write_images(joined, predicted, files, watch)
    watch.begin("comparing layers")
    layers, channels, cka = drift(joined)
    shifted, left_out = shifts(joined, predicted)
    for note in left_out:
        watch.say(note)
    joined = replace(joined, notes=(*joined.notes, *left_out))
    rows: dict[str, Sequence[Any]] = {
        "classes": class_changes(joined, predicted),
        "similarity": likeness,
        "measures": shifted,
        "layers": layers,
        "channels": channels,
        "missing": joined.missing,
    }
    for name, record in TABLES.items():
        files.write(f"{name}.parquet", parquet_bytes(records_table(rows[name], schema_of(record))))
    contents = _contents(joined, predicted, rows, cka, files)
    if anonymous:
        contents = _without_names(contents)
        write_key(joined.runs, key_of(folder.resolve(), overwrite=True))
    files.write(COMPARISON, json_bytes(asdict(contents)))
    comparison = open_comparison(files.run)
    write_all(comparison, joined, predicted, writers, most=most, watch=watch)
    return comparison


def _without_names(contents: Contents) -> Contents:
    """Return the contents without where the runs are, and what of versions names a build."""
    return replace(
        contents,
        runs=tuple(replace(run, path="") for run in contents.runs),
        versions={name: release(text) for name, text in contents.versions.items()},
    )


def _take(out: Path, joined: Joined, *, overwrite: bool) -> RunFiles:
    """Make the folder, or empty it of an earlier comparison.

    Raises:
        RunError: if something else is there, or a comparison or its key and ``overwrite`` is not
            given.
    """
    files = RunFiles(out)
    if any(out.resolve() == run.path.resolve() for run in joined.runs):
        raise RunError(f"{str(out)!r} is one of the runs; give --out another folder")
    names = files.names()
    if COMPARISON in names and not overwrite:
        raise RunError(
            f"{str(out)!r} holds a comparison; give --overwrite to replace it, or another --out"
        )
    stems = {name.partition(".")[0] for name in _OWN}
    left = [name for name in names if is_temporary(name) and name.split(".")[1] in stems]
    if COMPARISON not in names and set(names).difference(_OWN, left):
        raise RunError(f"{str(out)!r} contains something else; give --out another folder")
    key = key_of(out.resolve(), overwrite=overwrite)
    files.make_folder()
    key.unlink(missing_ok=True)
    for name in (*left, *reversed(_OWN)):
        files.remove(name)
    return files


def _write_images(
    joined: Joined, predicted: Sequence[Predictions], files: RunFiles, watch: Watch
) -> list[Likeness]:
    """Write ``images.parquet`` in one pass over the maps, and return the means of all pairs."""
    schema = schema_of(ImageComparison)
    sums = PairSums(joined)
    options = {"use_dictionary": True, "compression": "ZSTD"}
    with files.built(IMAGES) as half:
        with pq.ParquetWriter(half, schema, **options) as file:
            for rows in compare_images(joined, predicted, sums):
                file.write_table(records_table(rows, schema))
                watch.advance(len(rows))
        half.replace(files.place(IMAGES))
    return list(sums.means())


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
            metrics=metrics_of(run),
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
