"""Whether a run may be gone on with: in what two plans differ."""

from __future__ import annotations

from typing import Any

from exporter.store.plans import Document, image_ids

# Whom a run was made by, when, and how that is told: not what it contains. Where the images were
# found is told by their hashes; `images` and `model` of the settings are only how they were named.
# A run whose batches do not fit goes on with smaller ones: maps are equal to 1e-6 of their range.
_TOLD = frozenset(
    {"command", "created", "notes", "layer_reason", "label_match", "image_set", "schema"}
)
_TOLD_SETTINGS = frozenset({"images", "batch_size"})
_NAMED = ("settings", "execution", "versions", "label_index")


def differences(old: Document, new: Document) -> list[str]:
    """Say in what a plan differs from the one a run was begun with, a clause each.

    Args:
        old: the run's ``plan.json``.
        new: the plan that is asked for, as ``plan_document`` gives it.

    Returns:
        Clauses such as ``maps was ["gradcam"] and is now ["layercam"]``; empty where the run can be
        resumed. Package versions count: another torch computes other last bits.
    """
    clauses = []
    for group in _NAMED:
        clauses += _changed(old[group], new[group], "version of " if group == "versions" else "")
    clauses += _changed(_flat_model(old), _flat_model(new), "model's ")
    for name in ("layers", "methods"):
        if old[name] != new[name]:
            clauses.append(f"the table of {name} is another")
    rest = old.keys() - {*_NAMED, *_TOLD, "model", "layers", "methods", "images"}
    plain = sorted(name for name in rest if name != "shards")
    clauses += _changed({n: old[n] for n in plain}, {n: new.get(n) for n in plain}, "")
    clauses += _images(old, new)
    if old["shards"] != new["shards"] and len(old["images"]["key"]) == len(new["images"]["key"]):
        clauses.append("the images are cut into other shards")
    return list(dict.fromkeys(clauses))


def _changed(old: Document, new: Document, prefix: str) -> list[str]:
    names = sorted(old.keys() | new.keys())
    return [
        f"{prefix}{name} was {_short(old.get(name))} and is now {_short(new.get(name))}"
        for name in names
        if name not in _TOLD_SETTINGS and old.get(name) != new.get(name)
    ]


def _flat_model(document: Document) -> Document:
    model = dict(document["model"])
    model["preprocessing"] = {n: v for n, v in model["preprocessing"].items() if n != "source"}
    return model


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
    return ["labels, masks or boxes of the images are others"]
