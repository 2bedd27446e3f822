"""Errors a user can cause: each is one sentence with the bad value and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C or SIGTERM has ended."""

_LINE = 100
"""Characters up to which a message of several lines becomes one."""


class ExporterError(Exception):
    """A request that cannot be met; the command line prints it as one line and exits with 2.

    Examples:
        >>> import exporter
        >>> try:
        ...     exporter.open_run("no-such-run")
        ... except ExporterError as error:
        ...     print(error)
        there is no run in 'no-such-run' (no plan.json); make one with exporter run
    """

    # Whose code failed, until it is said on what (see `exporter.guard`).
    who = ""


class ConfigError(ExporterError):
    """A setting that is malformed or contradicts another."""


class ModelError(ExporterError):
    """A model, its weights or its checkpoint that cannot be resolved."""


class LayerError(ExporterError):
    """A layer that the model does not have, or that cannot be explained."""


class NoLayerError(LayerError):
    """A model without a layer of spatial positions: only pixel methods fit."""


class TargetError(ExporterError):
    """A target that does not fit the model's output."""


class MapError(ExporterError):
    """A map method that is unknown, or that does not fit the model."""


class MapWarning(UserWarning):
    """What to know about maps of `compute_maps`: how a layer was read, or that one is zero."""


class NoGradientError(MapError):
    """A score whose gradient does not reach what a method differentiates it with respect to."""


class BackwardError(MapError):
    """A backward that fails in the model; methods of activations need none."""


class ImageSetError(ExporterError):
    """An image set that cannot be opened, or is empty."""


class ImageError(ExporterError):
    """One image that cannot be read: the row carries the reason and the run goes on."""


class RunError(ExporterError):
    """A run folder that is absent, damaged, already taken, or belongs to different settings."""


class BusyError(RunError):
    """A run folder that another process is writing."""


class WriterError(ExporterError):
    """A log or report that cannot be written; the run itself stays intact."""


def one_line(error: BaseException) -> str:
    """Return an exception's type and what it says in one line; of a long message the first line."""
    try:
        said = str(error).strip()
    except Exception:  # a class of the user's may fail even here
        said = ""
    line = " ".join(said.split())
    if len(line) > _LINE:
        line = said.splitlines()[0]
    kind = type(error).__name__
    return f"{kind}: {line}" if line else kind


def reason(error: OSError | ValueError) -> str:
    """Say why a file or folder cannot be read, without its path: ``permission denied``."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def kind_of(value: object) -> str:
    """Say what a value is.

    Examples:
        >>> kind_of(5), kind_of([]), kind_of(None)
        ('an int', 'a list', 'None')
    """
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun.

    Examples:
        >>> counted(1, "layer"), counted(4000, "layer")
        ('1 layer', '4,000 layers')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def choices(wrong: str, valid: Iterable[str], *, limit: int = 8) -> str:
    """Say which valid names are closest to a wrong one.

    Returns:
        A clause such as ``did you mean 'layer4'?`` or ``choose one of a, b, c``.

    Examples:
        >>> choices("layr4", ["layer3", "layer4"]), choices("layer9", map(str, range(13)))
        ("did you mean 'layer4' or 'layer3'?", "did you mean '9'?")
    """
    names: Sequence[str] = list(dict.fromkeys(valid))
    close = get_close_matches(wrong, names, n=3, cutoff=0.6)
    if not close and (number := re.search(r"\d+$", wrong)):  # such as layer9 of 0 to 12
        close = [name for name in names if name.rpartition(".")[2] == number[0]][:3]
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    shown = ", ".join(names[:limit])
    more = f" … ({len(names)} in all)" if len(names) > limit else ""
    return f"choose one of {shown}{more}" if names else "there is nothing to choose from"
