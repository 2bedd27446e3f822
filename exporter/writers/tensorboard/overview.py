"""TensorBoard's view of a whole run: scalars, histograms, kernels, and the page of what ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.render import decode_image
from exporter.writers import links
from exporter.writers.reading import SetNumbers, templating
from exporter.writers.tensorboard.events import histogram_summary, image_summary

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.options import TensorBoardOptions

_SCORES = {"probability": "probability", "share": "share of the area", "value": "output"}


def set_summaries(run: Run, numbers: SetNumbers) -> Iterator[Any]:
    """Yield the scalars and histograms of the set and of each recorded layer."""
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    partial = "" if run.complete else " The run is partial: these are the images so far."
    model = run.plan.model
    kind = "value" if model.scores == "probability" and model.outputs == 1 else model.scores
    what = f"{_SCORES[kind]} of the first prediction"
    scalars: list[tuple[str, float, str]] = [
        ("images", numbers.read, f"Images read.{partial}"),
        ("skipped", numbers.skipped, "Images that could not be read."),
    ]
    if numbers.judged:
        said = (
            f"Share of the {numbers.judged} images whose label is a class of the model that the "
            f"first prediction gets right.{partial}"
        )
        scalars.append(("accuracy", numbers.correct / numbers.judged, said))
    if numbers.losses.size:
        said = f"Mean cross-entropy (nats) of {numbers.losses.size} labelled images.{partial}"
        scalars.append(("mean loss", numbers.losses.mean(), said))
    if numbers.scores.size:
        said = f"Mean {what}, {numbers.scores.size} images.{partial}"
        scalars.append(("mean confidence", numbers.scores.mean(), said))
        yield histogram_summary("set/confidence", numbers.scores, f"The {what}.")
    said = (
        "Maps that are zero, constant, not a number, or without a positive value where a ReLU "
        "follows."
    )
    for tag, number, description in [*scalars, ("flagged maps", numbers.flagged, said)]:
        yield scalar_pb(f"set/{tag}", number, description)
    for layer, rows in groupby(run.channels(), key=lambda row: row.layer):
        channels, name = list(rows), links.tag_text(layer)
        count = len(channels)
        said = f"Mean share of exact zeros, {count} channels, {channels[0].images} images."
        sparsity = np.mean([row.sparsity for row in channels])
        yield scalar_pb(f"sparsity/{name}", float(sparsity), said)
        said = f"Share of the {count} channels that are zero in every image."
        dead = np.mean([row.dead for row in channels])
        yield scalar_pb(f"dead channels/{name}", float(dead), said)
        said = "Mean activation of each channel over positions and images."
        means = np.array([row.mean for row in channels])
        yield histogram_summary(f"mean activation/{name}", means, said)


def kernel_summaries(run: Run) -> Iterator[Any]:
    """Yield a histogram of the weights and the stored sheet of each layer of kernels."""
    for record in run.kernels():
        name = links.tag_text(record.name)
        what = f"{links.escape_markdown(record.type)} {' x '.join(map(str, record.shape))}"
        values = run.kernel_values(record)
        yield histogram_summary(f"weights/{name}", values, f"All weights of the {what}.")
        sheet = run.kernel_sheet(record)
        height, width = decode_image(sheet).shape[:2]
        yield image_summary(
            f"kernels/{name}",
            [sheet],
            (width, height),
            description=f"{what}: {record.shown} of {record.total} kernels, weights "
            f"{record.lo:.4g} … {record.hi:.4g}.",
        )


def maximised_summaries(run: Run) -> Iterator[Any]:
    """Yield the picture of each maximised channel and class; what it says is the description."""
    for picture in run.maximised():
        channel = links.channel_name(picture)
        yield image_summary(
            links.tag_text(f"{links.MAXIMISED}/{picture.layer}/{channel}"),
            [picture.picture],
            (picture.width, picture.height),
            title=links.plain(channel),
            description=f"Optimised from noise to excite {links.escape_markdown(channel)} of "
            f"`{links.code(picture.layer)}`: mean {picture.after:.4g} (of the noise "
            f"{picture.before:.4g}), at most {picture.peak:.4g}. "
            f"{links.escape_markdown(links.how(picture))}.",
        )


def run_page(
    run: Run, options: TensorBoardOptions, images: int, notes: Sequence[str], *, cards: bool
) -> str:
    """Return the page that says what ran and what is shown of it: Markdown, ``templates/run.md``.

    Args:
        run: the run.
        options: the links and the rules by which images were chosen.
        images: images with a montage.
        notes: what was left out and why, a line each.
        cards: whether each method and layer of an image has a card of its own.
    """
    environment = templating(escape=False)
    environment.filters |= {
        "md": links.escape_markdown,
        "code": links.code,
        "regex": links.escape_regex,
        "pairs": _pairs,
        "cited": lambda method: links.cited(method.paper, method.url) if method.paper else "",
    }
    name = f"^{links.escape_regex(links.run_name(run.plan.model))}"
    rules = Counter(options.kept_reason.get(id, "chosen") for id in options.kept)
    report = options.report_url and links.web(links.report_page(options.report_url))
    page: str = environment.get_template("run.md").render(
        run=run,
        plan=run.plan,
        model=run.plan.model,
        images=images,
        notes=notes,
        cards=cards,
        facts=_facts(run),
        rules=rules.most_common(20),
        report=report,
        skipped=run.totals.skipped if run.totals else (),
        view=lambda tags, runs: links.images_link(options.tensorboard_url, tags, name + runs),
    )
    return page


def _facts(run: Run) -> list[tuple[str, str]]:
    plan, totals = run.plan, run.totals
    pairs = [
        ("model", f"{plan.model.spec}, weights {plan.model.weights}"),
        ("parameters", f"{plan.model.parameters:,}"),
        ("images", f"{len(plan.images)} from {plan.image_set}"),
        ("layers", f"{', '.join(plan.explained)} ({plan.layer_reason})"),
        ("target", plan.target),
        ("labels", plan.label_match),
        ("computed on", _pairs(plan.computed_on)),
        ("planned", plan.created),
    ]
    if totals is not None:
        pairs.append(("finished", f"{totals.finished}, {totals.seconds:.1f} s"))
        if totals.accuracy is not None:
            share = f"{totals.accuracy:.4f} ({totals.correct} of {totals.labelled})"
            pairs.append(("accuracy", share))
    return [(name, text) for name, text in pairs if text]


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
