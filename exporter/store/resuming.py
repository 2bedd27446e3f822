"""Whether a run may be gone on with: in what two plans differ."""

from __future__ import annotations

from typing import Any

from exporter.records import Plan
from exporter.store.plans import Document, image_ids, plan_document

_TOLD = frozenset(
    {"command", "created", "notes", "layer_reason", "label_match", "image_set", "schema"}
)
"""Who made a run, when, and how that is told: not what it contains."""

_SPELLINGS = frozenset({"images", "model", "weights", "checkpoint", "classes"})
"""Settings that say where something is; what it is, the plan says by hashes and tables."""

_FREE = _SPELLINGS | {"batch_size"}
"""A run whose batches do not fit goes on with smaller ones: maps are equal to 1e-6 of their range.
"""

_FORMER = {"quality": "faithfulness"}
"""Settings of older runs, and their names today."""

_COMPARED_APART = frozenset(
    {"settings", "execution", "versions", "label_index", "model", "layers", "methods", "images"}
    | {"shards"}
)


def plan_differences(old: Plan, new: Plan) -> list[str]:
    """Say in what two plans differ, a clause each, as ``differences`` does."""
    return differences(plan_document(old), plan_document(new))


def differences(old: Document, new: Document) -> list[str]:
    """Say in what a plan differs from the one a run was begun with, a clause each.

    Args:
        old: the run's ``plan.json``.
        new: the plan that is asked for, as ``plan_document`` gives it.

    Returns:
        Clauses such as ``maps was ["gradcam"] and is now ["layercam"]``; empty where the run can be
        resumed. Package versions count: another torch computes other last bits.
    """
    clauses = _changed(_settings(old), _settings(new))
    for group in ("execution", "versions", "label_index"):
        clauses += _changed(old[group], new[group], "version of " if group == "versions" else "")
    clauses += _changed(_model(old), _model(new), "model's ")
    for name in ("layers", "methods"):
        if old[name] != new[name]:
            clauses.append(f"the table of {name} has changed")
    rest = old.keys() - {*_COMPARED_APART, *_TOLD}
    clauses += _changed({n: old[n] for n in rest}, {n: new.get(n) for n in rest})
    clauses += _images(old, new)
    if old["shards"] != new["shards"] and len(old["images"]["key"]) == len(new["images"]["key"]):
        clauses.append("the images are cut into different shards")
    return list(dict.fromkeys(clauses))


def _changed(old: Document, new: Document, prefix: str = "") -> list[str]:
    return [
        f"{prefix}{name} was {_short(old.get(name))} and is now {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _settings(document: Document) -> Document:
    named = {_FORMER.get(name, name): value for name, value in document["settings"].items()}
    return {name: value for name, value in named.items() if name not in _FREE}


def _model(document: Document) -> Document:
    model = {n: v for n, v in document["model"].items() if n not in ("spec", "checkpoint")}
    preprocessing = model["preprocessing"].items()
    return model | {"preprocessing": {n: v for n, v in preprocessing if n != "source"}}


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, list) else repr(value)[1:-1] or "none"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _images(old: Document, new: Document) -> list[str]:
    if old["images"] == new["images"]:
        return []
    before = dict(zip(old["images"]["path"], old["images"]["key"], strict=True))
    after = dict(zip(new["images"]["path"], new["images"]["key"], strict=True))
    counts = {
        "added": len(after.keys() - before.keys()),
        "removed": len(before.keys() - after.keys()),
        "changed": sum(before[path] != after[path] for path in before.keys() & after.keys()),
    }
    told = [f"{n} image{'s' * (n != 1)} {word}" for word, n in counts.items() if n]
    if told:
        return [", ".join(told)]
    if image_ids(old) != image_ids(new):
        return ["the images are in another order"]
    return ["labels, masks or boxes of the images have changed"]
