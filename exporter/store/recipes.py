"""``recipe.json``: how workers build the model and the images of a run that is not finished.

A recipe names code that runs, and where W&B sends to. So it bears its user's seal: a run folder
from elsewhere cannot have it, and asks for a word from its reader.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exporter.errors import RunError
from exporter.store.checksums import commit, forget, is_altered, noted, sum_of
from exporter.store.documents import damaged, json_bytes, read_json
from exporter.store.files import RunFiles
from exporter.store.layout import RECIPE, TOTALS, checksum_file
from exporter.store.seals import bears, seal

_REMEDY = "plan the run again with --resume"
_FIELDS = ("settings", "command", "folder")


def write_recipe(run: RunFiles, document: Mapping[str, Any], launch: str = "") -> None:
    """Write the recipe of a run, with its user's seal.

    ``launch`` tells the processes that were started together that this is theirs.

    Raises:
        RunError: if it cannot be written.
    """
    sealed = {**document, "seal": seal(_sealed(document)), "launch": launch}
    commit(run, {RECIPE: json_bytes(sealed)})


def read_recipe(run: RunFiles, *, trusted: bool = False) -> dict[str, Any] | None:
    """Return the recipe of a run as JSON values; None where there is none.

    Raises:
        RunError: if it is damaged, or somebody else wrote it and it is not trusted.
    """
    if not _is_expected(run):
        return None
    if recipe_is_altered(run):
        raise damaged(run, RECIPE, "it is missing or its SHA-256 differs", _REMEDY)
    values = read_json(run, RECIPE, _REMEDY)
    try:
        document = {name: values[name] for name in _FIELDS}
        model = str(document["settings"]["model"])
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(run, RECIPE, error, _REMEDY) from None
    if not trusted and not bears(_sealed(document), values.get("seal")):
        where = "by another user or on another machine"
        if values.get("seal") is None:
            where += ", or where no key could be stored to seal its recipe with"
        raise RunError(
            f"the run {str(run.run)!r} was planned {where}, and its "
            f"recipe says what code runs (its model is {model!r}); if you trust whoever planned "
            "it, give --trust-recipe"
        )
    return document


def is_planned(run: RunFiles, launch: str, *, complete: bool) -> bool | None:
    """Say whether the run is planned for those that were started together; None for not yet.

    False is a complete run, of which nothing is to be computed, where that will do; the run of this
    launch always does, for whoever comes late has missed it.
    """
    if _launch_of(run) == launch:
        return True
    complete = complete or noted(run, TOTALS) == _digest(launch)
    return False if complete and run.exists(TOTALS) else None


def launch_note(run: RunFiles) -> str:
    """Return what is noted with the checksum of ``run.json``: whose launch has finished the run."""
    launch = _launch_of(run)
    return _digest(launch) if launch else ""


def _launch_of(run: RunFiles) -> str | None:
    with suppress(RunError, AttributeError):
        if run.exists(RECIPE):
            return str(read_json(run, RECIPE, _REMEDY).get("launch"))
    return None


def _digest(launch: str) -> str:
    return sum_of(launch.encode())[:16]


def recipe_is_altered(run: RunFiles) -> bool:
    """Say whether the recipe of a run is missing, or known to have changed since it was written."""
    return _is_expected(run) and is_altered(run, RECIPE)


def _is_expected(run: RunFiles) -> bool:
    """Say whether there is a recipe, or was one when the run was still going on."""
    kept = run.exists(checksum_file(RECIPE)) and not run.exists(TOTALS)
    return kept or run.exists(RECIPE)


def _sealed(document: Mapping[str, Any]) -> bytes:
    return json.dumps([document[name] for name in _FIELDS], sort_keys=True).encode()


def way_on(run: RunFiles, *, missing: bool) -> str:
    """Say how an unfinished run is completed.

    Returns:
        The command for a planned run. Without a recipe only whoever handed over the model or the
        images can go on: ``--resume``.
    """
    if not run.exists(RECIPE):
        return "--resume"
    return shlex.join(["exporter", "work" if missing else "finish", str(run.run)])


def plan_again(run: RunFiles) -> str:
    """Say how a plan or kernels that rotted are mended; nothing that is computed is lost."""
    return _REMEDY if _is_expected(run) else "go on with --resume"


def forget_recipe(run: RunFiles) -> None:
    """Remove the recipe of a run that is finished: it names folders of this machine."""
    forget(run, RECIPE)
