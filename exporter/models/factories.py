"""Models from the user's own code: a factory in a module or a file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from exporter.errors import ModelError, choices, one_line
from exporter.models.preprocessing import default_for
from exporter.models.source import DEFAULT, NONE, Source


def from_factory(spec: str, weights: str) -> Source:
    """Return the model of a factory: ``package.module:factory`` or ``path/file.py:factory``.

    The factory is a callable without required arguments that returns an ``nn.Module``, or is itself
    one. Weights other than ``DEFAULT`` and ``none`` are handed over as ``weights=``.

    Raises:
        ModelError: if the module or factory is not there.
    """
    factory = load_attribute(spec, "factory")
    attribute = spec.rpartition(":")[2]
    options: dict[str, Any] = {}
    if weights not in (DEFAULT, NONE):
        if isinstance(factory, nn.Module) or "weights" not in _parameters(factory):
            raise ModelError(
                f"the factory {spec!r} takes no weights, so {weights!r} cannot be had from it; "
                "leave --weights away or give --checkpoint FILE"
            )
        options["weights"] = weights

    def build(bare: bool, _classes: int | None) -> nn.Module:
        module = factory
        if not isinstance(factory, nn.Module):
            try:
                module = factory(**({} if bare else options))
            except ModelError:
                raise
            except Exception as error:
                raise ModelError(f"the factory {spec!r} failed: {one_line(error)}") from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"the factory {spec!r} gave a {type(module).__name__}, not a torch.nn.Module"
            )
        return module

    named = {DEFAULT: "as the factory gives them", NONE: NONE}.get(weights, weights)
    return Source(attribute, named, build, default_for, lambda _: (), own=True)


def load_attribute(spec: str, what: str) -> Any:
    """Import what ``package.module:name`` or ``path/file.py:name`` names.

    Args:
        spec: the module or file, and the name in it.
        what: what is expected there, for the message.

    Raises:
        ModelError: if the module or the name is not there.
    """
    where, _, attribute = spec.rpartition(":")
    found: Any = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")]
            raise ModelError(f"{where!r} has no {what} {attribute!r}; {choices(part, public)}")
        found = getattr(found, part)
    return found


def from_reference(spec: str) -> Callable[..., Any]:
    """Return a function of the user's: ``package.module:function`` or ``path/file.py:function``.

    Raises:
        ModelError: if the module or function is not there, or it cannot be called.
    """
    if not all(spec.rpartition(":")[::2]):
        raise ModelError(
            f"{spec!r} is no function; write package.module:function or path/file.py:function"
        )
    found: Callable[..., Any] = load_attribute(spec, "function")
    if not callable(found):
        raise ModelError(f"{spec!r} is a {type(found).__name__}, not a function")
    return found


def _parameters(factory: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return ()


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Put a folder on the import path for a while, as ``python`` does with a script's."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def _import_module(name: str) -> Any:
    try:
        with _importable(str(Path.cwd())):
            return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
            raise ModelError(
                f"there is no module {error.name!r}; give an importable package.module:factory or "
                "path/file.py:factory"
            ) from None
        raise ModelError(f"the module {name!r} cannot be imported: {one_line(error)}") from error


def _import_file(file: Path) -> Any:
    if not file.is_file():
        raise ModelError(f"there is no file {str(file)!r} to take a factory from")
    name = f"_exporter_factory_{file.stem}_{abs(hash(str(file.resolve()))):x}"
    description = importlib.util.spec_from_file_location(name, file)
    if description is None or description.loader is None:
        raise ModelError(f"the file {str(file)!r} is not a Python module")
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    try:
        with _importable(str(file.resolve().parent)):
            description.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ModelError(f"the file {str(file)!r} cannot be run: {one_line(error)}") from error
    return module
