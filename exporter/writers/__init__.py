"""The sinks: each reads a finished or partial run folder and writes one folder inside it.

Adding a writer is one file, ``exporter/writers/NAME.py`` with a function ``write``, and one line in
`WRITERS`. A sink's library is imported when its writer runs, not before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from exporter.errors import ExporterError, WriterError, choices
from exporter.writers.options import WriterOptions

if TYPE_CHECKING:
    from exporter.records import Written
    from exporter.store import Run

    Writer = Callable[[Run, Path, WriterOptions], Written]

__all__ = ["WRITERS", "WriterOptions", "write"]


def _lazy(module: str) -> Writer:
    def call(run: Run, folder: Path, options: WriterOptions) -> Written:
        writer: Writer = import_module(module).write
        return writer(run, folder, options)

    return call


WRITERS: Mapping[str, Writer] = MappingProxyType(
    {
        "tensorboard": _lazy("exporter.writers.tensorboard.writer"),
        "wandb": _lazy("exporter.writers.wandb.writer"),
        "html": _lazy("exporter.writers.html.writer"),
    }
)
"""Name to ``write(run, folder, options) -> Written``; the name is also the folder in the run."""


def write(run: Run, name: str, options: WriterOptions) -> Written:
    """Build one sink from a run and put it in the place of the one before.

    It is built as ``RUN/.NAME.tmp`` and renamed to ``RUN/NAME`` when whole, so that a writer that
    fails or is killed leaves the sink that was there, and never half of a new one.

    Args:
        run: the run folder, complete or partial.
        name: one of `WRITERS`.
        options: what only the writers read.

    Returns:
        What was made.

    Raises:
        WriterError: if there is no such writer, or it fails; the run itself stays whole.
    """
    if name not in WRITERS:
        raise WriterError(f"no writer is called {name!r}; {choices(name, WRITERS)}")
    final = run.path / name
    building, former = run.path / f".{name}.tmp", run.path / f".{name}.old"
    try:
        _remove(building)
        building.mkdir()
        written = WRITERS[name](run, building, options)
        if not any(building.iterdir()):
            # One that was told to write nothing (W&B switched off) leaves what was there.
            return written
        _remove(former)
        if final.exists() or final.is_symlink():
            final.rename(former)
        building.rename(final)
        _remove(former)
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
        raise WriterError(f"the {name} writer failed ({type(error).__name__}: {error})") from error
    finally:
        _restore(final, former)
        _remove(building, quietly=True)
    return written


def _restore(final: Path, former: Path) -> None:
    """Put the former sink back where the swap was cut between its two renames."""
    if former.exists() and not final.exists():
        former.rename(final)


def _remove(path: Path, *, quietly: bool = False) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=quietly)
    else:
        path.unlink(missing_ok=True)
