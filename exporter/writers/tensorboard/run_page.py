"""The page that TensorBoard's text plugin shows of a run: what ran, and what is shown of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.writers import links

if TYPE_CHECKING:
    from exporter.records import Plan
    from exporter.store import Run
    from exporter.writers.tensorboard.options import TensorBoardOptions

SKIPPED_LISTED = 50


@dataclass(frozen=True, slots=True)
class Shown:
    """What TensorBoard shows of a run.

    Attributes:
        images: images with cards.
        total: images planned.
        readable: of these, images that could be read; all of them where the run is partial.
        kept: images chosen to be shown.
        cards: whether each method and layer of an image has a card of its own.
        card_count: how many cards that would be.
        card_limit: the most cards for which it is so.
        activations: images whose activations are shown.
        unread: (path, reason) of chosen images that could not be read.
        absent: chosen images whose shard is not there yet.
        complete: whether the run is.
    """

    images: int
    total: int
    readable: int
    kept: int
    cards: bool
    card_count: int
    card_limit: int
    activations: int
    unread: tuple[tuple[str, str], ...]
    absent: int
    complete: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why, a line each."""
        lines = []
        if not self.complete:
            lines.append("the run is partial: it can be resumed, and this log written again")
        if self.kept < self.readable:
            lines.append(f"{self.images} of {self.total} images are shown; --keep N shows more")
        if self.images and not self.cards:
            lines.append(
                f"one montage per image instead of a card for each map: {self.card_count:,} cards "
                f"are more than {self.card_limit:,}"
            )
        if self.activations and self.activations < self.images:
            lines.append(f"activations are shown of {self.activations} of these images")
        if self.absent:
            lines.append(f"{self.absent} chosen images are in shards that are not there yet")
        if self.unread:
            lines.append(f"{len(self.unread)} chosen images could not be read")
        return tuple(lines)


def run_page(run: Run, options: TensorBoardOptions, shown: Shown) -> str:
    """Return the page as Markdown.

    Args:
        run: the run.
        options: the links and the rules by which images were chosen.
        shown: what is shown.
    """
    plan = run.plan
    title = links.escape_markdown(
        f"{plan.model.name}@{plan.model.checkpoint or plan.model.weights}"
    )
    parts = [
        f"# {title}",
        "**Partial run.** It can be resumed; this shows the images so far."
        if not run.complete
        else "",
        "\n".join(f"- {line}" for line in _views(plan, options, shown)),
        _table(("what ran", ""), _facts(run)),
        "## What is shown",
        _shown(options, shown),
        "## Methods",
        _table(
            ("method", "formula", "settings", "paper"),
            [
                (
                    links.escape_markdown(method.title),
                    f"`{links.code(method.formula)}`",
                    links.escape_markdown(_pairs(method.settings.items())),
                    links.cited(method.paper, method.url),
                )
                for method in plan.methods
            ],
        ),
        "Maps are stored raw and signed; colours are each map's own smallest to largest value, "
        "after a ReLU where the method's definition has one.",
        _skipped(run),
        "## Settings",
        _table(("setting", "value"), _escaped(run.settings.items())),
        "## Versions",
        _table(("package", "version"), _escaped(plan.versions.items())),
        "\n".join(f"- {links.escape_markdown(note)}" for note in plan.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _facts(run: Run) -> list[tuple[str, str]]:
    plan = run.plan
    totals = run.totals
    pairs = [
        ("model", f"{plan.model.spec}, weights {plan.model.weights}"),
        ("parameters", f"{plan.model.parameters:,}"),
        ("images", f"{len(plan.images)} from {plan.image_set}"),
        ("layers", f"{', '.join(plan.explained)} ({plan.layer_reason})"),
        ("target", plan.target),
        ("labels", plan.label_match),
        ("computed on", _pairs(plan.execution.items())),
        ("planned", plan.created),
    ]
    if totals is not None:
        pairs.append(("finished", f"{totals.finished}, {totals.seconds:.1f} s"))
        if totals.accuracy is not None:
            share = f"{totals.accuracy:.4f} ({totals.correct} of {totals.labelled})"
            pairs.append(("accuracy", share))
    facts = [(name, links.escape_markdown(text)) for name, text in pairs if text]
    return [*facts, ("command", f"`{links.code(plan.command)}`")]


def _shown(options: TensorBoardOptions, shown: Shown) -> str:
    rules = Counter(options.kept_reason.get(id, "chosen") for id in options.kept)
    lines = [f"{shown.images} of {shown.total} images are shown here, chosen by these rules:", ""]
    lines += [f"- {links.escape_markdown(rule)}: {count}" for rule, count in rules.most_common(20)]
    lines += ["", "The run folder and the HTML report have all of them."]
    lines += ["", *(f"- {links.escape_markdown(note)}" for note in shown.notes)]
    return "\n".join(lines)


def _views(plan: Plan, options: TensorBoardOptions, shown: Shown) -> list[str]:
    base = options.tensorboard_url
    run = links.escape_regex(links.run_name(plan.model))
    lines = []
    if shown.images:
        montage = links.images_link(base, f"^{links.MONTAGE}/", f"^{run}/{links.MONTAGE}$")
        lines.append(f"[every image, all its maps in one picture]({montage})")
    if shown.cards:
        for layer in plan.explained:
            link = links.images_link(base, f"^{links.escape_regex(layer)}/", f"^{run}/")
            lines.append(f"[all methods side by side at `{links.code(layer)}`]({link})")
    kernels = links.images_link(base, "^kernels/", f"^{run}$")
    lines.append(f"[kernels]({kernels})")
    if plan.settings.get("maximise"):
        maximised = links.images_link(base, f"^{links.MAXIMISED}/", f"^{run}/{links.MAXIMISED}$")
        lines.append(f"[pictures made to excite channels]({maximised})")
    if options.report_url:
        report = links.web(links.report_page(options.report_url))
        lines.append(f"[the HTML report, with every image]({report})")
    else:
        lines.append("the HTML report, with every image: open `html/index.html` of the run folder")
    lines.append("this log: `tensorboard --logdir tensorboard` in the run folder")
    lines.append(
        "several runs side by side: `tensorboard --logdir FOLDER` of a folder that holds them"
    )
    return lines


def _skipped(run: Run) -> str:
    totals = run.totals
    if totals is None or not totals.skipped:
        return ""
    listed = totals.skipped[:SKIPPED_LISTED]
    head = f"## {len(totals.skipped)} images could not be read"
    rest = len(totals.skipped) - len(listed)
    more = f"\n\n… and {rest} more; run.json lists them all." if rest else ""
    return f"{head}\n\n{_table(('image', 'why'), _escaped(listed))}{more}"


def _escaped(pairs: Iterable[tuple[object, object]]) -> list[tuple[str, str]]:
    return [
        (links.escape_markdown(str(name)), links.escape_markdown(str(value)))
        for name, value in pairs
    ]


def _pairs(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in items)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
