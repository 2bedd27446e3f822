"""TensorBoard's view of a whole run: kernels, maximised pictures, and the page of what ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.render import decode_image
from exporter.store import Run
from exporter.writers import links
from exporter.writers.options import TensorBoardOptions
from exporter.writers.reading import templating
from exporter.writers.tensorboard.events import histogram_summary, image_summary


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
            f"weights/kernels/{name}",
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
            f"`{links.code(picture.layer)}`: mean {picture.after:.4g} (for the noise "
            f"{picture.before:.4g}), at most {picture.peak:.4g}. "
            f"{links.escape_markdown(links.how(picture))}.",
        )


def run_page(
    run: Run, options: TensorBoardOptions, images: int, notes: Sequence[str], *, cards: bool
) -> str:
    """Return the page that says what ran and what is shown: Markdown, ``templates/run.md``."""
    environment = templating(escape=False)
    environment.filters |= {
        "md": links.escape_markdown,
        "code": links.code,
        "regex": links.escape_regex,
        "pairs": _pairs,
        "cited": lambda method: links.cited(method.paper, method.url) if method.paper else "",
    }
    model, base = run.plan.model, options.tensorboard_url
    step = links.step_of(model, options.step)
    name = links.run_name(model, step)
    stages = links.stage_names(run.plan)
    rules = Counter(options.kept_reason.get(id, "chosen") for id in options.kept)
    report = options.report_url and links.web(links.report_page(options.report_url))
    page: str = environment.get_template("run.md").render(
        run=run,
        plan=run.plan,
        name=name,
        stages=[(stages[layer], layer) for layer in reversed(run.plan.layers_of_the_model)],
        images=images,
        notes=notes,
        cards=cards,
        facts=_facts(run, options),
        rules=rules.most_common(20),
        report=report,
        skipped=run.totals.skipped if run.totals else (),
        view=lambda tags, within: links.images_link(base, tags, links.run_regex(name, within)),
        along=links.steps_link(base),
    )
    return page


def _facts(run: Run, options: TensorBoardOptions) -> list[tuple[str, str]]:
    plan, totals = run.plan, run.totals
    step = "0: neither --step nor the checkpoint gives one"
    if options.step is not None:
        step = f"{options.step}, as --step says"
    elif plan.model.step is not None:
        step = f"{plan.model.step}, the {plan.model.step_key} of {plan.model.checkpoint}"
    pairs = [
        ("model", f"{plan.model.spec}, weights {plan.model.weights}"),
        ("step", step),
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
