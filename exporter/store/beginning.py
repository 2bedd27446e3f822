"""Beginning a run in a folder, or going on with the one that is there."""

from __future__ import annotations

from pathlib import Path

from exporter.errors import RunError
from exporter.records import Plan
from exporter.store import layout
from exporter.store.files import make_folder, remove, sha256, write_whole
from exporter.store.folder import RunFolder
from exporter.store.lock import RunLock
from exporter.store.plans import plan_bytes, plan_document, read_document, read_plan
from exporter.store.reader import open_run
from exporter.store.resuming import differences
from exporter.store.totals import read_totals

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
    make_folder(run)
    refuse_taken(run, overwrite=overwrite, resume=resume)
    lock = RunLock(run)
    try:
        return RunFolder(run, _begin(run, plan, overwrite=overwrite, resume=resume), lock)
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
            _clear(run.path)
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
    run = Path(path)
    if overwrite and resume:
        raise RunError("--resume and --overwrite contradict each other; give one of them")
    if run.exists():
        _refuse_foreign(run)
    if (run / layout.PLAN).exists() and not overwrite and not resume:
        raise RunError(
            f"the folder {str(run)!r} already holds a run; "
            "give --resume to go on with it or --overwrite to start again"
        )


def _refuse_foreign(run: Path) -> None:
    try:
        names = [entry.name for entry in run.iterdir()]
        if layout.PLAN in names or all(_is_leftover(run / name) for name in names):
            return
    except OSError as error:
        raise RunError(
            f"the run folder {str(run)!r} cannot be read: {error.strerror or error}"
        ) from error
    raise RunError(
        f"the folder {str(run)!r} is not empty and is not a run (it has no {layout.PLAN}); "
        "give --out a new folder"
    )


def _is_leftover(path: Path) -> bool:
    """Say whether a run that was killed before its plan was there has left this."""
    if path.name == layout.LOCK or layout.is_temporary(path.name):
        return True
    return path.name in _FIRST and path.is_dir() and not any(path.iterdir())


def _begin(run: Path, plan: Plan, *, overwrite: bool, resume: bool) -> Plan:
    file = run / layout.PLAN
    document = plan_document(plan)
    # Another process may have begun a run since the folder was looked at.
    refuse_taken(run, overwrite=overwrite, resume=resume)
    if file.exists() and resume:
        begun = read_document(file)
        clauses = differences(begun, document)
        if clauses:
            raise RunError(
                f"the run {str(run)!r} was begun with different settings: {'; '.join(clauses)}; "
                "give it the same settings, --overwrite, or another --out"
            )
        _clear(run)
        return read_plan(begun, file)
    if file.exists():
        for name in layout.own_names():
            remove(run / name)
    _clear(run)
    for name in _FIRST:
        make_folder(run / name)
    write_whole(file, plan_bytes(document))
    return read_plan(document, file)


def _clear(run: Path) -> None:
    """Remove what a killed process left, and ``run.json`` if what it names is not as it was."""
    for folder in (run, *(run / name for name in layout.FILLED)):
        if folder.is_dir():
            for entry in list(folder.iterdir()):
                if layout.is_temporary(entry.name):
                    remove(entry)
    totals = run / layout.TOTALS
    if totals.exists() and not _is_as_finished(run):
        remove(totals)


def _is_as_finished(run: Path) -> bool:
    file = run / layout.TOTALS
    try:
        checksums = read_totals(file).checksums
        return all(sha256(run / name) == known for name, known in checksums.items())
    except (OSError, RunError):
        return False
