"""``recipe.json``: how workers build the model and the images of a run that is not finished."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from exporter.store.documents import damaged, json_bytes, read_json
from exporter.store.files import RunFiles
from exporter.store.layout import RECIPE

_REMEDY = "plan the run again with --resume"


def write_recipe(run: RunFiles, document: Mapping[str, Any]) -> None:
    """Write the recipe of a run, from JSON values.

    Raises:
        RunError: if it cannot be written.
    """
    run.write(RECIPE, json_bytes(document))


def read_recipe(run: RunFiles) -> dict[str, Any] | None:
    """Return the recipe of a run as JSON values; None where there is none.

    Raises:
        RunError: if it is damaged.
    """
    if not run.exists(RECIPE):
        return None
    document = read_json(run, RECIPE, _REMEDY)
    try:
        return {name: document[name] for name in ("settings", "command", "folder")}
    except (KeyError, TypeError) as error:
        raise damaged(run, RECIPE, error, _REMEDY) from None


def way_on(run: RunFiles, *, missing: bool) -> str:
    """Say how an unfinished run is completed.

    Args:
        run: the run folder.
        missing: whether shards are missing.

    Returns:
        The command for a planned run. Without a recipe only whoever handed over the model or the
        images can go on: ``--resume``.
    """
    if not run.exists(RECIPE):
        return "--resume"
    return shlex.join(["exporter", "work" if missing else "finish", str(run.run)])


def forget_recipe(run: RunFiles) -> None:
    """Remove the recipe of a run that is finished: it names folders of this machine."""
    run.remove(RECIPE, quiet=True)
