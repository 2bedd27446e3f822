"""TensorBoard's cards of one image: for each method and layer the input, heatmap and overlay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.errors import ImageError
from exporter.records import MethodRecord, Plan, Row, StoredMap
from exporter.render import decode_image, encode_jpeg, heatmap, overlay_map, painted, target_text
from exporter.writers import links
from exporter.writers.options import TensorBoardOptions
from exporter.writers.tensorboard.events import image_summary

QUALITY = 88


def cards(row: Row, plan: Plan, options: TensorBoardOptions) -> Iterator[tuple[str, Any]]:
    """Yield (method, summary) of each method and layer that a row has a map of.

    The first sample is the run's own bytes of the input. Several targets give a heatmap and an
    overlay each, in the same card.
    """
    if row.image is None or row.error is not None:
        return
    try:
        view = decode_image(row.image)
    except ImageError:
        return
    methods = {method.name: method for method in plan.methods}
    size = (view.shape[1], view.shape[0])
    samples: dict[tuple[str, str], tuple[list[bytes], list[StoredMap]]] = {}
    for stored in row.maps:
        if stored.method not in methods:
            continue
        relu = methods[stored.method].relu
        pictures, shown = samples.setdefault((stored.method, stored.layer), ([row.image], []))
        pictures.append(encode_jpeg(heatmap(painted(stored), size, rectify=relu), QUALITY))
        pictures.append(encode_jpeg(overlay_map(view, stored, rectify=relu), QUALITY))
        shown.append(stored)
    for (method, layer), (pictures, shown) in samples.items():
        tag, title = links.image_tag(layer, row), links.plain(row.path)
        description = _describe(row, methods[method], shown, options)
        yield method, image_summary(tag, pictures, size, title=title, description=description)


def _describe(
    row: Row, method: MethodRecord, maps: list[StoredMap], options: TensorBoardOptions
) -> str:
    first = maps[0]
    lines = [
        f"**{links.escape_markdown(method.title)}** at `{links.code(first.layer or 'input')}`, "
        f"{first.width} x {first.height} values: input, then heatmap and overlay",
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
    """Yield the rule that chose an image, and the link to its view in the report."""
    reason = options.kept_reason.get(row.id)
    if reason:
        yield f"shown because: {links.escape_markdown(reason)}"
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
