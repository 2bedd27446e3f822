"""TensorBoard's cards of one image: its input once, and each map as heatmap and overlay."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import cache
from typing import Any

from exporter.errors import ImageError
from exporter.records import MethodRecord, Row, StoredMap
from exporter.render import decode_image, encode_jpeg, heatmap, painted, target_text
from exporter.store import Run
from exporter.writers import links
from exporter.writers.montages import QUALITY, input_jpeg, overlay_jpeg, stages_of
from exporter.writers.options import TensorBoardOptions
from exporter.writers.tensorboard.events import image_summary


def cards(
    run: Run, row: Row, options: TensorBoardOptions, shared: Container[str] = ()
) -> Iterator[tuple[str, Any]]:
    """Yield (name of its run, summary) of each card of a row; of the input it is ``input``.

    Several targets give a heatmap and an overlay each, in the same card. The input stands in the
    deepest stage, beside the maps that stand for the image.
    """
    if row.image is None or row.error is not None:
        return
    view = cache(lambda: decode_image(row.image or b""))
    try:
        size = (view().shape[1], view().shape[0])
    except ImageError:
        return
    title, stages = links.shown_path(row.path), stages_of(run)
    yield (
        links.INPUT,
        image_summary(
            links.image_tag(links.DEEPEST, row, shared),
            [input_jpeg(row, view)],
            size,
            title=title,
            description=f"The model's view.\n\n{about(row, options)}",
        ),
    )
    methods = {method.name: method for method in run.plan.methods}
    samples: dict[tuple[str, str], tuple[list[bytes], list[StoredMap]]] = {}
    for stored in row.maps:
        if stored.method not in methods or stored.layer not in stages:
            continue
        relu = methods[stored.method].relu
        pictures, shown = samples.setdefault((stored.method, stored.layer), ([], []))
        pictures.append(encode_jpeg(heatmap(painted(stored), size, rectify=relu), QUALITY))
        drawn = overlay_jpeg(run, row, stored, view, uniform=options.uniform_opacity)
        pictures.append(drawn)
        shown.append(stored)
    for (method, layer), (pictures, shown) in samples.items():
        tag = links.image_tag(stages[layer], row, shared)
        description = _describe(row, methods[method], shown, options)
        yield method, image_summary(tag, pictures, size, title=title, description=description)


def _describe(
    row: Row, method: MethodRecord, maps: list[StoredMap], options: TensorBoardOptions
) -> str:
    first = maps[0]
    lines = [
        f"**{links.escape_markdown(method.title)}** at `{links.code(first.layer or 'input')}`, "
        f"{first.width} x {first.height} values: heatmap and overlay",
        *(f"- {links.escape_markdown(_range(stored, row, method))}" for stored in maps),
        "",
        f"`{links.code(method.formula)}`",
        "",
    ]
    ends = [links.cited(method.paper, method.url)] if method.paper else []
    if row.label is not None:
        ends.append(f"label {links.escape_markdown(row.label)}")
    return "\n".join([*lines, " · ".join([*ends, *_why_and_where(row, options)])])


def about(row: Row, options: TensorBoardOptions) -> str:
    """Return what the card of a whole image says in Markdown: label, predictions, rule and link."""
    parts = [f"label **{links.escape_markdown(row.label)}**"] if row.label is not None else []
    for said in row.predictions[:3]:
        parts.append(f"{links.escape_markdown(said.name)} {said.score:.3g}")
    return " · ".join([*parts, *_why_and_where(row, options)])


def _why_and_where(row: Row, options: TensorBoardOptions) -> Iterator[str]:
    """Yield the rule that chose an image, its id, and the link to its view in the report."""
    reason = options.kept_reason.get(row.id)
    if reason:
        yield f"shown because: {links.escape_markdown(reason)}"
    yield f"id `{links.code(row.id)}`"
    if options.report_url:
        yield f"[in the report]({links.report_image_link(options.report_url, row)})"


def _range(stored: StoredMap, row: Row, method: MethodRecord) -> str:
    low = max(stored.lo, 0.0) if method.relu else stored.lo
    high = max(stored.hi, 0.0) if method.relu else stored.hi
    return (
        f"{target_text(stored.target, row)}: raw values {stored.lo:.4g} … {stored.hi:.4g}, "
        f"coloured {low:.4g} … {high:.4g}{' after ReLU' if method.relu else ''}"
        f"{f' ({stored.flags})' if stored.flags else ''}"
    )
