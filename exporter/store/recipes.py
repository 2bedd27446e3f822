"""``recipe.json``: how workers build the model and the images of a run that is not finished."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import RunError
from exporter.store.files import remove, write_whole
from exporter.store.layout import RECIPE


def write_recipe(run: Path, document: Mapping[str, Any]) -> None:
    """Write the recipe of a run, from JSON values.

    Raises:
        RunError: if it cannot be written.
    """
    write_whole(run / RECIPE, (json.dumps(document, indent=1) + "\n").encode())


def read_recipe(run: Path) -> dict[str, Any] | None:
    """Return the recipe of a run as JSON values; None where there is none.

    Raises:
        RunError: if it is damaged.
    """
    file = run / RECIPE
    if not file.exists():
        return None
    try:
        document = json.loads(file.read_bytes())
        return {name: document[name] for name in ("settings", "command", "folder")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{str(file)!r} is damaged ({error}); plan the run again with --resume"
        ) from None


def way_on(run: Path, *, missing: bool) -> str:
    """Say how an unfinished run is completed.

    Args:
        run: the run folder.
        missing: whether shards are missing.

    Returns:
        The command for a planned run. Without a recipe only whoever handed over the model or the
        images can go on: ``--resume``.
    """
    if not (run / RECIPE).exists():
        return "--resume"
    return shlex.join(["exporter", "work" if missing else "finish", str(run)])


def forget_recipe(run: Path) -> None:
    """Remove the recipe of a run that is finished: it names folders of this machine."""
    remove(run / RECIPE, quiet=True)
