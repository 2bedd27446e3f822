"""The writers: each reads a finished or partial run folder and writes one folder inside it.

Every package of this room is a writer, called as the package is, with a `Writer` called ``WRITER``
in it; installed distributions add more by entry points of the group ``exporter.writers``. The name
is also the folder in the run. A library is imported when its writer runs, not before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.doors import WRITERS, load_plugin, plugins, writer_names
from exporter.errors import ExporterError, WriterError, choices, kind_of, one_line
from exporter.writers.options import WriterOptions

if TYPE_CHECKING:
    from exporter.records import Written
    from exporter.store import Run
    from exporter.store.files import RunFiles

__all__ = ["Writer", "WriterOptions", "check", "find_writer", "write", "writer_names"]

UNFINISHED = ".unfinished"
"""A file in the folder of a writer that works in place, until the folder is whole."""


@dataclass(frozen=True, slots=True)
class Writer:
    """What there is to know of a writer, beside its name.

    Attributes:
        write: ``write(run, folder, options) -> Written``; fills the empty folder.
        options: the pydantic model of its options; ``options`` of ``write`` is an instance.
        expects: a pattern that at least one file of a whole folder matches, at any depth.
        check: yields a sentence for everything else that is wrong with the folder in a run.
        in_place: whether it must work at the folder's final path, because what it writes holds that
            path; otherwise the folder has another name until it is whole.
    """

    write: Callable[[Run, Path, Any], Written]
    options: type[WriterOptions] = WriterOptions
    expects: str = "*"
    check: Callable[[Run], Iterable[str]] = lambda _: ()
    in_place: bool = False


def find_writer(name: str) -> Writer:
    """Return a writer by its name.

    Raises:
        WriterError: if there is none, or a plug-in is not what it says.
        ConfigError: if a plug-in cannot be imported.
    """
    if name not in writer_names():
        raise WriterError(f"no writer is called {name!r}; {choices(name, writer_names())}")
    if (Path(__file__).parent / name).is_dir():
        writer = import_module(f"{__name__}.{name}").WRITER
    else:
        writer = load_plugin(plugins(WRITERS)[name])
    if not isinstance(writer, Writer):
        raise WriterError(
            f"the plug-in {name!r} is {kind_of(writer)}, not an exporter.writers.Writer; "
            "see docs/add-a-writer.md"
        )
    return writer


def check(run: Run) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with what writers have made of a run."""
    from exporter.store.checksums import altered, is_altered, recorded
    from exporter.store.layout import WRITER_NOTE, checksum_file, writer_folder

    if run.files.exists(WRITER_NOTE) and is_altered(run.files, WRITER_NOTE):
        yield f"{WRITER_NOTE} is not as it was written; remove it, and writers use their defaults"
    for name in writer_names():
        again = f"write it again with exporter render --writer {name}"
        if not run.files.exists(name):
            continue
        try:
            if UNFINISHED in run.files.names(name):
                yield f"{name}/ is not whole, its writer was interrupted; {again}"
                continue
            writer = find_writer(name)
            if not any((run.path / name).rglob(writer.expects)):
                yield f"{name}/ has no {writer.expects}; {again}"
            kept = checksum_file(writer_folder(name))
            checksums = recorded(run.files, writer_folder(name))
            if checksums is None and run.files.exists(kept):
                yield f"{kept} is damaged; {again}"
            outside = [f for f in checksums or () if not f.startswith((f"{name}/", kept))]
            yield from (f"{kept} names {file!r}; {again}" for file in outside)
            if checksums is not None and not outside:
                yield from (f"{problem}; {again}" for problem in altered(run.files, checksums))
            yield from writer.check(run)
        except ExporterError as error:
            yield f"{name}/ cannot be checked: {error}"


def write(run: Run, name: str, options: WriterOptions) -> Written:
    """Write one folder of a run and put it in the place of the one before.

    It is built as ``RUN/.NAME.tmp`` and renamed to ``RUN/NAME`` when it is whole. A writer that
    fails or is killed leaves the folder that was there, and never half of a new one. What a writer
    makes in place is marked as unfinished meanwhile, and the former folder is put back on failure.

    Args:
        run: the run folder, complete or partial.
        name: one of `writer_names`.
        options: an instance of the writer's ``options``.

    Returns:
        What was written.

    Raises:
        WriterError: if there is no such writer, or it fails; the run itself stays whole.
    """
    writer = find_writer(name)
    final, former = run.path / name, run.path / f".{name}.old"
    building = final if writer.in_place else run.path / f".{name}.tmp"
    try:
        _recover(final, former)
        if writer.in_place:
            _move(final, former)
        else:
            _remove(building)
        building.mkdir()
        (building / UNFINISHED).touch()
        written = writer.write(run, building, options)
        if any(entry.name != UNFINISHED for entry in building.iterdir()):
            _record(run.files, building.name, name)
            if not writer.in_place:
                _move(final, former)
                building.rename(final)
            (final / UNFINISHED).unlink()
        # One that was told to write nothing (W&B switched off) leaves what was there.
    except WriterError:
        raise
    except ExporterError as error:
        raise WriterError(f"the {name} writer stopped: {error}") from error
    except ImportError as error:
        raise WriterError(
            f"the {name} writer needs a package that cannot be imported ({error}); "
            "install it: pip install exporter"
        ) from error
    except Exception as error:
        raise WriterError(f"the {name} writer failed ({one_line(error)})") from error
    finally:
        if not writer.in_place:
            _remove(building, quietly=True)
        _recover(final, former)
    return written


def _record(files: RunFiles, folder: str, name: str) -> None:
    """Keep the checksums of what a writer has made; what it still logs does not count."""
    from exporter.store.checksums import record
    from exporter.store.layout import writer_folder

    checksums = {}
    for parent, _, names in os.walk(files.run / folder):
        for file in (Path(parent, name) for name in sorted(names)):
            within = file.relative_to(files.run / folder).as_posix()
            if within != UNFINISHED and file.suffix != ".log" and not file.is_symlink():
                checksums[f"{name}/{within}"] = files.sha256(f"{folder}/{within}")
    if checksums:
        record(files, writer_folder(name), checksums)


def _recover(final: Path, former: Path) -> None:
    """Leave one whole folder of the two: the new one if it is whole, else the former."""
    if final.is_symlink() or (final / UNFINISHED).exists():
        _remove(final)
    if os.path.lexists(former):
        if final.exists():
            _remove(former)
        else:
            former.rename(final)


def _move(final: Path, former: Path) -> None:
    if final.exists() or final.is_symlink():
        final.rename(former)


def _remove(path: Path, *, quietly: bool = False) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=quietly)
    else:
        path.unlink(missing_ok=True)
