"""The panels of a W&B report: charts, tables and pictures of what the W&B writer logs.

A prefix stands before all of it where a run went on with a W&B run of its user's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from exporter.publish.subject import Subject
from exporter.writers import links
from exporter.writers.reading import set_numbers
from exporter.writers.scalars import method_scalars, set_scalars
from exporter.writers.wandb.media import media_names
from exporter.writers.wandb.place import wandb_ids

Block = dict[str, Any]
"""``heading``, ``text``, ``list``, ``markdown``, ``code``, or ``panels`` over a set of ``runs``."""

FULL, HALF = 24, 12
"""Widths of panels, of the 24 columns that W&B's grid has."""

_NUMBERS = ("accuracy", "top-5 accuracy", "calibration error", "mean confidence", "agreement")
"""Numbers of the set that are drawn."""

_JOINED = (
    "The images that the runs show, joined on id: a row per image, each column once per run. Where "
    "the rows stand below one another, choose Joining Rows and the key id in the panel's settings."
)

_MEANING = {
    "agreement": "Agreement is the mean rank correlation with the other methods' maps.",
    "concentration": "Concentration is the share of energy in a map's top 20 % of cells.",
    "pointing": "Pointing is the share of images whose largest cell lies in the given region.",
    "deletion": "Deletion is better where it is smaller.",
    "insertion": "Insertion is better where it is larger.",
    "ROAD": "ROAD is better where it is larger.",
}
"""Numbers of a method that are drawn, and what each is."""


def numbers(subject: Subject) -> Iterator[Block]:
    """Yield the numbers of the set: bars, and lines or points where there are several steps."""
    known: set[str] = set()
    for named in subject.runs:
        told = set_scalars(named.run, set_numbers(named.run))
        known.update(name for name, value, _ in told if value is not None)
    drawn = [f"set/{name}" for name in _NUMBERS if name in known]
    bars = [_bars(subject, metric.removeprefix("set/"), [metric]) for metric in drawn]
    yield {"heading": "Numbers"}
    yield _grid("Runs", subject.wandb_runs(), *bars, *_over_steps(subject, drawn))


def images(subject: Subject) -> Iterator[Block]:
    """Yield the tables of images, of several runs joined, and their maps by run and step."""
    runs, comparison = subject.wandb_runs(), subject.comparison
    yield {"heading": "Images"}
    own = [] if comparison is None else wandb_ids(comparison.files)
    if comparison is not None and len(own) == 1:
        changed = (row.lost or row.won or row.changed for row in comparison.contents.contrasts)
        tables = ("images", "pictures", *(("flips",) if any(changed) else ()))
        yield {"text": ["A row per image: what each run predicts, and how far its maps moved."]}
        yield _grid("Comparison", own, *map(_table, tables))
    if len(runs) > 1:
        yield {"text": [_JOINED]}
    yield _grid("Runs", runs, _table(f"{subject.prefix}images", joined=len(runs) > 1))
    first, *others = (media_names(named.run) for named in subject.runs)
    shared = [f"{subject.prefix}{name}" for name in first if all(name in other for other in others)]
    if shared:
        yield {"text": ["Maps by run and step; each picture has every method at every layer."]}
        yield _grid("Runs", runs, {"panel": "media", "keys": shared, "width": FULL, "height": 14})


def methods(subject: Subject) -> Iterator[Block]:
    """Yield the numbers of each method, their table, and what each shows and how it misleads."""
    records = {own.name: own for named in subject.runs for own in named.run.plan.methods}
    if not records:
        return
    known: dict[str, dict[str, None]] = defaultdict(dict)
    for named in subject.runs:
        for method, told in method_scalars(named.run).items():
            for name, value, _ in told:
                if value is not None:
                    known[name][f"{method}/{name}"] = None
    meaning = {name: sentence for name, sentence in _MEANING.items() if name in known}
    yield {"heading": "Methods"}
    if meaning:
        yield {"text": [" ".join(["At the deepest stage:", *meaning.values()])]}
    bars = [_bars(subject, name, list(known[name])) for name in meaning]
    steps = _over_steps(subject, list(known["agreement"]))
    yield _grid("Runs", subject.wandb_runs(), *bars, *steps, _table(f"{subject.prefix}methods"))
    yield {"text": ["What each of them shows, and how it misleads:"]}
    texts = (f"{own.title}. Shows: {own.shows} Misleads: {own.caveats}" for own in records.values())
    yield {"list": [[links.plain(text)] for text in texts]}


def classes(subject: Subject) -> Iterator[Block]:
    """Yield the confusion matrix and the table of classes, where there are labels."""
    if not any(named.run.confusion(1) for named in subject.runs):
        return
    confusion = {"panel": "confusion", "table": f"{subject.prefix}confusion"}
    size = {"width": HALF, "height": 12}
    yield {"heading": "Classes"}
    table = _table(f"{subject.prefix}classes")
    yield _grid("Runs", subject.wandb_runs(), confusion | size, table | size)


def _grid(name: str, runs: Sequence[str], *panels: dict[str, Any]) -> Block:
    """Return panels over a set of runs."""
    return {"panels": list(panels), "name": name, "runs": list(runs)}


def _bars(subject: Subject, title: str, metrics: Sequence[str]) -> dict[str, Any]:
    names = [f"{subject.prefix}{name}" for name in metrics]
    title = title[:1].upper() + title[1:]
    return {"panel": "bars", "title": title, "metrics": names, "width": HALF, "height": 7}


def _over_steps(subject: Subject, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return metrics over the steps: lines of one W&B run, or a point per run."""
    x = f"{subject.prefix}step"
    names = [f"{subject.prefix}{name}" for name in metrics]
    if subject.wandb_run is not None and names:
        return [{"panel": "lines", "x": x, "y": names, "width": FULL, "height": 8}]
    if not subject.has_steps:
        return []
    return [{"panel": "points", "x": x, "y": y, "width": HALF, "height": 8} for y in names]


def _table(name: str, *, joined: bool = False) -> dict[str, Any]:
    return {"panel": "table", "name": name, "joined": joined, "width": FULL, "height": 12}
