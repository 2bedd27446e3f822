"""The first page: what ran, what came of it, images that matter, and the other writers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from exporter.records import FLAG_REASONS
from exporter.writers.html import text as words
from exporter.writers.html.classes import confused_pairs
from exporter.writers.html.findings import findings
from exporter.writers.html.report import Report
from exporter.writers.wandb.place import offline_runs, redirections

SHOWN = 8
"""Images of a strip."""

PAIRS = 12


def overview(report: Report) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the first page."""
    run, index, options = report.run, report.index, report.options
    rules = {options.kept_reason.get(id, "") for id in options.kept}
    judged = [entry.correct for entry in index.images if entry.correct is not None]
    present, planned = len(index.images), len(run.plan.images)
    strips = _strips(report)
    kept = [report.figures[id] for id in options.kept if id in report.figures]
    context = {
        "index": index,
        "options": options,
        "summary": run.summary,
        "totals": run.totals,
        "present": present,
        "planned": planned,
        "profile": run.profile(),
        "read": present - len(index.skipped),
        "complete": run.totals is not None and present == planned,
        "labelled": len(judged),
        "correct": sum(judged),
        "findings": findings(run),
        "strips": strips,
        "kept": [] if strips else kept,
        "rule": next(iter(rules)) if len(rules) == 1 else None,
        "pairs": confused_pairs(report, PAIRS),
        "layer_files": report.layer_files,
        "target_text": words.target_text(run.plan.target, run.plan.model.classes),
        "preprocessing_text": words.preprocessing_text(run.plan.model.preprocessing),
        "flag_reasons": FLAG_REASONS,
        "tensorboard_log": not options.alone and run.files.is_folder("tensorboard"),
        "wandb_runs": [] if options.alone else _wandb_runs(report),
    }
    yield "index.html", context


def _wandb_runs(report: Report) -> list[str]:
    """Return the W&B runs that wait for ``wandb sync``, which has to be called in ``wandb/``."""
    files = report.run.files
    return [] if any(redirections(files)) else offline_runs(files)


def drawn_images(report: Report) -> set[str]:
    """Return the images that this page draws: those of its strips, or else a few kept ones."""
    summary, options = report.run.summary, report.options
    if summary and summary.strips:
        return {id for strip in summary.strips for id in strip.ids[:SHOWN]}
    by_rule: dict[str, list[str]] = {}
    for id in options.kept:
        by_rule.setdefault(options.kept_reason.get(id, ""), []).append(id)
    turns = zip_longest(*by_rule.values())
    return set([id for turn in turns for id in turn if id is not None][:SHOWN])


def _strips(report: Report) -> list[dict[str, Any]]:
    summary = report.run.summary
    strips = []
    for strip in summary.strips if summary else ():
        shown = [report.figures[id] for id in strip.ids[:SHOWN] if id in report.figures]
        name, _, rule = strip.rule.partition(": ")
        if shown:
            strips.append({"name": name, "rule": rule, "of": strip.of, "shown": shown})
    return strips
