"""The pipeline: plan, work, finish, write; from a model and an image set to a run and its reports.

This module, its head `exporter.planning` and `exporter.contents` are the only ones that know every
stage.
``exporter run`` is all four in one process, and each has a command of its own. The module is longer
than 300 lines for the documentation of its public functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from exporter.arguments import in_python, takes_settings
from exporter.config import WriterConfig, build_config, build_writer_config
from exporter.contents import merge_shards, shard_store, sheet
from exporter.engines import Computed, Engine, Job, Recipe, Store, find_engine, local
from exporter.engines.adding import split, with_what_is_there
from exporter.engines.ranks import Ranks, await_plan, patiently
from exporter.engines.recomputing import refuse_other_model
from exporter.errors import ConfigError, RunError, WriterError
from exporter.guard import user_code
from exporter.launchers import Rank, agree
from exporter.notebook import watched
from exporter.planning import bind
from exporter.profiling import Profile
from exporter.records import StageTime, Written
from exporter.store import (
    Run,
    RunFolder,
    create_run,
    forget_recipe,
    open_run,
    read_recipe,
    refuse_taken,
    reopen_run,
    write_recipe,
)
from exporter.store.checksums import commit
from exporter.store.documents import json_bytes
from exporter.store.layout import PROFILE, TRACE
from exporter.store.stored import run_files
from exporter.stores import Place, place_of
from exporter.watch import Watch
from exporter.writers.writing import remembered, write_all


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        run: the run folder, open for reading.
        written: what each writer made.
        failed: (writer, reason) of each that could not be written; the run itself is intact.
        profile: what each stage took, where that was asked for.
    """

    run: Run
    written: tuple[Written, ...]
    failed: tuple[tuple[str, str], ...] = ()
    profile: tuple[StageTime, ...] = ()

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each image that could not be read."""
        return self.run.totals.skipped if self.run.totals else ()


# ---------------------------------------------------------------- from Python


@in_python
@takes_settings
def export(
    model: str | nn.Module,
    images: object,
    *,
    out: str | Path,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    add: bool = False,
    watch: Watch | None = None,
    **settings: Any,
) -> Run:
    """Run a model over an image set, and write the run folder and its reports.

    Args:
        model: a model spec, or a module; a module's mode, gradients, hooks and device are left as
            found.
        images: a folder, glob, list or ``module:factory``; or a sequence of paths, or a torch
            Dataset.
        out: the run folder.
        config: a TOML file of settings; those given here take precedence.
        resume: continue a run that was interrupted.
        overwrite: replace a run that is there.
        add: add the maps and layers that are given, or faithfulness, to the finished run that is
            there; only what it lacks is computed.
        watch: is told about progress; if None, a notebook shows it.
        **settings: those of a run, such as ``maps`` and ``layers``; docs/api.md lists all.

    Returns:
        The run, open for reading.

    Raises:
        ExporterError: if something asked for is not available; one sentence.
        WriterError: if a writer failed; the run itself is intact.

    Examples:
        >>> import tempfile
        >>> from exporter.demo import photographs
        >>> model = nn.Sequential(
        ...     nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ...     nn.Linear(4, 10),
        ... )
        >>> out = tempfile.mkdtemp() + "/run"
        >>> run = export(model, photographs(), out=out, maps=["gradcam"], limit=2, writers=())
        >>> [(row.path, len(row.maps)) for row in run.rows()]
        [('astronaut.jpg', 1), ('brick.jpg', 1)]
    """
    recipe = _recipe("export", model, images, config, out=out, **settings)
    with watched(watch) as told:
        return _whole(run(recipe, resume=resume, overwrite=overwrite, add=add, watch=told))


@in_python
@takes_settings
def plan(
    model: str,
    images: str | Path,
    *,
    out: str | Path,
    config: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    **settings: Any,
) -> Run:
    """Decide what a run does and write its plan; compute nothing.

    ``work`` then computes its shards, in as many processes as there are, and ``finish`` ends it.
    The arguments are those of ``export``, but for a model or images that only this process has.

    Args:
        model: a model spec.
        images: a folder, glob, list or ``module:factory``.
        out: the run folder.
        config: a TOML file of settings; those given here take precedence.
        resume: continue a run that was interrupted.
        overwrite: replace a run that is there.
        watch: is told about progress; if None, a notebook shows it.
        **settings: those of a run, such as ``maps`` and ``layers``; docs/api.md lists all.

    Returns:
        The run, open for reading; it has no shards yet.

    Raises:
        ExporterError: if something asked for is not available; one sentence.

    Examples:
        >>> import tempfile
        >>> from exporter.demo import photographs
        >>> planned = plan(
        ...     "exporter.demo:example_model", photographs(), out=tempfile.mkdtemp() + "/run",
        ...     limit=2, shard_size=1, maps=["gradcam"], writers=(),
        ... )
        >>> planned.complete, planned.shards
        (False, ())
    """
    recipe = _recipe("plan", model, images, config, out=out, **settings)
    with watched(watch) as told:
        return plan_run(recipe, resume=resume, overwrite=overwrite, watch=told)


@in_python
def work(
    run: str | Path,
    shards: Iterable[int] | None = None,
    *,
    part: tuple[int, int] = (0, 1),
    trust_recipe: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Compute what is missing of some shards of a planned run, beside other workers.

    Args:
        run: the run folder.
        shards: numbers of the shards; all of them if None.
        part: (i, n): of these, the shards k with k mod n = i, so that n workers share them evenly.
        trust_recipe: run the code that the recipe names, even if another user planned the run, or
            you did on a machine with another home folder.
        watch: is told about progress.

    Returns:
        The run, open for reading.

    Raises:
        RunError: if there is no planned run, its recipe is not trusted, or the model or the images
            that are built here are not those of the plan.

    Examples:
        >>> import tempfile
        >>> from exporter.demo import photographs
        >>> out = tempfile.mkdtemp() + "/run"
        >>> _ = plan("exporter.demo:example_model", photographs(), out=out, limit=2,
        ...     shard_size=1, maps=["gradcam"], writers=())
        >>> work(out, part=(1, 2)).shards  # of two workers the second, in a process of its own
        (1,)
    """
    with watched(watch) as told:
        return work_run(run, shards, part=part, trust_recipe=trust_recipe, watch=told)


