"""The writers: each reads a finished or partial run folder and writes one folder inside it.

Every package of this room is a writer, called as the package is, with a `Writer` called ``WRITER``
in it; installed distributions add more by entry points of the group ``exporter.writers``. The name
is also the folder in the run. A library is imported when its writer runs, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from exporter.doors import WRITERS, load_plugin, plugins, writer_names
from exporter.errors import ExporterError, WriterError, choices, kind_of, one_line
from exporter.writers.options import WriterOptions

if TYPE_CHECKING:
    from exporter.records import Written
    from exporter.store import Run
    from exporter.store.files import RunFiles
    from exporter.watch import Watch

__all__ = [
    "Writer",
    "WriterOptions",
    "check",
    "check_writer",
    "find_writer",
    "write",
    "writer_names",
]


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

    Examples:
        >>> from exporter.records import Written
        >>> def write(run, folder, options):
        ...     paths = [row.path for row in run.rows(["path"])]
        ...     (folder / "paths.txt").write_text(" ".join(paths))
        ...     return Written("paths", "paths", "paths/paths.txt", len(paths), len(paths))
        >>> WRITER = Writer(write, expects="paths.txt")
        >>> import tempfile
        >>> from exporter.demo import example_run
        >>> WRITER.write(example_run(), Path(tempfile.mkdtemp()), WriterOptions()).shown
        2
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


def check(run: Run, watch: Watch | None = None) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with what writers have made of a run."""
    from exporter.store.checksums import is_altered
    from exporter.store.layout import WRITER_NOTE, checksum_file

    again = "run exporter render with the writers' flags again"
    if not run.files.exists(WRITER_NOTE):
        if run.files.exists(checksum_file(WRITER_NOTE)):
            yield f"{WRITER_NOTE} is missing; {again}"
    elif is_altered(run.files, WRITER_NOTE):
        yield f"{WRITER_NOTE} has changed since it was written; remove it, and {again}"
    for name in writer_names():
        yield from check_writer(run, name, watch)


def check_writer(run: Run, name: str, watch: Watch | None = None) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with what one writer has made of a run."""
    from exporter.store.replacing import is_put_aside

    again = f"write it again with exporter render --writer {name}"
    try:
        if is_put_aside(run.files, name):
            yield f"{name}/ was being replaced when its writer was interrupted; {again}"
        elif run.files.exists(name):
            yield from (f"{problem}; {again}" for problem in altered_files(run.files, name, watch))
            yield from find_writer(name).check(run)
    except ExporterError as error:
        yield f"{name}/ cannot be checked: {error}"


def altered_files(files: RunFiles, name: str, watch: Watch | None = None) -> Iterator[str]:
    """Yield what of a writer's folder has changed since it was written."""
    from exporter.store.checksums import altered, recorded
    from exporter.store.layout import PLAN, checksum_file, writer_folder
    from exporter.store.replacing import UNFINISHED

    expected, there = find_writer(name).expects, False
    for file in files.below(name):
        if file == f"{name}/{UNFINISHED}":
            yield f"{name}/ is incomplete: its writer was interrupted"
            return
        there = there or PurePosixPath(file).match(expected)
    if not there:
        yield f"{name}/ has no {expected}"
    kept = checksum_file(writer_folder(name))
    checksums = recorded(files, writer_folder(name))
    if checksums is None and files.exists(checksum_file(PLAN)):
        yield f"{kept} is damaged or missing"
    outside = [file for file in checksums or () if not file.startswith(f"{name}/")]
    yield from (f"{kept} lists {file!r}, which is not in {name}/" for file in outside)
    if checksums is not None and not outside:
        yield from (problem for _, problem in altered(files, checksums, watch))


def write(run: Run, name: str, options: WriterOptions) -> Written:
    """Write one folder of a run and put it in the place of the one before.

    It is built under a random name and renamed to ``RUN/NAME`` when it is whole. A writer that
    fails or is killed leaves the folder that was there, and never half of a new one. What a writer
    makes in place is marked as unfinished meanwhile, and the former folder is put back on failure.

    Returns:
        What was written.

    Raises:
        WriterError: if there is no such writer, or it fails; the run itself stays intact.
    """
    from exporter.store.checksums import settle
    from exporter.store.layout import writer_folder
    from exporter.store.replacing import folder_in_place, new_folder

    writer = find_writer(name)
    try:
        # One that was told to write nothing (W&B switched off) leaves what was there.
        built = (folder_in_place if writer.in_place else new_folder)(run.files, name)
        with built as (files, building):
            written = writer.write(run, files.place(building), options)
            record_files(run.files, files, building, name)
        settle(run.files, writer_folder(name))
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
    return written


def record_files(run: RunFiles, files: RunFiles, folder: str, name: str) -> None:
    """Keep the checksums of what a writer has made; what it still logs does not count.

    `exporter.store.checksums.settle` has to follow once the folder is in its place.
    """
    from exporter.store.checksums import record
    from exporter.store.layout import writer_folder
    from exporter.store.replacing import UNFINISHED

    checksums = {}
    for file in sorted(files.below(folder)):
        within = file.removeprefix(f"{folder}/")
        is_link = files.place(file).is_symlink()
        if within != UNFINISHED and not within.endswith(".log") and not is_link:
            checksums[f"{name}/{within}"] = files.sha256(file)
    if checksums:
        record(run, writer_folder(name), checksums)
