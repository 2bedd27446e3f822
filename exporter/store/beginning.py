"""Beginning a run in a folder, or going on with the one that is there."""

from __future__ import annotations

from dataclasses import replace

from exporter.errors import RunError
from exporter.records import Plan
from exporter.store import layout
from exporter.store.checksums import commit, forget, noted, settle_interrupted
from exporter.store.files import RunFiles
from exporter.store.folder import RunFolder
from exporter.store.lock import RunLock
from exporter.store.plans import plan_bytes, plan_is_altered, read_plan
from exporter.store.reader import open_run, refuse_no_run
from exporter.store.replacing import is_put_aside, restore
from exporter.store.resuming import additions, code_changed, plan_differences, plan_identity
from exporter.store.stored import run_files
from exporter.stores import Place
from exporter.watch import Watch

_FIRST = (layout.SHARDS, layout.SUMMARIES, layout.CHECKSUMS)
"""Folders that are made before the plan is written."""

CODE_CHANGED = "the code that the model runs has changed"
EDITED = (
    f"{CODE_CHANGED} since this run was begun; images that were stored before were computed again "
    "and had to come out the same"
)


def create_run(
    path: Place | str,
    plan: Plan,
    *,
    overwrite: bool = False,
    resume: bool = False,
    add: bool = False,
    watch: Watch | None = None,
) -> RunFolder:
    """Begin a run in a new or empty folder, or go on with one.

    Args:
        path: the run folder; made where it is not there.
        plan: what the run will do.
        overwrite: remove the run that is there, and nothing else of the folder.
        resume: go on with the run that is there, if its plan is the same; or begin one.
        add: likewise, and the plan may have methods, layers and faithfulness that the run lacks.
        watch: told how what is there is verified.

    Returns:
        The folder, locked against everybody else until it is shared or closed.

    Raises:
        RunError: if the folder holds something else, a run and neither flag is given, a run of
            another plan (each difference is named), or is being written by another process.
    """
    files = run_files(path)
    files.make_folder()
    refuse_taken(path, overwrite=overwrite, resume=resume or add)
    lock = RunLock(files.run)
    try:
        begun = _begin(files, plan, overwrite=overwrite, resume=resume or add, add=add)
        return RunFolder(files, begun, lock, watch)
    except BaseException:
        lock.release()
        raise


def reopen_run(path: Place | str, *, shared: bool, watch: Watch | None = None) -> RunFolder:
    """Go on with a run as it was planned.

    Workers share it while they compute shards; to finish or to render it, it is held alone.

    Raises:
        RunError: if there is no run, or another process is in the way.
    """
    files = run_files(path)
    refuse_no_run(files)  # a lock is made in none but a run
    lock = RunLock(files.run, shared=shared)
    try:
        run = open_run(path)
        if not shared:
            _clear(run.files)
        return RunFolder(run.files, run.plan, lock, watch)
    except BaseException:
        lock.release()
        raise


