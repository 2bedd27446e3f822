"""What the overview, the lists and the page of methods are filled with, computed from the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import FLAG_REASONS, MethodRecord, Plan, Row
from exporter.writers.html import text as words
from exporter.writers.html.index import SetIndex, photograph
from exporter.writers.html.options import HtmlOptions
from exporter.writers.html.shards import CELLS, flag_bits

if TYPE_CHECKING:
    from exporter.store import Run


def overview(run: Run, index: SetIndex, options: HtmlOptions) -> dict[str, Any]:
    """Return what ran, the counts and the sinks beside this one."""
    totals = run.totals
    rules = {options.kept_reason.get(id, "") for id in options.kept}
    known = [one for one in index.correct if one is not None]
    return {
        "flag_reasons": FLAG_REASONS,
        "counts": {
            "planned": len(run.plan.images),
            "present": len(index.ids),
            "read": len(index.ids) - len(index.skipped),
            "complete": totals is not None and len(index.ids) == len(run.plan.images),
            "labelled": len(known),
            "correct": sum(known),
            "skipped": index.skipped,
            "flagged": sum(index.flagged.values()),
            "flagged_rows": index.flagged_rows,
            "maps": index.maps,
        },
        "seconds": None if totals is None else totals.seconds,
        "finished": None if totals is None else totals.finished,
        "target_text": words.target_text(run.plan.target),
        "preprocessing_text": words.preprocessing_text(run.plan.model.preprocessing),
        "kept_total": len(options.kept),
        "rule": next(iter(rules)) if len(rules) == 1 else None,
        "sinks": {
            "tensorboard": (run.path / "tensorboard").is_dir(),
            "tensorboard_url": options.tensorboard_url,
            "wandb": _wandb_runs(run),
            "wandb_project": options.wandb_project,
            "kept": len(options.kept),
        },
    }


def _wandb_runs(run: Run) -> list[str]:
    """Return the W&B runs that wait for ``wandb sync``, which has to be called in ``wandb/``."""
    found = sorted((run.path / "wandb").glob("offline-run-*"))
    return [path.name for path in found if path.is_dir()]


def list_row(row: Row, position: int, *, probability: bool) -> dict[str, Any]:
    """Return one line of the lists that need no JavaScript."""
    first = row.predictions[0] if row.predictions else None
    shown = (
        ""
        if first is None
        else f", {first.name} {words.score(first.score, probability=probability)}"
    )
    return {
        "id": row.id,
        "path": row.path,
        "label": row.label,
        "src": None if row.image is None else photograph(position, row.id),
        "alt": f"Photograph {row.path}{shown}",
        "name": "" if first is None else first.name,
        "score": "" if first is None else words.score(first.score, probability=probability),
        "predictions": [
            (one.name, words.score(one.score, probability=probability)) for one in row.predictions
        ],
        "correct": row.correct,
        "error": row.error,
        "flagged": words.count(flags, "map") if (flags := _flagged(row)) else "",
    }


def _flagged(row: Row) -> int:
    return sum(1 for one in row.maps if flag_bits(one.flags))


def methods_page(plan: Plan, index: SetIndex) -> dict[str, Any]:
    """Return each method with what its colours mean in numbers."""
    images = len(index.ids) - len(index.skipped)
    pages = []
    for record in plan.methods:
        ranges: list[dict[str, Any]] = []
        for (method, layer, height, width), values in index.ends.items():
            if method != record.name:
                continue
            ends = np.asarray(values).reshape(-1, 2)
            ranges.append(
                {
                    "layer": layer,
                    "height": height,
                    "width": width,
                    "lo": float(ends[:, 0].min()),
                    "mid_lo": float(np.median(ends[:, 0])),
                    "mid_hi": float(np.median(ends[:, 1])),
                    "hi": float(ends[:, 1].max()),
                    "maps": len(ends),
                }
            )
        flagged = sum(n for method, _, _, n in index.flagged_rows if method == record.name)
        pages.append(
            {
                "record": record,
                "link": record.url if record.url.startswith(("https://", "http://")) else None,
                "colormap": "viridis",
                "total": sum(row["maps"] for row in ranges),
                "flagged": flagged,
                "images": images,
                "ranges": ranges,
                **_ends_in_words(record, ranges),
            }
        )
    sizes = dict.fromkeys((h, w) for _, _, h, w in index.ends if max(h, w) > CELLS)
    return {"methods": pages, "cap": CELLS, "capped": [words.shape(size) for size in sizes]}


def _ends_in_words(record: MethodRecord, ranges: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    low, high = (
        ("0 or less", "the map's largest value")
        if record.relu
        else ("the map's smallest value", "the map's largest value")
    )
    meaning = (
        "The left end is zero: the ReLU of the method drops what speaks against the class. "
        if record.relu
        else "The left end is the smallest value of the map, which may be negative. "
    )
    if ranges:
        deep = ranges[-1]
        low_number = "0" if record.relu else words.figure(deep["mid_lo"])
        meaning += (
            f"At {deep['layer'] or 'the input'} a typical map (the median) runs from {low_number} "
            f"to {words.figure(deep['mid_hi'])}."
        )
    return {"low": low, "high": high, "meaning": meaning}


def strip_choice(options: HtmlOptions, most: int = 8) -> tuple[str, ...]:
    """Choose a few of the kept images, one a rule in turn, in the order they are kept."""
    by_rule: dict[str, list[str]] = {}
    for id in options.kept:
        by_rule.setdefault(options.kept_reason.get(id, ""), []).append(id)
    chosen: list[str] = []
    while len(chosen) < most and any(by_rule.values()):
        for ids in by_rule.values():
            if ids and len(chosen) < most:
                chosen.append(ids.pop(0))
    return tuple(id for id in options.kept if id in set(chosen))
