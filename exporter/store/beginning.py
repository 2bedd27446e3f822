"""Beginning a run in a folder, or going on with the one that is there."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import RunError
from exporter.records import Plan
from exporter.store import layout
from exporter.store.checksums import are_as_written
from exporter.store.documents import read_totals
from exporter.store.files import RunFiles
from exporter.store.folder import RunFolder
from exporter.store.lock import RunLock
from exporter.store.plans import plan_bytes, read_plan
from exporter.store.reader import open_run
from exporter.store.resuming import plan_differences

_FIRST = (layout.SHARDS, layout.SUMMARIES, layout.CHECKSUMS)
"""Folders that are made before the plan is written."""


def create_run(
    path: Path | str, plan: Plan, *, overwrite: bool = False, resume: bool = False
) -> RunFolder:
    """Begin a run in a new or empty folder, or go on with one.

    Args:
        path: the run folder; made where it is not there.
        plan: what the run will do.
        overwrite: remove the run that is there, and nothing else of the folder.
        resume: go on with the run that is there, if its plan is the same; or begin one.

    Returns:
        The folder, locked against everybody else until it is shared, finished or closed.

    Raises:
        RunError: if the folder holds something else, a run and neither flag is given, a run of
            another plan (each difference is named), or is being written by another process.
    """
    run = Path(path)
    RunFiles(run).make_folder()
    refuse_taken(run, overwrite=overwrite, resume=resume)
    lock = RunLock(run)
    try:
        begun = _begin(RunFiles(run), plan, overwrite=overwrite, resume=resume)
        return RunFolder(run, begun, lock)
    except BaseException:
        lock.release()
        raise


def reopen_run(path: Path | str, *, shared: bool) -> RunFolder:
    """Go on with a run as it was planned.

    Args:
        path: the run folder.
        shared: to compute shards, beside other workers; else to finish the run, alone.

    Raises:
        RunError: if there is no run, or another process is in the way.
    """
    run = open_run(path)
    lock = RunLock(run.path, shared=shared)
    try:
        if not shared:
            _clear(run.files)
        return RunFolder(run.path, run.plan, lock)
    except BaseException:
        lock.release()
        raise


def refuse_taken(path: Path | str, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a folder that ``create_run`` would refuse for what is in it; nothing is written.

    Args:
        path: the run folder, which need not be there.
        overwrite: whether the run that is there may be removed.
        resume: whether it may be gone on with.

    Raises:
        RunError: if the folder holds something else, or a run and neither flag is given.
    """
    run = RunFiles(Path(path))
    if overwrite and resume:
        raise RunError("--resume and --overwrite contradict each other; give one of them")
    names = run.names()
    if layout.PLAN not in names and not all(_is_leftover(run, name) for name in names):
        raise RunError(
            f"the folder {str(run.run)!r} is not empty and is not a run (it has no {layout.PLAN}); "
            "give --out a new folder"
        )
    if layout.PLAN in names and not overwrite and not resume:
        raise RunError(
            f"the folder {str(run.run)!r} already holds a run; "
            "give --resume to go on with it or --overwrite to start again"
        )


def _is_leftover(run: RunFiles, name: str) -> bool:
    """Say whether a run that was killed before its plan was there has left this."""
    if name == layout.LOCK or layout.is_temporary(name):
        return True
    try:
        return name in _FIRST and not run.names(name)
    except RunError:
        return False


def _begin(run: RunFiles, plan: Plan, *, overwrite: bool, resume: bool) -> Plan:
    # Another process may have begun a run since the folder was looked at.
    refuse_taken(run.run, overwrite=overwrite, resume=resume)
    if run.exists(layout.PLAN) and resume:
        begun = read_plan(run).whole()
        clauses = plan_differences(begun, plan)
        if clauses:
            raise RunError(
                f"the run {str(run.run)!r} was begun with different settings: "
                f"{'; '.join(clauses)}; give it the same settings, --overwrite, or another --out"
            )
        _clear(run)
        return begun
    if run.exists(layout.PLAN):
        for name in layout.own_names():
            run.remove(name)
    _clear(run)
    for name in _FIRST:
        run.make_folder(name)
    run.write(layout.PLAN, plan_bytes(plan))
    return read_plan(run).whole()


def _clear(run: RunFiles) -> None:
    """Remove what a killed process left, and ``run.json`` if what it names is not as it was."""
    for name in layout.temporaries(run):
        run.remove(name)
    try:
        totals = read_totals(run)
    except RunError:
        run.remove(layout.TOTALS)
        return
    if totals is not None and not are_as_written(run, totals.checksums):
        run.remove(layout.TOTALS)
