"""What a W&B report says of runs or of a comparison, block by block, as plain JSON values.

Texts are shown as they are, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterator

import exporter
from exporter.paths import command_without_folders, without_folders
from exporter.publish.provenance import Provenance
from exporter.publish.subject import Subject
from exporter.publish.wandb_panels import Block, classes, images, methods, numbers
from exporter.writers import links
from exporter.writers.html.findings import Finding, findings
from exporter.writers.html.text import count, target_text

Span = str | dict[str, str]
"""Text, or ``text`` with a ``url``."""


def blocks(subject: Subject) -> list[Block]:
    """Return the blocks of a report.

    Raises:
        RunError: if a run has no W&B run.
    """
    parts = (_found, _what_ran, numbers, images, methods, classes, _elsewhere, _made)
    return [block for part in parts for block in part(subject)]


def _found(subject: Subject) -> Iterator[Block]:
    several = len(subject.runs) > 1
    if subject.comparison is not None:
        told = [("", finding) for finding in subject.comparison.findings]
    else:
        told = [
            (f"{named.name}: " if several else "", finding)
            for named in subject.runs
            for finding in findings(named.run)
        ]
    if told:
        yield {"heading": "What it shows"}
        yield {"list": [_finding(subject, before, finding) for before, finding in told]}


def _finding(subject: Subject, before: str, finding: Finding) -> list[Span]:
    text = links.plain(f"{before}{finding.about}: {without_folders(finding.text)}")
    if subject.report_url is None:
        return [text]
    # A layer's own page has a number that only the report knows.
    layer = finding.page == "layer"
    page = links.report_page(subject.report_url, f"{'layers' if layer else finding.page}.html")
    at = f"#{finding.at}" if finding.at and not layer else ""
    return [f"{text} ", _link("See it in the report.", page + at)]


def _what_ran(subject: Subject) -> Iterator[Block]:
    yield {"heading": "What ran"}
    names = ("Run", "Model", "Weights", "Step", "Images", "Methods", "Layers", "Explained")
    rows = []
    for named in subject.runs:
        plan = named.run.plan
        model = plan.model
        rows.append(
            (
                named.name,
                model.title,
                model.checkpoint or model.weights,
                "–" if model.step is None else str(model.step),
                f"{len(plan.images):,}",
                ", ".join(method.title for method in plan.methods) or "none",
                ", ".join(plan.explained) or "none",
                target_text(plan.target, model.classes),
            )
        )
    body = [list(map(links.escape_markdown, row)) for row in rows]
    lines = [list(names), ["---"] * len(names), *body]
    yield {"markdown": "\n".join(f"| {' | '.join(cells)} |" for cells in lines)}
    if subject.comparison is not None:
        told = subject.comparison.contents
        compared = (
            f"Compared over {count(told.images, 'image')} that all of them have read, with "
            f"{told.runs[told.baseline].name} as the baseline."
        )
        yield {"text": [compared]}
        if told.differences:
            yield {"text": ["They differ in:"]}
            items = (f"{own.name}: {'; '.join(own.values)}. {own.why}" for own in told.differences)
            yield {"list": [[links.plain(text)] for text in items]}


def _elsewhere(subject: Subject) -> Iterator[Block]:
    items: list[list[Span]] = []
    if subject.report_url is not None:
        what = "The comparison" if subject.comparison is not None else "The HTML report"
        items.append(
            [
                _link(f"{what} with every image and map", links.report_page(subject.report_url)),
                ", painted live: opacity, threshold, colours, values under the pointer.",
            ]
        )
    if subject.tensorboard_url is not None:
        base = subject.tensorboard_url
        items.append([_link("TensorBoard's images", links.images_link(base, ""))])
        if subject.has_steps:
            items.append([_link("TensorBoard's sliders over the steps", links.steps_link(base))])
    if items:
        yield {"heading": "Elsewhere"}
        yield {"list": items}


def _made(subject: Subject) -> Iterator[Block]:
    yield {"heading": "How it was made"}
    lines = Provenance.of(subject.runs).lines
    commands = (
        "; added to by: ".join(map(command_without_folders, named.run.plan.commands))
        for named in subject.runs
    )
    told = zip(lines, commands, strict=True)
    yield {"list": [[links.plain(f"{line}; made by: {command}")] for line, command in told]}
    yield {"text": [f"This report was written by exporter {exporter.__version__} with:"]}
    yield {"code": subject.command}
    notes = dict.fromkeys(note for named in subject.runs for note in named.run.plan.notes)
    if notes:
        yield {"text": ["Noted while planning:"]}
        yield {"list": [[links.plain(without_folders(note))] for note in notes]}


def _link(text: str, address: str) -> Span:
    web = links.web(address)
    return text if web == "#" else {"text": text, "url": web}
