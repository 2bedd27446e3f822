"""A hash of the code that a model runs, which tells another forward with the same weights apart."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

_Code = (types.FunctionType, types.MethodType, functools.partial, type)
_Plain = (str, bytes, int, float, complex, types.NoneType)


def code_digest(module: nn.Module) -> str:
    """Return the first 12 hexadecimal digits of the BLAKE2b hash of a model's own code.

    What counts is the bytecode of its classes, of functions set on its modules (a replaced
    ``forward``), of their hooks, and of the functions that all these call by name, hold in a
    closure or wrap, with text and numbers in closures and default arguments; not comments, names
    of variables or lines, nor the code of installed packages. What such code reads besides (numbers
    in attributes and globals, and in closures what it writes itself, such as a count of its calls)
    does not count.
    """
    hashed = hashlib.blake2b(digest_size=16)
    seen: set[int] = set()
    waiting: list[Any] = []
    for name, part in module.named_modules():
        own = [value for value in vars(part).values() if isinstance(value, _Code)]
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if own or hooks:
            waiting.append(name)
        waiting += [*own, *hooks, type(part)]
    waiting.reverse()
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Plain):
            hashed.update(f"{value!r}\0".encode())
        elif isinstance(value, tuple):
            waiting += reversed(value)
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += reversed([*_inside(value)])
    return hashed.hexdigest()[:12]


def _inside(value: Any) -> Iterator[Any]:
    """Yield what a piece of code is made of: text for the hash, and further pieces of code."""
    if isinstance(value, types.MethodType):
        yield value.__func__
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, *value.keywords.items())
    elif isinstance(value, type):
        yield from _of_class(value)
    elif isinstance(value, types.FunctionType):
        if _installed(value.__module__):
            return
        yield from _of_code(value.__code__, value.__doc__)
        yield from (value.__defaults__, *(value.__kwdefaults__ or {}).items())
        written = _written(value.__code__)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            # A cell that is still empty belongs to a function that refers to itself.
            for held in _contents(cell):
                if not isinstance(held, (nn.Module, *(_Plain if name in written else ()))):
                    yield held
        named = (value.__globals__.get(name) for name in value.__code__.co_names)
        yield from (called for called in named if isinstance(called, _Code))
    elif callable(value):
        yield type(value)


def _of_class(kind: type) -> Iterator[Any]:
    for base in kind.__mro__:
        if not _installed(base.__module__):
            yield base.__qualname__
            for name, value in sorted(vars(base).items()):
                function = getattr(value, "__func__", getattr(value, "fget", value))
                if isinstance(function, types.FunctionType):
                    yield from (name, function)


def _of_code(code: types.CodeType, doc: str | None) -> Iterator[Any]:
    yield code.co_code
    yield " ".join(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_code(constant, None)
        elif constant != doc:
            listed = isinstance(constant, frozenset)
            yield repr(sorted(map(repr, constant)) if listed else constant)


def _written(code: types.CodeType) -> set[str]:
    """Return the names that code, or a function inside it, gives another value in a closure."""
    steps = dis.get_instructions(code)
    names = {str(step.argval) for step in steps if step.opname == "STORE_DEREF"}
    inside = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return names.union(*map(_written, inside))


def _contents(cell: types.CellType) -> Iterator[Any]:
    try:
        yield cell.cell_contents
    except ValueError:
        return


@functools.cache
def _installed(module: str | None) -> bool:
    """Say whether a module is the standard library's, or a package's that is installed."""
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    roots = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return module == "builtins" or any(Path(file or "").is_relative_to(root) for root in roots)
