"""Whether every shard, image and kernel of a run is there and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import RunError
from exporter.records import Plan
from exporter.store import layout
from exporter.store.files import sha256
from exporter.store.reader import Run, open_run
from exporter.store.recipes import way_on
from exporter.store.schema import ROW_SCHEMA
from exporter.store.tables import read_parquet

_RESUME = "go on with --resume"


def check(path: Path | str) -> tuple[str, ...]:
    """Verify a run folder: shards, checksums, rows, maps, pictures and kernels.

    Args:
        path: the run folder.

    Returns:
        A sentence a problem; nothing where the run is complete and whole.

    Raises:
        RunError: if there is no run, its plan is damaged, or a newer exporter wrote it.
    """
    run = open_run(path)
    parts: tuple[Callable[[Run], Iterator[str]], ...] = (
        _completeness,
        _shards,
        _checksums,
        _summaries,
        _kernels,
        _leftovers,
    )
    return tuple(problem for part in parts for problem in part(run))


def _completeness(run: Run) -> Iterator[str]:
    there, all_ = len(run.shards), len(run.plan.shards)
    if not run.complete:
        go_on = f"go on with {way_on(run.path, missing=there < all_)}"
        yield f"the run is not complete: {there} of {all_} shards are there; {go_on}"
        return
    for index in sorted(set(range(all_)) - set(run.shards)):
        yield f"shards/{index:05d}.parquet is missing; {_RESUME}"
    try:
        totals = run.totals
    except RunError as error:
        yield str(error)
        return
    if totals is not None and totals.images != len(run.plan.images):
        yield f"run.json counts {totals.images} images and the plan has {len(run.plan.images)}"


def _shards(run: Run) -> Iterator[str]:
    for index in run.shards:
        file = layout.shard_file(run.path, index)
        name = file.relative_to(run.path).as_posix()
        try:
            table = read_parquet(file)
        except RunError as error:
            yield str(error)
            continue
        if not table.schema.equals(ROW_SCHEMA):
            yield f"{name} does not have the columns of the row schema; remove it and {_RESUME}"
            continue
        yield from (f"{name}: {problem}" for problem in _rows(table, run.plan, index))


def _rows(table: pa.Table, plan: Plan, index: int) -> Iterator[str]:
    start, stop = plan.shards[index]
    if len(table) != stop - start:
        yield f"it has {len(table)} rows and the plan has {stop - start}"
    elif table.column("id").to_pylist() != [image.id for image in plan.images[start:stop]]:
        yield "its rows are not the images of the plan"
    for row in table.select(["id", "image", "error"]).to_pylist():
        picture = (row["image"] or {}).get("bytes")
        if row["error"] is None and not _is_jpeg(picture):
            yield f"the picture of {row['id']!r} is not a JPEG"
    yield from _sizes(table)


def _is_jpeg(content: bytes | None) -> bool:
    return bool(content) and content[:2] == b"\xff\xd8" and content[-2:] == b"\xff\xd9"  # type: ignore[index]


def _sizes(table: pa.Table) -> Iterator[str]:
    for column, level in (("maps", 2), ("activations", 1)):
        lists = table.column(column).combine_chunks()
        flat = pa.Table.from_struct_array(pc.list_flatten(lists))
        cells = pc.multiply(flat.column("height"), flat.column("width"))
        if column == "activations":
            cells = pc.multiply(cells, pc.list_value_length(flat.column("channels")))
        wrong = pc.not_equal(
            pc.multiply(cells, level), pc.binary_length(flat.column("values"))
        ).to_pylist()
        parents = pc.list_parent_indices(lists).to_pylist()
        for number in (number for number, is_wrong in enumerate(wrong) if is_wrong):
            id = table.column("id")[parents[number]].as_py()
            layer = flat.column("layer")[number].as_py()
            yield f"the {column[:-1]} of {id!r} at {layer!r} does not have height × width values"


def _checksums(run: Run) -> Iterator[str]:
    try:
        totals = run.totals
    except RunError:
        return
    # Shards and channels' summaries that are missing are told of elsewhere.
    told = {run.path / layout.CHANNELS}
    for index in range(len(run.plan.shards)):
        told |= {layout.shard_file(run.path, index), layout.summary_file(run.path, index)}
    for name, expected in (totals.checksums if totals else {}).items():
        file = run.path / name
        if not file.is_file():
            if file not in told:
                yield f"{name} is missing; {_RESUME}"
        elif sha256(file) != expected:
            yield f"{name} is not as it was written (SHA-256 differs); remove it and {_RESUME}"


def _summaries(run: Run) -> Iterator[str]:
    if not run.plan.recorded:
        return
    for index in run.shards:
        file = layout.summary_file(run.path, index)
        if not file.is_file():
            yield f"summaries/{file.name} is missing; {_RESUME}"
    if run.complete and not (run.path / layout.CHANNELS).is_file():
        yield f"{layout.CHANNELS} is missing; {_RESUME}"


def _kernels(run: Run) -> Iterator[str]:
    if run.complete and not (run.path / layout.KERNELS / layout.KERNEL_LIST).is_file():
        yield f"kernels/kernels.json is missing; {_RESUME}"
        return
    try:
        records = run.kernels()
    except RunError as error:
        yield str(error)
        return
    for record in records:
        for name in (record.sheet, record.values):
            if not (run.path / layout.KERNELS / name).is_file():
                yield f"kernels/{name} of {record.name!r} is missing; remove kernels/ and {_RESUME}"


def _leftovers(run: Run) -> Iterator[str]:
    for name in ("", *layout.FILLED):
        folder = run.path / name
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if layout.is_temporary(entry.name):
                half = entry.relative_to(run.path).as_posix()
                yield f"{half} was left by an interrupted command and can be removed"