def refuse_taken(path: Place | str, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a folder that ``create_run`` would refuse for what is in it; nothing is written.

    Raises:
        RunError: if the folder holds something else, or a run and neither flag is given.
    """
    run = run_files(path)
    if overwrite and resume:
        raise RunError("--resume and --overwrite contradict each other; give one of them")
    names = run.names()
    if _lacks_plan(run):
        if not resume:
            raise RunError(
                f"the run {str(run.run)!r} lacks {layout.PLAN}; give --resume and the settings it "
                "was begun with, and it is written again; or give --out a new folder"
            )
    elif layout.PLAN not in names and not all(_is_leftover(run, name) for name in names):
        raise RunError(
            f"the folder {str(run.run)!r} is not empty and is not a run (it has no {layout.PLAN}); "
            "give --out a new folder"
        )
    if layout.PLAN in names and not overwrite and not resume:
        raise RunError(
            f"the folder {str(run.run)!r} already holds a run; "
            "give --resume to go on with it or --overwrite to start again"
        )


def _lacks_plan(run: RunFiles) -> bool:
    """Say whether all there is of a run's plan is its checksum, but more of the run is there."""
    if run.exists(layout.PLAN) or not noted(run, layout.PLAN):
        return False
    return not all(_is_leftover(run, name) for name in run.names())


def _is_leftover(run: RunFiles, name: str) -> bool:
    """Say whether a run that was killed before its plan was there has left this."""
    if name == layout.LOCK or layout.is_temporary(name):
        return True
    sums = (layout.checksum_file(layout.PLAN), layout.next_checksum_file(layout.PLAN))
    try:
        names = run.names(name) if name in _FIRST else [name]
        return all(layout.is_temporary(n) or f"{name}/{n}" in sums for n in names)
    except RunError:
        return False


def _begin(run: RunFiles, plan: Plan, *, overwrite: bool, resume: bool, add: bool) -> Plan:
    # Another process may have begun a run since the folder was looked at.
    refuse_taken(run.run, overwrite=overwrite, resume=resume)
    _clear(run)
    if add and run.exists(layout.TOTALS):
        _extend(run, plan)
    if resume and (run.exists(layout.PLAN) or _lacks_plan(run)):
        return _begun(run, plan)
    if run.exists(layout.PLAN):
        for name in layout.own_names():
            run.remove(name)
    for name in _FIRST:
        run.make_folder(name)
    _write_plan(run, plan)
    return read_plan(run).whole()


def _extend(run: RunFiles, plan: Plan) -> None:
    """Write the plan of a finished run anew, if it lacks something of the one that is asked for.

    From then on it is not finished, and its shards are those that lack what was added.
    """
    old = read_plan(run).whole()
    more, clauses = additions(old, plan)
    if clauses:
        raise RunError(
            f"to the run {str(run.run)!r} only methods, layers and --faithfulness can be added: "
            f"{'; '.join(clauses)}; give it the same settings or another --out"
        )
    if more:
        forget(run, layout.TOTALS)
        by = (*old.added_by, plan.command)
        added = plan_identity(plan)[:16]
        _write_plan(run, replace(plan, added=added, command=old.command, added_by=by))


def _reads_alike(run: RunFiles, plan: Plan) -> bool:
    """Say whether the plan that is there is the one asked for, so that its checksum has rotted."""
    try:
        return not plan_differences(read_plan(run, altered=True).whole(), plan)
    except RunError:
        return False


def _write_plan(run: RunFiles, plan: Plan) -> None:
    """Write ``plan.json``; with its checksum it is noted what the run contains."""
    commit(run, {layout.PLAN: plan_bytes(plan)}, plan_identity(plan))


def _begun(run: RunFiles, plan: Plan) -> Plan:
    """Return the plan of the run that is there, if it is the one that is asked for.

    One that has changed since it was written is written again, if the same plan is asked for.
    """
    overwriting = ", --overwrite," if run.exists(layout.PLAN) else ""
    others = f"give it the same settings{overwriting} or another --out"
    if plan_is_altered(run):
        if noted(run, layout.PLAN) != plan_identity(plan) and not _reads_alike(run, plan):
            raise RunError(
                f"{str(run.run / layout.PLAN)!r} is missing or has changed since it was "
                f"written, and the run was begun with different settings; {others}"
            )
        _write_plan(run, plan)
    begun = read_plan(run).whole()
    clauses = plan_differences(begun, plan)
    edited = code_changed(begun, plan)
    steady = begun.findings is not None and begun.findings.steady
    if edited and (run.exists(layout.TOTALS) or not steady):
        clauses.append(CODE_CHANGED)
    if clauses:
        raise RunError(
            f"the run {str(run.run)!r} was begun with different settings: {'; '.join(clauses)}; "
            f"{others}"
        )
    if edited:
        # Whether it is the same model, the stored rows tell that are computed again.
        model = replace(begun.model, code=plan.model.code)
        notes = tuple(dict.fromkeys((*begun.notes, EDITED)))
        _write_plan(run, replace(begun, model=model, notes=notes))
        begun = read_plan(run).whole()
    return begun


def _clear(run: RunFiles) -> None:
    """Bring in order what a killed process left."""
    for name in layout.replaced():
        if is_put_aside(run, name):
            restore(run, name)
    for name in layout.temporaries(run):
        run.remove(name)
    settle_interrupted(run)