@in_python
def finish(run: str | Path, *, trust_recipe: bool = False, watch: Watch | None = None) -> Run:
    """Merge the shards of a planned run, and run its writers.

    Args:
        run: the run folder.
        trust_recipe: as for ``work``.
        watch: is told about progress.

    Returns:
        The run, open for reading.

    Raises:
        RunError: if a shard is missing, with the command that computes it; or if the recipe is not
            trusted.
        WriterError: if a writer failed; the run itself is intact.

    Examples:
        >>> import tempfile
        >>> from exporter.demo import photographs
        >>> out = tempfile.mkdtemp() + "/run"
        >>> _ = plan("exporter.demo:example_model", photographs(), out=out, limit=2,
        ...     maps=["gradcam"], writers=())
        >>> _ = work(out)
        >>> finish(out).complete
        True
    """
    with watched(watch) as told:
        return _whole(finish_run(run, trust_recipe=trust_recipe, watch=told))


def _recipe(
    function: str, model: str | nn.Module, images: object, file: str | Path | None, **settings: Any
) -> Recipe:
    module = model if isinstance(model, nn.Module) else None
    named = isinstance(images, str | Path)
    config = build_config(
        file,
        model=type(model).__name__ if isinstance(model, nn.Module) else model,
        images=str(images) if named else type(images).__name__,
        **settings,
    )
    source = None if named else images
    return Recipe(config, f"exporter.{function}(…)", module=module, source=source)


