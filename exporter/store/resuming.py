"""Whether a run may be gone on with: in what two plans differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from exporter.paths import values_without_folders, without_folders
from exporter.records import ImageEntry, Plan

Document = dict[str, Any]

_TOLD = frozenset(
    {"command", "created", "notes", "layer_reason", "label_match", "image_set", "schema", "images"}
    | {"layouts", "findings", "precision", "head", "added", "added_by"}
)
"""Who made a run, when, and how that is told: not what it contains."""

_SPELLINGS = frozenset({"images", "model", "weights", "checkpoint", "classes"})
"""Settings that say where something is; what it is, the plan says by hashes and tables."""

_FREE = _SPELLINGS | {"batch_size"}
"""A run whose batches do not fit goes on with smaller ones: maps are equal to 1e-6 of their range.
"""

_SETTLED: Mapping[str, Callable[[Plan], object]] = {
    "device": lambda plan: plan.execution.get("device"),
    "layers": lambda plan: plan.explained,
    "limit": lambda plan: len(plan.images),
    "shard_size": lambda plan: plan.shards,
}
"""Settings of which the plan says what they came to; another spelling of the same is the same."""

_FORMER = {"quality": "faithfulness"}
"""Settings of older runs, and their names today."""

_DEFAULTS = {"precision": "float32", "compile": False}
"""Settings that older runs do not have, and what they did."""

_PREFIXES = {"versions": "version of ", "model": "model's "}


def plan_differences(old: Plan, new: Plan) -> list[str]:
    """Say in what a plan differs from the one a run was begun with, a clause each.

    Returns:
        Clauses such as ``maps was ["gradcam"] and is now ["layercam"]``; empty where the run can be
        resumed. Package versions count: another torch computes other last bits. The code of the
        model does not: `code_changed` tells.
    """
    before, after = _document(old), _document(new)
    for name, came_to in _SETTLED.items():
        if came_to(old) == came_to(new):
            for document in (before, after):
                document["settings"].pop(name, None)
    clauses = []
    for group in ("settings", "execution", "versions", "label_index", "model"):
        clauses += _changed(before.pop(group), after.pop(group), _PREFIXES.get(group, ""))
    clauses += _batches(old, new)
    for name in ("layers", "methods"):
        if before.pop(name) != after.pop(name):
            clauses.append(f"the table of {name} has changed")
    recut = before.pop("shards") != after.pop("shards") and len(old.images) == len(new.images)
    clauses += _changed(before, after)
    clauses += _images(old.images, new.images)
    clauses += ["the images are cut into different shards"] * recut
    return list(dict.fromkeys(clauses))  # a setting may be a field of the plan, too


def additions(old: Plan, new: Plan) -> tuple[bool, list[str]]:
    """Say whether a plan adds methods, layers or faithfulness to one, and in what else it differs.

    Returns:
        Whether there is more to compute, and clauses as of `plan_differences`.
    """
    known = {method.name for method in old.methods}
    grows = ("maps", "layers", "faithfulness", "quality")
    had = {name: value for name, value in old.settings.items() if name in grows}
    settings = {name: value for name, value in new.settings.items() if name not in grows}
    measures = "metrics" in old.execution or "metrics" not in new.execution
    execution = {n: v for n, v in new.execution.items() if measures or n != "metrics"}
    reduced = replace(
        new,
        settings={**settings, **had},
        execution=execution,
        methods=tuple(method for method in new.methods if method.name in known),
        explained=tuple(name for name in new.explained if name in old.explained),
        recorded=tuple(name for name in new.recorded if name in old.recorded),
    )
    clauses = plan_differences(old, reduced)
    if code_changed(old, new):
        clauses.append("the code that the model runs has changed")
    deeper, wider = (
        len(there) > len(before)
        for there, before in ((new.explained, old.explained), (new.methods, old.methods))
    )
    clauses += [
        f"{setting} is set, and what it gives changes with the {what}"
        for what, settings in (
            ("layers", ("fuse", "maximise", "sanity") * deeper),
            ("methods", ("sanity",) * wider),
        )
        for setting in settings
        if old.settings.get(setting)
    ]
    more = deeper or wider or not measures
    return more, clauses


def code_changed(old: Plan, new: Plan) -> bool:
    """Say whether the code that the model runs has changed; not where one plan does not know."""
    return bool(old.model.code and new.model.code) and old.model.code != new.model.code


def plan_identity(plan: Plan) -> str:
    """Return a digest of all that ``plan_differences`` compares."""
    names = [field.name for field in fields(ImageEntry)]
    images = [[getattr(image, name) for name in names] for image in plan.images]
    text = json.dumps([_document(plan), images], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _document(plan: Plan) -> Document:
    """Return what of a plan is compared, as JSON values."""
    document: Document = json.loads(json.dumps(asdict(replace(plan, images=()))))
    for name in _TOLD:
        del document[name]
    compared = {
        _FORMER.get(name, name): value
        for name, value in (_DEFAULTS | document["settings"]).items()
        if name not in _FREE
    }
    # Runs of earlier versions hold absolute paths.
    document["settings"] = values_without_folders(compared)
    document["target"] = without_folders(document["target"])
    for method in document["methods"]:
        del method["attended"]  # they do not hold this
    for name in ("spec", "checkpoint", "type", "code", "step", "step_key"):
        del document["model"][name]
    del document["model"]["preprocessing"]["source"]
    return document


def _changed(old: Document, new: Document, prefix: str = "") -> list[str]:
    return [
        f"{prefix}{name} was {_short(old.get(name))} and is now {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _batches(old: Plan, new: Plan) -> list[str]:
    """Compare batch sizes, where an image's numbers depend on those that share its batch."""
    sizes = [plan.settings.get("batch_size") for plan in (old, new)]
    if not old.depends_on_batch or sizes[0] == sizes[1]:
        return []
    return [
        f"batch_size was {sizes[0]} and is now {sizes[1]}, and this model's output for an image "
        "depends on the others in its batch"
    ]


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, list) else repr(value)[1:-1] or "none"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _images(old: Sequence[ImageEntry], new: Sequence[ImageEntry]) -> list[str]:
    if old == new:
        return []
    before, after = ({image.path: image.key for image in images} for images in (old, new))
    counts = {
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
        "changed": sum(before[path] != after[path] for path in before.keys() & after.keys()),
    }
    told = [f"{n} image{'s' * (n != 1)} {word}" for word, n in counts.items() if n]
    if told:
        return [", ".join(told)]
    if [image.id for image in old] != [image.id for image in new]:
        return ["the images are in another order"]
    return ["labels, masks or boxes of the images have changed"]
