"""One image with a map over it, drawn as the report is written: for the overview's strips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.records import Plan, Row
from exporter.render import decode_image, encode_jpeg, heatmap, overlay
from exporter.writers.html import text as words


def draw_figure(
    row: Row, encoded: bytes, line: Mapping[str, Any], plan: Plan
) -> tuple[dict[str, Any], bytes | None]:
    """Draw an image with its first method at the deepest explained layer.

    Args:
        row: the image's row, with its maps.
        encoded: its photograph.
        line: what the lists say of it.
        plan: what ran.

    Returns:
        What the page says of it, and the encoded picture for its ``src``; None where it has no map
        and the photograph itself is shown.
    """
    pixels = decode_image(encoded)
    height, width = pixels.shape[:2]
    found = {**line, "width": width, "height": height, "caption": ""}
    if not plan.methods:
        return found, None
    record = plan.methods[0]
    deepest = plan.explained[-1] if plan.explained else ""
    maps = sorted(
        (one for one in row.maps if one.method == record.name), key=lambda one: one.layer == deepest
    )
    if not maps:
        return found, None
    one = maps[-1]
    heat = heatmap(one.array(), (width, height), rectify=record.relu)
    what = f"{record.title} at {one.layer or 'input'}"
    found["src"] = f"figures/{row.id}.jpg"
    found["caption"] = f"{what}, {words.figure(one.lo)} to {words.figure(one.hi)}"
    found["alt"] = f"{line['alt']}, {what} over it"
    return found, encode_jpeg(overlay(pixels, heat, 0.5))