def _whole(outcome: Outcome) -> Run:
    if outcome.failed:
        name, reason = outcome.failed[0]
        raise WriterError(
            f"the writer {name!r} failed, the run in {str(outcome.run.path)!r} is intact: {reason}"
        )
    return outcome.run


# ---------------------------------------------------------------- plan, work, finish, write


def run(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    add: bool = False,
    rank: Rank | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Plan a run, have every missing shard computed, merge them and run the writers.

    The arguments are those of `export`; other processes of a launch than rank 0 `join_run`.

    Raises:
        ExporterError: if something asked for is not available.
        KeyboardInterrupt: if interrupted; what is done stays and ``resume`` goes on from it.
    """
    if not recipe.config.profile:
        return _run(recipe, watch or Watch(), rank, resume=resume, overwrite=overwrite, add=add)
    with Profile(watch or Watch()) as profile:
        return _run(recipe, profile, rank, resume=resume, overwrite=overwrite, add=add)


def _run(
    recipe: Recipe, watch: Watch, rank: Rank | None, *, resume: bool, overwrite: bool, add: bool
) -> Outcome:
    config = recipe.config
    engine, launch = find_engine(config.engine), ""
    if rank is not None:
        resume = resume or (rank.restarted and not overwrite)
        engine, launch = _shared(rank, config.engine, engine), agree(rank)
    refuse_taken(config.out, overwrite=overwrite, resume=resume or add)
    if add:
        recipe = replace(recipe, config=with_what_is_there(config, config.out))
    recipe = _as_settled(recipe) if resume or add else recipe
    with ExitStack() as stack:
        with bind(recipe, watch=watch) as job:
            images = job.image_set
            watch.say(f"images: {len(images.entries):,} of {images.where!r} ({images.kind})")
            begun = _begin(job, watch, launch, overwrite=overwrite, resume=resume, add=add)
            folder = stack.enter_context(begun)
            if not folder.complete:
                folder.share()
                missing = folder.missing()
                if len(missing) < len(folder.plan.shards):
                    there = len(folder.plan.shards) - len(missing)
                    watch.say(f"resuming: {there} of {len(folder.plan.shards)} shards are done")
                since = time.perf_counter()
                _compute(job, folder, missing, engine, watch)
                seconds = time.perf_counter() - since
                patiently(folder.claim, "the other processes to end", watch)
                merge_shards(folder, job, seconds, watch)
        return _write(config.out, config, watch)


def join_run(
    recipe: Recipe,
    rank: Rank,
    *,
    resume: bool = False,  # noqa: ARG001 - rank 0's to do
    overwrite: bool = False,
    add: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Compute the part of one of several processes that were started together, but for rank 0.

    Raises:
        RunError: if rank 0 plans no run, or another one.
    """
    out, watch = recipe.config.out.absolute(), watch or Watch()
    find_engine(recipe.config.engine)
    if await_plan(run_files(out), agree(rank), overwrite or add, watch):
        if add:
            recipe = replace(recipe, config=with_what_is_there(recipe.config, out))
        with patiently(lambda: reopen_run(out, shared=True), "rank 0 to begin", watch) as folder:
            part = range(rank.number, len(folder.plan.shards), rank.count)
            missing = folder.missing(part)
            if missing:
                with _bound(folder, _as_settled(recipe), watch) as (job, store):
                    missing = folder.missing(missing)  # rank 0 may have lost patience
                    watch.begin("computing maps", _images(job, missing))
                    _compute_with(local, job, folder, missing, store=store, watch=watch)
    return open_run(out)


def plan_run(
    recipe: Recipe, *, resume: bool = False, overwrite: bool = False, watch: Watch | None = None
) -> Run:
    """Write the plan of a run, its recipe and its kernels; the arguments are those of ``run``."""
    recipe.require_portable("a worker")
    find_engine(recipe.config.engine)
    refuse_taken(recipe.config.out, overwrite=overwrite, resume=resume)
    recipe = _as_settled(recipe) if resume else recipe
    with bind(recipe, watch=watch) as job:
        _begin(job, watch or Watch(), overwrite=overwrite, resume=resume).close()
    return open_run(recipe.config.out)


def work_run(
    run: str | Place,
    shards: Iterable[int] | None = None,
    *,
    part: tuple[int, int] = (0, 1),
    workers: int = 0,
    trust_recipe: bool = False,
    stored: Callable[[int], None] = lambda _shard: None,
    watch: Watch | None = None,
) -> Run:
    """Compute what is missing of some shards; the arguments are those of ``work``, and two more.

    Shards of an iterator are asked for when needed; ``stored`` is told of each that is done.
    """
    path, watch = place_of(run).absolute(), watch or Watch()
    number, count = part
    if not 0 <= number < count:
        raise ConfigError(f"{number}/{count} is not a part; give i/n with i from 0 to n - 1")
    with reopen_run(path, shared=True, watch=watch) as folder:
        known = range(len(folder.plan.shards))
        if isinstance(shards, Iterator):
            missing: Iterable[int] = _still_missing(folder, shards, stored)
        else:
            asked = known if shards is None else [shard for shard in shards if shard in known]
            missing = folder.missing(shard for shard in asked if shard % count == number)
        if missing:
            recipe = _recipe_of(folder, trust_recipe)
            with _bound(folder, recipe, watch, workers=workers) as (job, write):
                listed = isinstance(missing, Sequence)
                watch.begin("computing maps", _images(job, missing) if listed else None)

                def store(shard: int, parts: list[Computed]) -> None:
                    write(shard, parts)
                    stored(shard)

                if isinstance(missing, Sequence):
                    _compute_with(local, job, folder, missing, store=store, watch=watch)
                else:
                    local.run(job, missing, store, watch)
    return open_run(path)


@contextmanager
def computing(run: Place, recipe: Recipe) -> Iterator[Callable[[int], None]]:
    """Hold a planned run open to compute shards of it, one after another.

    Yields:
        What computes a shard and writes it, unless it is there.

    Raises:
        RunError: if the model or the images that are built here are not those of the plan.
    """
    watch = Watch()
    with (
        reopen_run(run, shared=True, watch=watch) as folder,
        _bound(folder, recipe, watch) as (job, store),
    ):
        yield lambda shard: local.run(job, folder.missing([shard]), store, watch)


@contextmanager
def _bound(
    folder: RunFolder, recipe: Recipe, watch: Watch, *, workers: int = 0
) -> Iterator[tuple[Job, Store]]:
    """Build what a planned run is computed with in this process alone, and what stores shards."""
    alone = {"processes": 1, "devices": None, "workers": workers or recipe.config.workers}
    recipe = replace(recipe, config=recipe.config.model_copy(update=alone))
    with bind(recipe, planned=folder.plan, watch=watch) as job:
        refuse_other_model(job, folder)
        yield job, shard_store(job, folder, watch)


def _shared(rank: Rank, name: str, engine: Engine) -> Engine:
    """Return what rank 0 of several processes computes with."""
    if rank.count == 1:
        return engine
    if engine is not local:
        raise ConfigError(
            f"the engine {name!r} starts processes itself, and {rank.count} were started together; "
            "start one"
        )
    return Ranks(rank)


def _still_missing(
    folder: RunFolder, shards: Iterator[int], stored: Callable[[int], None]
) -> Iterator[int]:
    for shard in shards:
        if shard in range(len(folder.plan.shards)):
            if folder.missing([shard]):
                yield shard
            else:
                stored(shard)


def finish_run(
    run: str | Place, *, trust_recipe: bool = False, watch: Watch | None = None
) -> Outcome:
    """Merge the shards of a planned run and run its writers; of a finished one, run them again."""
    path, watch = place_of(run).absolute(), watch or Watch()
    with reopen_run(path, shared=False, watch=watch) as folder:
        document = read_recipe(folder.files, trusted=trust_recipe)
        config = (
            build_writer_config(remembered(folder.files, watch))
            if document is None
            else Recipe.read(document, path).config
        )
        if not folder.complete:
            folder.refuse_missing()
            with ExitStack() as stack:
                job = None
                if folder.plan.settings.get("maximise"):
                    recipe = _recipe_of(folder, trust_recipe)
                    binding = bind(recipe, planned=folder.plan, watch=watch)
                    job = stack.enter_context(binding)
                merge_shards(folder, job, folder.elapsed(), watch)
        return _write(path, config, watch)


def _as_settled(recipe: Recipe) -> Recipe:
    """Return the recipe with the batch size that the run in its folder has settled by trying."""
    config = recipe.config
    if config.batch_size != "auto":
        return recipe
    try:
        size = open_run(config.out).settings.get("batch_size")
    except RunError:  # there is none, or its plan is to be written again
        return recipe
    if not isinstance(size, int) or size < 1:
        return recipe
    return replace(recipe, config=config.model_copy(update={"batch_size": size}))


def _recipe_of(folder: RunFolder, trusted: bool) -> Recipe:
    document = read_recipe(folder.files, trusted=trusted)
    if document is None:
        raise RunError(
            f"the run {str(folder.path)!r} has no recipe: it was finished, or its model or images "
            "were handed over in Python; go on with exporter run (or exporter.export) --resume and "
            "its settings"
        )
    return Recipe.read(document, folder.path)


def _begin(job: Job, watch: Watch, launch: str = "", **how: bool) -> RunFolder:
    """Write what workers need, and return the folder, locked."""

    def create() -> RunFolder:
        return create_run(job.recipe.config.out, job.plan, watch=watch, **how)

    # Those that were started together may be at work already, where this one was restarted.
    folder = patiently(create, "the other processes to end", watch) if launch else create()
    try:
        if not folder.complete:
            folder.write_kernels([sheet(kernels) for kernels in job.kernels], job.head)
            if job.recipe.portable:
                write_recipe(folder.files, job.recipe.document(), launch)
    except BaseException:
        folder.close()
        raise
    return folder


def _compute(
    job: Job, folder: RunFolder, missing: Sequence[int], engine: Engine, watch: Watch
) -> None:
    refuse_other_model(job, folder)
    watch.begin("computing maps", _images(job, missing))
    plug_in = user_code(f"the engine {job.recipe.config.engine!r}", error=ConfigError)
    with nullcontext() if engine is local or isinstance(engine, Ranks) else plug_in:
        store = shard_store(job, folder, watch)
        _compute_with(engine, job, folder, missing, store=store, watch=watch)


def _compute_with(
    engine: Engine,
    job: Job,
    folder: RunFolder,
    missing: Sequence[int],
    *,
    store: Store,
    watch: Watch,
) -> None:
    for part, shards, write in split(job, folder, missing, store):
        engine.run(part, shards, write, watch)


def _images(job: Job, shards: Iterable[int]) -> int:
    return sum(stop - start for start, stop in (job.plan.shards[shard] for shard in shards))


def _profiled(run: Run, watch: Watch) -> tuple[StageTime, ...]:
    """Write what each stage took so far, where that is measured."""
    if not isinstance(watch, Profile):
        return ()
    table = watch.table()
    commit(run.files, {TRACE: watch.trace(), PROFILE: json_bytes([asdict(row) for row in table])})
    return table


def _write(path: Place, config: WriterConfig, watch: Watch) -> Outcome:
    opened = open_run(path)
    _profiled(opened, watch)  # for the report
    written, failed = write_all(opened, config, watch)
    if not failed:  # else ``finish`` repeats what the recipe asks for
        forget_recipe(opened.files)
    return Outcome(opened, written, failed, _profiled(opened, watch))
