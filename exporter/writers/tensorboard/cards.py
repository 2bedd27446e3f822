"""TensorBoard's cards of one image: for each method and layer the input, heatmap and overlay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from exporter.errors import ImageError
from exporter.records import MethodRecord, Plan, Row, StoredMap
from exporter.render import (
    TileStack,
    decode_image,
    encode_jpeg,
    hatch,
    overlay,
    target_text,
)
from exporter.writers import links
from exporter.writers.tensorboard.events import image_value

if TYPE_CHECKING:
    from exporter.writers.tensorboard.options import TensorBoardOptions

OPACITY = 0.5
QUALITY = 88


class Cards:
    """Draws the cards of one image after another; one per thread, as its buffers are reused."""

    def __init__(self, plan: Plan, options: TensorBoardOptions) -> None:
        self._methods: Mapping[str, MethodRecord] = {method.name: method for method in plan.methods}
        self._options = options
        self._stack: TileStack | None = None
        self._room = 0

    def values(self, row: Row) -> Iterator[tuple[str, Any]]:
        """Yield (method, summary value) of each method and layer that the row has a map of.

        The first sample is the run's own bytes of the input. Several targets give a heatmap and an
        overlay each, in the same card.
        """
        if row.image is None or row.error is not None:
            return
        try:
            view = decode_image(row.image)
        except ImageError:
            return
        maps = [stored for stored in row.maps if stored.method in self._methods]
        size = (view.shape[1], view.shape[0])
        relu = [self._methods[stored.method].relu for stored in maps]
        heats = self._colouring(len(maps), size).colour(maps, relu)
        samples: dict[tuple[str, str], list[bytes]] = {}
        grouped: dict[tuple[str, str], list[StoredMap]] = {}
        for stored, heat in zip(maps, heats, strict=True):
            spot = (stored.method, stored.layer)
            drawn = hatch(size) if "nan" in stored.flags else heat
            both = (
                encode_jpeg(drawn, QUALITY),
                encode_jpeg(overlay(view, drawn, OPACITY), QUALITY),
            )
            samples.setdefault(spot, [row.image]).extend(both)
            grouped.setdefault(spot, []).append(stored)
        for spot, pictures in samples.items():
            method, layer = spot
            yield (
                method,
                image_value(
                    links.image_tag(layer, row),
                    pictures,
                    size,
                    title=links.plain(row.path),
                    description=self._describe(row, self._methods[method], grouped[spot]),
                ),
            )

    def _colouring(self, count: int, size: tuple[int, int]) -> TileStack:
        if self._stack is None or self._stack.size != size or self._room < count:
            self._room = max(1, count)
            self._stack = TileStack(self._room, size)
        return self._stack

    def _describe(self, row: Row, method: MethodRecord, maps: list[StoredMap]) -> str:
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
        reason = self._options.kept_reason.get(row.id)
        if reason:
            ends.append(f"shown because: {links.escape_markdown(reason)}")
        if self._options.report_url:
            ends.append(
                f"[in the report]({links.report_image_link(self._options.report_url, row)})"
            )
        return "\n".join([*lines, " · ".join(ends)])


def _range(stored: StoredMap, row: Row, method: MethodRecord) -> str:
    low = max(stored.lo, 0.0) if method.relu else stored.lo
    high = max(stored.hi, 0.0) if method.relu else stored.hi
    return (
        f"{target_text(stored.target, row)}: raw values {stored.lo:.4g} … {stored.hi:.4g}, "
        f"coloured {low:.4g} … {high:.4g}{' after ReLU' if method.relu else ''}"
        f"{f' ({stored.flags})' if stored.flags else ''}"
    )
