"""A folder of a run takes the place of the one before, which stays until the new one is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from exporter.store.files import RunFiles, not_written
from exporter.store.stored import StoredFiles

UNFINISHED = ".unfinished"
"""A file in a folder that is made anew in place, until it is whole."""


@contextmanager
def new_folder(run: RunFiles, name: str) -> Iterator[tuple[RunFiles, str]]:
    """Have a folder built under another name; it then takes the place of the one before.

    If it stays empty, nothing changes.

    Yields:
        Where it is built, and its name there.
    """
    if isinstance(run, StoredFiles):
        with run.staged(name) as files:
            yield files, name
        return
    restore(run, name)
    with run.built(name) as half:
        half.mkdir()
        yield run, half.name
        if not run.names(half.name):
            half.rmdir()
            return
        _put_aside(run, name)
        run.rename(half.name, name)
        run.remove(aside(name))


@contextmanager
def folder_in_place(run: RunFiles, name: str) -> Iterator[tuple[RunFiles, str]]:
    """Have a folder filled anew at its final path; after an error the one before is back.

    Meanwhile it is marked as unfinished. If it stays empty, nothing changes. That of a run in a
    store is built on the disk, as that of `new_folder`.
    """
    if isinstance(run, StoredFiles):
        with run.staged(name) as files:
            yield files, name
        return
    restore(run, name)
    path = run.place(name)
    try:
        _put_aside(run, name)
        path.mkdir()
        (path / UNFINISHED).touch()
        yield run, name
        if run.names(name) != [UNFINISHED]:
            (path / UNFINISHED).unlink()
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        restore(run, name)


def restore(run: RunFiles, name: str) -> None:
    """Leave one of the two folders that there are while one takes the place of the other.

    That is the new one if it is whole, else the one before; none where neither is.
    """
    if _is_whole(run, name):
        run.remove(aside(name))
    elif run.is_folder(aside(name)):
        run.remove(name)
        run.rename(aside(name), name)
    else:
        run.remove(name)
        run.remove(aside(name))


def is_put_aside(run: RunFiles, name: str) -> bool:
    """Say whether a command was ended that had put a folder aside, before the new one was whole."""
    return run.is_folder(aside(name)) and not _is_whole(run, name)


def _is_whole(run: RunFiles, name: str) -> bool:
    names = run.names(name) if run.is_folder(name) else []
    return bool(names) and UNFINISHED not in names


def _put_aside(run: RunFiles, name: str) -> None:
    if run.exists(name):
        run.rename(name, aside(name))


def aside(name: str) -> str:
    """Return what a folder is called while another one takes its place."""
    return f".{name}.old"
