"""Whether every shard, image and kernel of a run is there and whole."""

from __future__ import annotations

from collections.abc import Container, Iterator

import pyarrow as pa

from exporter.errors import RunError
from exporter.records import Plan
from exporter.store import layout
from exporter.store.checksums import VERIFYING, altered, is_altered, verify
from exporter.store.reader import Run, open_run
from exporter.store.recipes import plan_again, recipe_is_altered, way_on
from exporter.store.replacing import aside, is_put_aside
from exporter.store.schema import LATER_COLUMNS, ROW_SCHEMA
from exporter.store.tables import read_parquet, reading, wrong_sizes
from exporter.stores import Place
from exporter.watch import Watch

_RESUME = "go on with --resume"


def check(path: Place | str, watch: Watch | None = None) -> tuple[str, ...]:
    """Verify a run folder: shards, checksums, rows, maps, pictures and kernels.

    Returns:
        A sentence a problem; nothing where the run is complete and whole.

    Raises:
        RunError: if there is no run, its plan is damaged, or a newer exporter wrote it.
    """
    run = open_run(path)
    problems: list[str] = []
    harmed: dict[str, str] = {}
    unread = []
    try:
        for name, problem in damage(run, watch):
            harmed.setdefault(name, problem)
    except RunError as error:
        unread.append(str(error))
    parts = (
        _completeness(run, harmed),
        (*harmed.values(), *unread),
        _shards(run, harmed),
        _kernels(run),
        _leftovers(run),
    )
    for part in parts:
        try:
            problems.extend(part)
        except RunError as error:
            problems.append(str(error))
    return tuple(dict.fromkeys(problems))


def _completeness(run: Run, harmed: Container[str]) -> Iterator[str]:
    there, all_ = run.shards, len(run.plan.shards)
    if not run.complete:
        whole = sum(layout.shard_file(index) not in harmed for index in there)
        again = layout.KERNEL_LIST in harmed or layout.RECIPE in harmed  # without them none goes on
        way = way_on(run.files, missing=whole < all_)
        go_on = plan_again(run.files) if again else f"go on with {way}"
        yield f"the run is not complete: {whole} of {all_} shards are done; {go_on}"
        return
    for index in sorted(set(range(all_)) - set(there)):
        yield f"{layout.shard_file(index)} is missing; {_RESUME}"
    totals = run.totals
    if totals is not None and totals.images != len(run.plan.images):
        yield f"run.json counts {totals.images} images and the plan has {len(run.plan.images)}"


def _shards(run: Run, harmed: Container[str]) -> Iterator[str]:
    for index in run.shards:
        name = layout.shard_file(index)
        if name in harmed:
            continue
        try:
            table = read_parquet(run.files, name)
            with reading(run.files, name):
                problems = list(_rows(table, run.plan, index)) if _fits(table) else []
        except RunError as error:
            yield str(error)
            continue
        if not _fits(table):
            yield f"{name} does not have the columns of the row schema; {_RESUME}"
            continue
        yield from (f"{name}: {problem}" for problem in problems)


def _fits(table: pa.Table) -> bool:
    there = set(table.column_names)
    fields = [f for f in ROW_SCHEMA if f.name in there or f.name not in LATER_COLUMNS]
    return bool(table.schema.equals(pa.schema(fields)))


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
    yield from wrong_sizes(table)


def _is_jpeg(content: bytes | None) -> bool:
    return bool(content) and content[:2] == b"\xff\xd8" and content[-2:] == b"\xff\xd9"  # type: ignore[index]


def damage(run: Run, watch: Watch | None = None) -> Iterator[tuple[str, str]]:
    """Yield every file of a run that has changed since it was written, and what repairs it.

    Of a partial run the shards that are there are looked at, and what goes with them; one of the
    first version has no checksums yet.

    Raises:
        RunError: if ``run.json`` is damaged.
    """
    totals, watch = run.totals, watch or Watch()
    if totals is not None:
        for name, problem in altered(run.files, totals.checksums, watch):
            yield name, f"{problem}; {_RESUME}"
    elif run.files.exists(layout.checksum_file(layout.PLAN)):
        shards = [layout.shard_file(index) for index in run.shards]
        pictures = layout.maximised_files(run.files)
        watch.begin(VERIFYING, len(shards) + len(pictures))
        for name in (*shards, *pictures):
            if verify(run.files, name) is None:
                on = way_on(run.files, missing=name in shards)  # workers make no pictures
                yield (
                    name,
                    f"{name}, or what goes with it, has changed since it was written; "
                    f"go on with {on}",
                )
            watch.advance()
        again = f"has changed since it was written; {plan_again(run.files)}"
        if is_altered(run.files, layout.KERNEL_LIST):
            yield layout.KERNEL_LIST, f"{layout.KERNELS}/ {again}"
        if recipe_is_altered(run.files):
            yield layout.RECIPE, f"{layout.RECIPE} {again}"
        if run.files.exists(layout.checksum_file(layout.TOTALS)):
            on = way_on(run.files, missing=len(shards) < len(run.plan.shards))
            yield layout.TOTALS, f"{layout.TOTALS} is missing; go on with {on}"


def refuse_damaged(run: Run, watch: Watch | None = None) -> None:
    """Refuse a run of which a byte has changed since it was written.

    Raises:
        RunError: of the first file, with what mends it.
    """
    for _, problem in damage(run, watch):
        raise RunError(f"of the run {str(run.path)!r} {problem}")


def _kernels(run: Run) -> Iterator[str]:
    if run.complete and not run.files.exists(layout.KERNEL_LIST):
        yield f"{layout.KERNEL_LIST} is missing; {_RESUME}"
    for record in run.kernels():
        for name in (record.sheet, record.values):
            if not run.files.exists(f"{layout.KERNELS}/{name}"):
                yield f"kernels/{name} of {record.name!r} is missing; {plan_again(run.files)}"


def _leftovers(run: Run) -> Iterator[str]:
    needed = {aside(name) for name in layout.replaced() if is_put_aside(run.files, name)}
    for name in layout.temporaries(run.files):
        if name not in needed:
            yield f"{name} was left by an interrupted command and can be removed"
