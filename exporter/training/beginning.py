"""What a training's folder holds when it is watched: nothing yet, or the epochs so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from exporter.errors import RunError
from exporter.records import FEATURES, Plan
from exporter.store import epoch_folder, epochs_in, open_run
from exporter.store.documents import json_bytes, read_json, validated
from exporter.store.epochs import EPOCHS, TRAINING
from exporter.store.files import RunFiles
from exporter.store.layout import COMPARISON, PLAN, is_temporary
from exporter.store.lock import RunLock
from exporter.training.records import SCHEMA_VERSION, Training, WatchedEpoch

_AUTO = "auto"
_CUT = "the training ended while it was explained"
_REMEDY = "remove it, or give another folder"
_HELD = {PLAN: "a run", COMPARISON: "a comparison"}


def begun(files: RunFiles, out: Path, rule: str, ids: tuple[str, ...]) -> Training:
    """Return what the folder says of the training so far, if it is of these images.

    Raises:
        RunError: if the folder holds something else, or a training watched on other images, or if
            another process is explaining an epoch there.
    """
    if not files.exists(TRAINING):
        if names := [name for name in files.names() if not is_temporary(name)]:
            held = next((words for name, words in _HELD.items() if name in names), "other files")
            raise RunError(
                f"the folder {str(out)!r} holds {held}, and no training; give another folder as out"
            )
        files.make_folder()
        training = Training(SCHEMA_VERSION, rule, ids)
        # At once: the training may be killed in its first epoch, and go on here.
        files.write(TRAINING, json_bytes(asdict(training)))
        return training
    values = read_json(files, TRAINING, _REMEDY, versioned=True)
    before = validated(files, TRAINING, Training, values, _REMEDY)
    if before.images != ids:
        raise RunError(
            f"the training in {str(out)!r} was watched on other images ({before.rule}), and these "
            f"are {rule}; give the same, or another out"
        )
    return _without_cut(files, out, before)


def _without_cut(files: RunFiles, out: Path, before: Training) -> Training:
    """Remove what a training that was killed has left half-done, and mark its epoch."""
    for name in files.names():
        if is_temporary(name) and name.endswith(".tmp"):
            files.remove(name)
    noted = {entry.epoch for entry in before.epochs}
    numbers = {int(name) for name in files.names(EPOCHS) if name.isdecimal()}
    for number in numbers - noted:
        folder = epoch_folder(number)
        RunLock(out / folder).release()
        files.remove(folder)
    cut = tuple(WatchedEpoch(number, "failed", _CUT, 0.0, {}) for number in numbers - noted)
    epochs = sorted((*before.epochs, *cut), key=lambda entry: entry.epoch)
    return replace(before, epochs=tuple(epochs))


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
