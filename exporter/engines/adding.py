"""Methods, layers and faithfulness that are added to a finished run: what it has is kept.

Each shard is written once more, with the maps that it holds and those that it lacks. Whatever a
forward pass gives beside maps is computed again, and comes out the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from exporter.config import RunConfig
from exporter.engines.job import Job, Store
from exporter.explain import Computed
from exporter.paths import without_folders
from exporter.records import COMBINED, Faithfulness, Plan, Row, StoredMap
from exporter.store import Run, RunFolder, open_run
from exporter.stores import Place


def with_what_is_there(config: RunConfig, run: Place) -> RunConfig:
    """Return what is asked for, with the maps, layers and faithfulness that the run has."""
    there = open_run(run).settings
    asked: dict[str, Any] = {"faithfulness": config.faithfulness}
    for name in ("maps", "layers"):
        given = getattr(config, name) if name in config.model_fields_set else ()
        whole = {without_folders(each): each for each in given}  # runs hold no absolute paths
        kept = [whole.pop(each, each) for each in there.get(name, ())]
        asked[name] = (*kept, *whole.values())
    asked["faithfulness"] |= bool(there.get("faithfulness", there.get("quality")))
    return config.model_copy(update=asked)


def split(
    job: Job, folder: RunFolder, missing: Sequence[int], store: Store
) -> Iterator[tuple[Job, Sequence[int], Store]]:
    """Yield what computes shards, in two parts: those that only lack what was added, and others."""
    older = folder.older(missing)
    if older:
        run = open_run(folder.path)
        for shard in older:
            held = _held(run, folder, shard)
            if folder.older([shard]):  # no other process has just written it with what was added
                break
        yield _lacking(job, *held), older, _joining(run, folder, store)
    others = [shard for shard in missing if shard not in set(older)]
    if others or not older:
        yield job, others, store


def _held(run: Run, folder: RunFolder, shard: int) -> tuple[set[str], set[str], bool]:
    """Return the methods and layers that there are maps of, and whether they were measured."""
    start, stop = folder.plan.shards[shard]
    ids = [image.id for image in folder.plan.images[start:stop]]
    maps = [each for row in run.chosen(ids, ("maps",)) for each in row.maps]
    return {m.method for m in maps}, {m.layer for m in maps}, bool(_measured(folder, shard))


def _lacking(job: Job, methods: set[str], layers: set[str], measured: bool) -> Job:
    """Return the job of what is not there: some methods at all layers, or all at some layers."""
    added = tuple(method for method in job.methods if method.name not in methods)
    deeper = [name for name in job.plan.layers_of_the_model if name not in layers]
    deepest = job.plan.deepest
    if job.metrics and not measured and deepest:  # every method's maps there are measured
        added, deeper = job.methods, list(dict.fromkeys((*deeper, deepest)))
        deeper = deeper if methods >= {method.name for method in job.methods} else []
    elif deeper and added:
        added, deeper = job.methods, []  # whatever has a map already keeps it
    elif deeper:
        added = tuple(method for method in job.methods if method.reads_layers)
    where = {"layers": tuple(deeper)} if deeper else {}
    build = partial(job.build_explainer, methods=added, **where)
    return replace(job, methods=added, build_explainer=build, explainer=cache(build))


def _joining(run: Run, folder: RunFolder, store: Store) -> Store:
    """Return what writes a shard with the maps that it holds, beside those that were computed."""
    plan = folder.plan
    order = [method.name for method in plan.methods]

    def join(shard: int, parts: list[Computed]) -> None:
        before = {row.id: row for row in run.chosen([row.id for p in parts for row in p.rows])}
        known = (each for each in _measured(folder, shard) if each.layer == plan.deepest)
        measured = {(each.id, each.method): each for each in known}
        measured |= {(each.id, each.method): each for part in parts for each in part.faithfulness}
        joined = []
        for part in parts:
            keys = [(row.id, name) for row in part.rows for name in order]
            joined.append(
                replace(
                    part,
                    rows=tuple(_joined(plan, before[row.id], row) for row in part.rows),
                    faithfulness=tuple(measured[key] for key in keys if key in measured),
                )
            )
        store(shard, joined)

    return join


def _measured(folder: RunFolder, shard: int) -> list[Faithfulness]:
    return list(folder.records(shard, "faithfulness", Faithfulness))


def _joined(plan: Plan, before: Row, row: Row) -> Row:
    """Return a row with the maps of both, in the order of a run that was begun with all of them."""
    if before.error or row.error:
        return row if row.error else before
    maps = {(m.method, m.layer, m.target): m for m in (*row.maps, *before.maps)}
    methods = {method.name: n for n, method in enumerate(plan.methods)}
    layers = {name: n for n, name in enumerate((*plan.layers_of_the_model, *COMBINED, ""))}
    targets = {target: n for n, target in enumerate(dict.fromkeys(m.target for m in row.maps))}
    # Maps at the input lie together where they have one size.
    sizes: dict[tuple[int, int], int] = {}
    for each in sorted(maps.values(), key=lambda m: methods[m.method]):
        if not each.layer:
            sizes.setdefault((each.height, each.width), len(sizes))

    def place(each: StoredMap) -> tuple[int, ...]:
        size = 0 if each.layer else sizes[each.height, each.width]
        return layers[each.layer], size, targets[each.target], methods[each.method]

    return replace(row, maps=tuple(sorted(maps.values(), key=place)))
