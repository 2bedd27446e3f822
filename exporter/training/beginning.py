"""What a training's folder holds when it is watched: nothing yet, or the epochs so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import RunError
from exporter.records import FEATURES, Plan
from exporter.store import epochs_in, open_run
from exporter.store.documents import read_json, validated
from exporter.store.epochs import EPOCHS, TRAINING
from exporter.store.files import RunFiles
from exporter.store.layout import COMPARISON, PLAN
from exporter.training.records import SCHEMA_VERSION, Training

_AUTO = "auto"
_REMEDY = "remove it, or give another folder"
_HELD = {PLAN: "a run", COMPARISON: "a comparison"}


def begun(files: RunFiles, out: Path, rule: str, ids: tuple[str, ...]) -> Training:
    """Return what the folder says of the training so far, if it is of these images.

    Raises:
        RunError: if the folder holds something else, or a training watched on other images.
    """
    if not files.exists(TRAINING):
        if names := files.names():
            held = next((words for name, words in _HELD.items() if name in names), "other files")
            raise RunError(
                f"the folder {str(out)!r} holds {held}, and no training; give another folder as out"
            )
        files.make_folder()
        files.make_folder(EPOCHS)
        return Training(SCHEMA_VERSION, rule, ids)
    values = read_json(files, TRAINING, _REMEDY, versioned=True)
    before = validated(files, TRAINING, Training, values, _REMEDY)
    if before.images != ids:
        raise RunError(
            f"the training in {str(out)!r} was watched on other images ({before.rule}), and these "
            f"are {rule}; give the same, or another out"
        )
    return before


def first_plan(out: Path) -> Plan | None:
    """Return the plan of the first epoch that is there, if there is one."""
    for place in epochs_in(out).values():
        return open_run(place).plan
    return None


def settled(settings: Mapping[str, Any], plan: Plan | None) -> dict[str, tuple[str, ...]]:
    """Return the layers that ``auto`` stands for at all epochs: those of the first one's plan."""
    if plan is None:
        return {}
    recorded = tuple(name for name in plan.recorded if name != FEATURES or not plan.encoder)
    chosen = {"layers": plan.layers_of_the_model, "activations": recorded}
    return {
        name: layers
        for name, layers in chosen.items()
        if layers and _AUTO in settings.get(name, ())
    }
