"""The runs of a comparison side by side: which images they share, and in what they differ."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from exporter.comparison.aligning import common_methods, common_stages
from exporter.comparison.differences import axis_of, differences_of, shared_classes
from exporter.comparison.records import Compared, Difference, MissingImage, Stage
from exporter.errors import RunError, choices
from exporter.paths import without_folders
from exporter.records import Plan, Row
from exporter.store import Run, anonymous, epochs_in, open_run
from exporter.store.documents import read_json
from exporter.store.layout import WRITER_NOTE
from exporter.stores import Address, Place, place_of
from exporter.writers.links import step_of

MOST: Final = 50
"""Runs that are compared at most."""

_FOOTERS: Final = 12
"""Shards of all runs whose footers are kept: of many runs, each is read in its own order."""


@dataclass(frozen=True)
class Joined:
    """Runs that are compared, in order, and what is the same in them.

    ``ids`` are the images that all runs have read, in the order of the baseline, which is the place
    of a run; ``missing`` are the others. ``stages`` go from shallow to deep, without the input.
    """

    runs: tuple[Run, ...]
    names: tuple[str, ...]
    steps: tuple[int | None, ...]
    baseline: int
    axis: str
    ids: tuple[str, ...]
    missing: tuple[MissingImage, ...]
    differences: tuple[Difference, ...]
    methods: tuple[Compared, ...]
    stages: tuple[Stage, ...]
    pixels: Stage
    notes: tuple[str, ...] = field(default=())

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What each run did."""
        return tuple(run.plan for run in self.runs)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Place of each shared image, by its id."""
        return {id: at for at, id in enumerate(self.ids)}

    def rows(self, ids: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[Row, ...]]:
        """Yield of each image its rows, one per run."""
        return zip(*(run.chosen(ids, columns) for run in self.runs), strict=True)

    def stages_of(self, method: Compared) -> tuple[Stage, ...]:
        """Return where a method's maps are compared."""
        return (self.pixels,) if method.pixel else self.stages


