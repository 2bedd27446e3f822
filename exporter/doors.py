"""Doors: what people add without editing the package, by a reference or by an entry point."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from exporter.errors import ConfigError, ExporterError, choices, kind_of
from exporter.guard import AGAIN, FAILURES, passes, told, user_code

MAPS = "exporter.maps"
WRITERS = "exporter.writers"
SOURCES = "exporter.sources"
METRICS = "exporter.metrics"
ENGINES = "exporter.engines"

RUN_FOLDERS = frozenset({"shards", "summaries", "checksums", "set", "maximised", "kernels"})
"""Folders of a run that are no writer's."""


def plugins(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, as installed distributions declare them.

    Nothing is imported. Where two distributions declare the same name, the first by its
    distribution's name counts.
    """
    installed = _installed(tuple((path, _changed(path)) for path in sys.path))
    declared = sorted(installed.select(group=group), key=lambda e: e.dist.name if e.dist else "")
    return {entry.name: entry for entry in reversed(declared)}


@lru_cache(maxsize=1)
def _installed(_where: tuple[tuple[str, int], ...]) -> Any:
    """Return all entry points on the import path, to find which takes reading hundreds of files."""
    return entry_points()


def _changed(path: str) -> int:
    """Return when something was last put into a folder of the import path."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def writer_names() -> tuple[str, ...]:
    """Return the names of all writers: the packages of ``exporter/writers``, then the plug-ins'.

    A name is a folder in the run too, so a plug-in whose name is no plain word, or another part of
    the run, is left out.
    """
    room = pkgutil.iter_modules([str(Path(__file__).parent / "writers")])
    added = [
        name
        for name in plugins(WRITERS)
        if re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) and name not in RUN_FOLDERS
    ]
    return tuple(dict.fromkeys([*(package.name for package in room if package.ispkg), *added]))


def load_plugin(entry: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        ConfigError: if it cannot be imported, with the distribution that declares it.
    """
    try:
        return entry.load()
    except FAILURES as error:  # somebody else's code
        whose = entry.dist.name if entry.dist else "an installed package"
        raise ConfigError(
            f"the plug-in {entry.name!r} of {whose} ({entry.value}) cannot be loaded: "
            f"{told(error)}; fix or uninstall {whose}"
        ) from error


def load_reference(spec: str, what: str, error: type[ExporterError] = ConfigError) -> Any:
    """Import what ``package.module:name`` or ``path/file.py:name`` names.

    The current folder, or the file's own, is importable meanwhile. A file is run once: every
    reference to it in one process gives the same module.

    Args:
        spec: the module or file, and the name in it.
        what: what is expected there, for the message: ``factory``, ``function``, ``map``.
        error: the kind of error to raise.

    Raises:
        ExporterError: of the given kind, if the module or the name is not there.
    """
    where, _, attribute = spec.rpartition(":")
    if not where or not attribute:
        raise error(f"{spec!r} is not a {what}; write package.module:{what} or path/file.py:{what}")
    holder: Any = (_import_file if where.endswith(".py") else _import_module)(where, what, error)
    for part in attribute.split("."):
        with user_code(repr(where), repr(part), error=error):
            there = hasattr(holder, part)
        if not there:
            offered = vars(holder).items()
            if where.endswith(".py"):  # what a file imports is not what it offers
                offered = {name: v for name, v in offered if not _is_imported(v, holder)}.items()
            public = [name for name, _ in offered if not name.startswith("_")]
            raise error(f"{where!r} has no {what} {attribute!r}; {choices(part, public)}")
        holder = getattr(holder, part)
    return holder


def load_function(spec: str) -> Callable[..., Any]:
    """Return a function of the user's: ``package.module:function`` or ``path/file.py:function``.

    Raises:
        ConfigError: if it is not there or cannot be called.
    """
    function: Callable[..., Any] = load_reference(spec, "function")
    if not callable(function):
        raise ConfigError(f"{spec!r} is {kind_of(function)}, not a function")
    return function


def _is_imported(value: object, holder: object) -> bool:
    home = getattr(value, "__module__", None)
    own = getattr(holder, "__module__", vars(holder).get("__name__"))
    return isinstance(value, ModuleType) or home not in (None, own)


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage while big libraries are imported: looking for some takes a fifth of it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Put a folder on the import path for a while, as ``python`` does with a script's."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def _import_module(name: str, what: str, error: type[ExporterError]) -> ModuleType:
    try:
        with _importable(str(Path.cwd())):
            return importlib.import_module(name)
    except BaseException as failure:
        if passes(failure):
            raise
        missing = getattr(failure, "name", None)
        if isinstance(failure, ModuleNotFoundError) and f"{name}.".startswith(f"{missing}."):
            raise error(
                f"there is no module {missing!r}; give an importable package.module:{what} or "
                f"path/file.py:{what}"
            ) from None
        raise error(
            f"the module {name!r} cannot be imported: {told(failure)}; {AGAIN}"
        ) from failure


def _import_file(path: str, what: str, error: type[ExporterError]) -> ModuleType:
    file = Path(path).resolve()
    if not file.is_file():
        beside = [str(Path(path).with_name(each.name)) for each in file.parent.glob("*.py")]
        near = get_close_matches(path, sorted(beside), n=1, cutoff=0.8)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise error(f"there is no file {path!r} to take a {what} from{meant}")
    name = f"_exporter_file_{file.stem}_{abs(hash(str(file))):x}"
    if name in sys.modules:
        return sys.modules[name]
    description = importlib.util.spec_from_file_location(name, file)
    assert description is not None and description.loader is not None, "the name ends in .py"
    module = sys.modules[name] = importlib.util.module_from_spec(description)
    try:
        with _importable(str(file.parent)):
            description.loader.exec_module(module)
    except BaseException as failure:
        del sys.modules[name]
        if passes(failure):
            raise
        raise error(f"the file {path!r} cannot be run: {told(failure)}; {AGAIN}") from failure
    return module
