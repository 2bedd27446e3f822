"""A run as a notebook shows it: a map over its image, and a card that says what the run is."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Final

from exporter.errors import ConfigError, ExporterError
from exporter.store.plans import PlanFile

if TYPE_CHECKING:
    from PIL.Image import Image

    from exporter.records import Plan, Row, StoredMap
    from exporter.store.reader import Run

THUMBNAILS: Final = 6
SIDE: Final = 128
"""The longest side of a thumbnail, in pixels."""


def overlaid(
    row: Row,
    stored: StoredMap | None,
    plan: Plan,
    *,
    opacity: float | None = None,
    colormap: str = "viridis",
) -> Image:
    """Return a map of a row over the model's view, or the view alone, as a Pillow image (RGB).

    Raises:
        ConfigError: if there is no such colour map, or the opacity is none.
    """
    # Reading a run needs no OpenCV, which takes a while to import.
    from PIL import Image

    from exporter.render import OPACITY, decode_image, overlay_map

    share = OPACITY if opacity is None else opacity
    if not 0 <= share <= 1:
        raise ConfigError(f"the opacity is {opacity!r}; give a number from 0 to 1")
    view = decode_image(row.image or b"")
    if stored is not None:
        relu = any(method.relu for method in plan.methods if method.name == stored.method)
        view = overlay_map(view, stored, rectify=relu, colormap=colormap, opacity=share)
    return Image.fromarray(view)


def run_html(run: Run, planned: PlanFile) -> str:
    """Return what a notebook shows of a run: what it is, and a few images with a map over each.

    Only these images are read, however many there are. A damaged run is shown with what is wrong.
    """
    plan, images = planned.plan, len(planned.images.key)
    there, shards = len(run.shards), len(plan.shards)
    methods = ", ".join(method.title for method in plan.methods) or "no maps"
    lines = [
        f"{images:,} image{'' if images == 1 else 's'} of {plan.image_set}"
        + ("" if run.complete else f"; {there:,} of {shards:,} shards are done"),
        f"{methods}; layers: {', '.join(plan.explained) or 'none'}",
    ]
    figures = ""
    try:
        totals = run.totals
        if totals is not None and totals.accuracy is not None:
            lines.append(
                f"accuracy {100 * totals.accuracy:.1f} % of {totals.labelled:,} labelled images"
            )
        figures = "".join(islice(_figures(run, planned), THUMBNAILS))
    except ExporterError as error:
        lines.append(str(error))
    title = f"<b>{escape(plan.model.title)}</b> · <code>{escape(str(run.path))}</code>"
    text = "".join(f"<div>{line}</div>" for line in (title, *map(escape, lines)))
    return f'{text}<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>'


def _figures(run: Run, planned: PlanFile) -> Iterator[str]:
    """Yield readable images as figures: the first of each strip, then some from all over."""
    plan, ids, summary = planned.plan, planned.images.ids, run.summary
    why = {strip.ids[0]: strip.name for strip in summary.strips} if summary else {}
    there = [place for number in run.shards for place in range(*plan.shards[number])]
    spread = there[:: max(1, len(there) // THUMBNAILS)]
    method = plan.methods[0].name if plan.methods else ""
    for id in dict.fromkeys([*why, *(ids[place] for place in spread)]):
        row = run.row(id)
        if row.image is None:
            continue
        maps = [kept for kept in row.maps if kept.method == method]
        # At the deepest layer, of the first target.
        shown = next((kept for kept in maps if kept.layer == maps[-1].layer), None)
        picture = overlaid(row, shown, plan)
        said = [row.path, *(each.name for each in row.predictions[:1]), why.get(id, "")]
        yield _figure(picture, [text for text in said if text])


def _figure(picture: Image, said: list[str]) -> str:
    picture.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=80)
    source = base64.b64encode(encoded.getvalue()).decode()
    line = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
    text = "".join(f'<div style="{line}">{escape(part)}</div>' for part in said)
    return (
        f'<div style="width:{SIDE}px;font-size:smaller" title="{escape(said[0])}">'
        f'<img alt="" src="data:image/jpeg;base64,{source}">{text}</div>'
    )
