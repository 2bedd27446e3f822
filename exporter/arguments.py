"""Settings as arguments of Python functions: in signatures, docstrings and errors."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Container
from functools import wraps
from inspect import Parameter
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from exporter.config import RunConfig, WriterConfig
from exporter.errors import ExporterError

_F = TypeVar("_F", bound=Callable[..., Any])

_SETTINGS = re.compile(r"^( *)\*\*settings: .*(?:\n\1 +.*)*", re.MULTILINE)
# A flag with its value, outside a command of the shell, which is left as it is.
_FLAG = re.compile(
    r"exporter (?:run|plan|work|finish|render|check) (?!\(|and )[^;]*"
    r"|(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z-]*)"
    r"(?P<value> (?:'[^']*'|[\w:=]+))?"
)

_GIVEN_AS = {tuple: "Sequence", dict: "Mapping"}
_SEVERAL: dict[Any, str] = {tuple: "; a sequence of them.", dict: "; by name."}
_WORDS = ("none", "auto", "binary")
"""Values of settings of any text that errors advise."""
_DEFAULTS = {
    **{name: field.default for name, field in RunConfig.model_fields.items()},
    **dict.fromkeys(("resume", "overwrite", "add", "trust_recipe"), False),
}


def takes_settings(function: _F) -> _F:
    """Give a function the settings of a run as keyword arguments, in place of ``**settings``.

    They stand in its signature with their types and defaults, and in its docstring with what they
    do, so that ``help``, editors and notebooks show and complete them.
    """
    own = inspect.signature(function)
    kept = [part for part in own.parameters.values() if part.kind is not Parameter.VAR_KEYWORD]
    added, told = [], []
    for name, (kind, default, text) in describe_settings().items():
        added.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind))
        told.append(f"{name}: {text}")
    function.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    function.__doc__ = _SETTINGS.sub(
        lambda match: "\n".join(match[1] + line for line in told), function.__doc__ or ""
    )
    return function


def describe_settings() -> dict[str, tuple[str, Any, str]]:
    """Return of each setting that has a default its type as text, the default, and what it does."""
    # As in the help of ``exporter run``: what the writers read comes last.
    fields = sorted(RunConfig.model_fields.items(), key=lambda f: f[0] in WriterConfig.model_fields)
    return {
        name: (
            _written(field.annotation),
            {} if isinstance(field.default, BaseModel) else field.default,
            (field.description or "").replace(
                "; repeatable.", _SEVERAL.get(get_origin(field.annotation), ".")
            ),
        )
        for name, field in fields
        if field.default is not PydanticUndefined
    }


def _written(kind: Any) -> str:
    """Write a setting's type as what may be given: a sequence for a tuple, text for a path."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _written(parts[0])
    if origin is Literal:
        return f"Literal[{', '.join(json.dumps(part) for part in parts)}]"
    inner = list(dict.fromkeys(_written(part) for part in parts if part is not Ellipsis))
    if origin in (Union, UnionType):
        return " | ".join(inner)
    if origin in _GIVEN_AS:
        return f"{_GIVEN_AS[origin]}[{', '.join(inner)}]"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "Mapping[str, Any]"
    return {Path: "str | Path", NoneType: "None"}.get(kind) or str(kind.__name__)


def in_python(function: _F) -> _F:
    """Have a function's errors name Python's arguments, where they name flags otherwise."""
    names = inspect.signature(function).parameters

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except ExporterError as error:
            error.args = (python_words(str(error), names), *error.args[1:])
            raise

    return call  # type: ignore[return-value]


def python_words(text: str, names: Container[str] = ()) -> str:
    """Write flags as Python's arguments; a command of the shell stays as it is.

    Args:
        text: a sentence that may name flags.
        names: arguments of the function that is called.

    Examples:
        >>> python_words("give a lower --batch-size, --layer auto, --weights none, or --resume")
        "give a lower batch_size=, layers=['auto'], weights='none', or resume=True"
        >>> python_words("write it again with exporter render --writer html")
        'write it again with exporter render --writer html'
    """

    def argument(flag: re.Match[str]) -> str:
        if flag["name"] is None:
            return flag[0]
        name, value = flag["name"].replace("-", "_"), (flag["value"] or "")[1:]
        if f"{name}s" in names or (name not in _DEFAULTS and f"{name}s" in _DEFAULTS):
            name += "s"
        default = _DEFAULTS.get(name)
        if isinstance(default, bool):
            return f"{name}={not flag['no']}" + (flag["value"] or "")
        if value in (*_WORDS, *_choices(name)):
            value = repr(value)
        elif not (value.isupper() or value.startswith("'")):  # a word of the sentence
            return f"{name}=" + (flag["value"] or "")
        return f"{name}=[{value}]" if isinstance(default, tuple) else f"{name}={value}"

    return _FLAG.sub(argument, text)


def _choices(name: str) -> list[str]:
    """Return the words that a setting can be."""
    field = RunConfig.model_fields.get(name)
    kinds = () if field is None else (field.annotation, *get_args(field.annotation))
    return [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
