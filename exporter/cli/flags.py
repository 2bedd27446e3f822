"""What commands share: the flags, made from the settings themselves, and the exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from exporter.cli.completion import COMPLETERS
from exporter.config import RunConfig, WriterConfig, flag_of
from exporter.errors import ConfigError
from exporter.stores import is_address, place_of

DONE: Final = 0
BAD_REQUEST: Final = 2
"""A request that cannot be met: one clear line on standard error."""
SOME_SKIPPED: Final = 3
"""Done, but some images could not be read."""


class _RunPlace(click.Path):
    """A run folder: on the disk, or at an address."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path or an address."""
        return place_of(value) if is_address(value) else super().convert(value, param, ctx)


PATH: Final = click.Path(path_type=Path)
PLACE: Final = _RunPlace(path_type=Path)

RUN = click.argument("run_folder", metavar="RUN", type=PLACE)
RUN_OR_COMPARISON = click.argument("source", metavar="RUN|CMP", type=PLACE)

_F = TypeVar("_F", bound=Callable[..., Any])


def several(name: str, metavar: str) -> Callable[[_F], _F]:
    """Take one folder or more as arguments."""
    return click.argument(name, metavar=metavar, nargs=-1, required=True, type=PLACE)


RUNS_OR_COMPARISON = several("sources", "RUN…|CMP")


def file_option(*names: str, help: str, metavar: str = "FILE", **more: Any) -> Callable[[_F], _F]:
    """Take a file or a folder as the value of a flag."""
    return click.option(*names, metavar=metavar, type=PATH, help=help, **more)


def run_flags(command: _F) -> _F:
    """Add the flags that settle what a run does."""
    # The former spelling of --faithfulness.
    former = click.option("--quality", is_flag=True, default=None, hidden=True)
    file = file_option("--config", "file", help="A TOML file of settings; flags override it.")
    own = {n: f for n, f in RunConfig.model_fields.items() if n not in WriterConfig.model_fields}
    return _add(command, *_flags(own), former, *_flags(WriterConfig.model_fields), file)


def writer_flags(command: _F) -> _F:
    """Add the flags that only the writers read."""
    return _add(command, *_flags(WriterConfig.model_fields))


def begin_flags(command: _F) -> _F:
    """Add the flags that say what becomes of a run that is already in the folder."""
    return _add(
        command,
        click.option("--resume", is_flag=True, help="Continue a run that was interrupted."),
        click.option("--overwrite", is_flag=True, help="Replace the run that is already there."),
    )


def _add(command: _F, *flags: Callable[[_F], _F]) -> _F:
    for flag in reversed(flags):
        command = flag(command)
    return command


def _flags(fields: dict[str, FieldInfo]) -> list[Callable[[_F], _F]]:
    return [_flag(name, field) for name, field in fields.items() if field.json_schema_extra]


def _flag(name: str, field: FieldInfo) -> Callable[[_F], _F]:
    """Make the flag of a setting, which checks its value itself."""
    flag, kind, notes = flag_of(name, field), field.annotation, field.json_schema_extra
    assert isinstance(notes, dict), "the setting is declared with `setting`"
    shown = notes["shown"] or field.default
    options: dict[str, Any] = {"default": None, "metavar": notes["metavar"]}
    options["shell_complete"] = COMPLETERS.get(name)
    if kind is bool:
        flag, shown = f"{flag}/--no-{flag.removeprefix('--')}", None
    elif get_origin(kind) in (tuple, dict):
        options["multiple"] = True
        shown = notes["shown"] or " ".join(field.default)
    elif not notes["metavar"]:
        (literal,) = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
        options["type"] = click.Choice(get_args(literal))
    given = shown not in (None, "", PydanticUndefined)
    text = f"{field.description}  [default: {shown}]" if given else field.description
    return click.option(flag, name, help=text, **options)


def part(
    context: click.Context,  # noqa: ARG001
    option: click.Parameter,  # noqa: ARG001
    value: str | None,
) -> tuple[int, int] | Literal["-"] | None:
    """Read a worker's part of the shards: ``0/4`` is the first of four, ``-`` those it is told.

    Raises:
        click.BadParameter: if it is none.
    """
    if value is None or value == "-":
        return value  # type: ignore[return-value]
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if match is None or int(match[1]) >= int(match[2]):
        raise click.BadParameter(
            f"{value!r} is not a part; write i/n with i from 0 to n - 1, or - for standard input"
        )
    return int(match[1]), int(match[2])


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given, so that a TOML file and the defaults count.

    Raises:
        ConfigError: if an option of a writer is not ``NAME.KEY=VALUE``, or a metric not
            ``NAME=VALUE``.
    """
    values = {name: value for name, value in flags.items() if value not in (None, ())}
    tables: dict[str, dict[str, str]] = {}
    for text in values.pop("writer_options", ()):
        match = re.fullmatch(r"([^.=]*)\.([^=]+)=(.*)", text, re.DOTALL)
        if match is None:
            raise ConfigError(f"the writer option {text!r} does not have the form NAME.KEY=VALUE")
        tables.setdefault(match[1], {})[match[2].replace("-", "_")] = match[3]
    metrics: dict[str, str] = {}
    for text in values.pop("metrics", ()):
        name, _, metrics[name] = text.rpartition("=")
        if not name:
            raise ConfigError(f"the metric {text!r} does not have the form NAME=VALUE")
    told = {"writer_options": tables, "metrics": metrics}
    return values | {name: table for name, table in told.items() if table}