def join(
    given: Sequence[str | Place | Run],
    baseline: str | Place | None = None,
    *,
    unnamed: bool = False,
) -> Joined:
    """Open runs and lay them side by side.

    Args:
        given: run folders, 2 to 50, or runs that are open.
        baseline: one of them; if None, the first, of checkpoints that of the first step.
        unnamed: whether the runs are told without who made them; what varies is known all the same.

    Raises:
        RunError: if there are too few or too many, one is given twice, or no image is in all.
    """
    wanted, left_out = _with_epochs(given, unnamed=unnamed)
    _refuse([run.path if isinstance(run, Run) else run for run in wanted])
    runs = [run if isinstance(run, Run) else open_run(run) for run in wanted]
    _refuse_copies(runs)
    plans = [run.plan for run in runs]
    axis = axis_of(plans)
    steps = steps_of(runs) if axis in {"checkpoint", "weights"} else [None] * len(runs)
    order = sorted(range(len(runs)), key=lambda at: (steps[at] or 0, at))
    runs, steps, plans = ([part[at] for at in order] for part in (runs, steps, plans))  # type: ignore[assignment]
    if unnamed:
        runs = [anonymous(run) for run in runs]
    for run in runs:
        run.footers_kept = max(1, _FOOTERS // len(runs))
    shown = [run.plan for run in runs]
    first = 0
    if baseline is not None:
        named = [place_of(baseline).resolve() == run.path.resolve() for run in runs]
        if not any(named):
            raise RunError(
                f"the baseline {str(baseline)!r} is not one of the runs; "
                f"{choices(str(baseline), [str(run.path) for run in runs])}"
            )
        first = named.index(True)
    names = names_of(runs, steps, axis)
    ids, missing = shared_images(runs, names, first)
    methods = common_methods(shown)
    stages, aligned = common_stages(shown)
    notes = [
        f"{name} is not finished: {len(run.shards)} of {len(run.plan.shards)} shards are done, "
        "and it is compared on their images"
        for name, run in zip(names, runs, strict=True)
        if not run.complete
    ]
    notes += [note for note in (left_out, aligned) if note]
    notes += _cannot(shown, methods, stages)
    return Joined(
        runs=tuple(runs),
        names=tuple(names),
        steps=tuple(steps),
        baseline=first,
        axis=axis,
        ids=tuple(ids),
        missing=tuple(missing),
        differences=tuple(differences_of(plans, shown, axis, len(missing))),
        methods=tuple(methods),
        stages=tuple(stages),
        pixels=Stage("input", ("",) * len(runs)),
        notes=tuple(notes),
    )


def _with_epochs(
    given: Sequence[str | Place | Run], *, unnamed: bool
) -> tuple[list[Place | Run], str]:
    """Put the epochs in the place of a training's folder, at even distances where they are many.

    Returns:
        The runs, and what was left out.
    """
    wanted: list[Place | Run] = []
    room = MOST - len(given) + 1
    left_out = ""
    for run in given:
        epochs = [] if isinstance(run, Run) else list(epochs_in(place_of(run)).values())
        if len(epochs) > room > 1:
            training = "a training" if unnamed else repr(str(run))
            left_out = f"of the {len(epochs)} epochs of {training}, {room} are compared"
            epochs = [epochs[round(at * (len(epochs) - 1) / (room - 1))] for at in range(room)]
        wanted += epochs or [run if isinstance(run, Run) else place_of(run)]
    return wanted, left_out


def _refuse(places: Sequence[Place]) -> None:
    was = " was" if len(places) == 1 else "s were"
    if not 2 <= len(places) <= MOST:
        raise RunError(f"{len(places)} run{was} given; a comparison takes 2 to {MOST} runs")
    seen: dict[Place, Place] = {}
    for path in places:
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise RunError(f"the run {str(path)!r} is given twice; give each run once")


def _refuse_copies(runs: Sequence[Run]) -> None:
    seen: dict[bytes, Run] = {}
    for run in runs:
        other = seen.setdefault(run.files.read("plan.json"), run)
        if other is not run:
            raise RunError(
                f"{str(run.path)!r} is a copy of {str(other.path)!r} (their plan.json is the "
                "same); give one of the two"
            )


def steps_of(runs: Sequence[Run]) -> list[int | None]:
    """Return the step of each checkpoint; None of all where they have no steps of their own.

    A step is what ``--step`` told the writers or the checkpoint says, else the last number in the
    checkpoint's name, else that in the run folder's.
    """
    told = []
    for run in runs:
        step = _note(run).get("step")
        told.append(step_of(run.plan.model, step if isinstance(step, int) else None))
    named = [_last_number(run.plan.model.checkpoint or "") for run in runs]
    for steps in (told, named, [_last_number(run.name) for run in runs]):
        if None not in steps and len(set(steps)) == len(steps):
            return steps
    return [None] * len(runs)


def metrics_of(run: Run) -> dict[str, float]:
    """Return the numbers that were given with a run, such as a loss, by name."""
    metrics = _note(run).get("metrics")
    given = metrics.items() if isinstance(metrics, dict) else ()
    return {name: float(value) for name, value in given if isinstance(value, int | float)}


def _note(run: Run) -> Mapping[str, Any]:
    """Return what the run's writers were told."""
    exists = run.files.exists(WRITER_NOTE)
    note = read_json(run.files, WRITER_NOTE, "remove it") if exists else {}
    return note if isinstance(note, dict) else {}


def _last_number(name: str) -> int | None:
    numbers = re.findall(r"\d+", re.sub(r"\.[A-Za-z]\w*$", "", name))
    return int(numbers[-1][:12]) if numbers else None


def names_of(runs: Sequence[Run], steps: Sequence[int | None], axis: str) -> list[str]:
    """Return short names of the runs, each its own: steps, models, else folders."""
    folders = [run.name for run in runs]
    if None not in steps:
        names = [f"step {step:,}" for step in steps]
    elif axis == "model":
        names = [run.plan.model.title for run in runs]
    else:
        names = folders
    if len(set(names)) < len(names):
        names = [f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return names


def shared_images(
    runs: Sequence[Run], names: Sequence[str], first: int
) -> tuple[list[str], list[MissingImage]]:
    """Return the images that all runs have read, in one run's order, and the others.

    Raises:
        RunError: if there is none.
    """
    read: list[dict[str, str]] = []
    for run in runs:
        table = run.table(["id", "path", "error"])
        columns = (table.column(name).to_pylist() for name in ("id", "path", "error"))
        read.append({id: path for id, path, error in zip(*columns, strict=True) if error is None})
    ids = [id for id in read[first] if all(id in own for own in read)]
    if not ids:
        alone = next((at for at, own in enumerate(read) if not own.keys() & read[first].keys()), 0)
        if alone != first:
            raise RunError(
                f"the runs {names[first]!r} and {names[alone]!r} have no image in common; runs are "
                "compared on images with the same contents"
            )
        raise RunError("no image is in all of the runs; compare fewer of them")
    shared = set(ids)
    paths = {id: path for own in reversed(read) for id, path in own.items()}
    missing = [
        MissingImage(id, path, tuple(at for at, own in enumerate(read) if id not in own))
        for id, path in paths.items()
        if id not in shared
    ]
    return ids, missing


def _cannot(
    plans: Sequence[Plan], methods: Sequence[Compared], stages: Sequence[Stage]
) -> list[str]:
    """Say what cannot be compared."""
    notes = []
    if not methods:
        notes.append("no maps are compared: the runs have no comparable map method")
    elif not stages and not any(method.pixel for method in methods):
        notes.append("no maps are compared: the runs explain no corresponding layers")
    elif len(stages) == 1:
        notes.append(f"maps are compared at a single stage, {stages[0].name}")
    if not shared_classes(plans):
        notes.append(
            "the models share no class name, so predictions are not compared with one another; "
            "only whether each is correct is compared"
        )
    return notes


def relative(run: Place, folder: Place) -> str:
    """Return a run's path relative to the comparison, as far as there is one; or its address."""
    if isinstance(run, Address):
        return without_folders(str(run))
    try:
        return os.path.relpath(run.resolve(), folder.resolve())
    except ValueError:  # another drive
        return run.name
