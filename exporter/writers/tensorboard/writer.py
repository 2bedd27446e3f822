"""TensorBoard: runs to put side by side, one for each ``model@checkpoint`` and method.

    model@checkpoint               scalars, histograms, kernels, the page that says what ran
    model@checkpoint/METHOD        <layer>/<path>@<id>: input, heatmap, overlay
    model@checkpoint/montage       montage/<path>@<id>: every map of an image in one picture
    model@checkpoint/activations   strongest channels/<layer>/<path>@<id>
    model@checkpoint/maximised     maximised/<layer>/<channel>: pictures that excite channels

The server keeps about tags x bytes in memory, so only the kept images are here, and every map has
a card of its own only up to `CARD_LIMIT` cards; the page says how many of how many.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.records import Plan, Row, Written, parse_target
from exporter.render import activation_sheet, encode_jpeg
from exporter.writers import links
from exporter.writers.montages import montage_jpegs, own_layout
from exporter.writers.reading import in_order, kept_rows
from exporter.writers.tensorboard.cards import Cards
from exporter.writers.tensorboard.events import EventFile, image_value, text_value
from exporter.writers.tensorboard.overview import kernel_values, maximised_values, set_values
from exporter.writers.tensorboard.run_page import Shown, run_page

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.tensorboard.options import TensorBoardOptions

CARD_LIMIT = 2048
"""The most cards of single maps: about 60 MB in the server and a second to write.

Where kept images x methods x layers are more, each image has its montage only.
"""

ACTIVATION_IMAGES = 16
"""Kept images whose recorded activations are shown, the first of them."""


def write(run: Run, folder: Path, options: TensorBoardOptions) -> Written:
    """Write the event files of a run.

    Args:
        run: the run, complete or partial.
        folder: an empty folder to write into.
        options: which images are kept, the step and the links.

    Returns:
        How many of how many images are shown, and what was left out.

    Raises:
        RunError: if the run is damaged.
    """
    plan = run.plan
    wall_time = _seconds(plan.created)
    base = folder / links.run_name(plan.model)
    wanted = options.kept
    with ExitStack() as files:

        def open_run(name: str) -> EventFile:
            where = base / links.safe_name(name) if name else base
            return files.enter_context(EventFile(where, wall_time, options.step))

        whole = open_run("")
        montages = open_run(links.MONTAGE) if wanted else None
        by_method = {}
        if wanted and _card_count(run.plan, wanted) <= CARD_LIMIT:
            by_method = {method.name: open_run(method.name) for method in plan.methods}
        shown = _write_images(run, options, open_run, montages, by_method)
        for value in (*set_values(run), *kernel_values(run)):
            whole.add(value)
        maximised: EventFile | None = None
        for value in maximised_values(run):
            maximised = maximised or open_run(links.MAXIMISED)
            maximised.add(value)
        whole.add(text_value("run/about", run_page(run, options, shown)))
    return Written(
        writer="tensorboard",
        path="tensorboard",
        open=f"tensorboard --logdir {run.path / 'tensorboard'}",
        shown=shown.images,
        total=len(plan.images),
        notes=shown.notes,
    )


def _card_count(plan: Plan, kept: tuple[str, ...]) -> int:
    pixel = sum(method.pixel for method in plan.methods)
    maps = (len(plan.methods) - pixel) * len(plan.explained) + pixel
    return len(kept) * maps * parse_target(plan.target, plan.model.classes).k


def _write_images(
    run: Run,
    options: TensorBoardOptions,
    open_run: Callable[[str], EventFile],
    montages: EventFile | None,
    by_method: dict[str, EventFile],
) -> Shown:
    unread: list[tuple[str, str]] = []
    sheets: list[Row] = []
    images = present = 0
    local = threading.local()

    def cards_of(row: Row) -> list[tuple[str, bytes]]:
        if not hasattr(local, "cards"):
            local.cards = Cards(run.plan, options)
        cards: Cards = local.cards
        return [(method, by_method[method].event(value)) for method, value in cards.values(row)]

    rows = _readable(kept_rows(run, options.kept), unread)
    for part in _parts(rows, 64):
        if montages is None:
            break
        present += len(part)
        size = own_layout(run).size
        for row, encoded in montage_jpegs(run, part):
            montages.add(
                image_value(
                    links.image_tag(links.MONTAGE, row),
                    [encoded],
                    size,
                    title=links.plain(row.path),
                    description=_about(row, options),
                )
            )
            images += 1
        for _, events in in_order(cards_of, part if by_method else ()):
            for method, event in events:
                by_method[method].write(event)
        sheets += [row for row in part if row.activations][: ACTIVATION_IMAGES - len(sheets)]
    if sheets:
        _write_activations(open_run(links.ACTIVATIONS), sheets, options)
    return Shown(
        images=images,
        total=len(run.plan.images),
        readable=run.totals.read if run.totals else len(run.plan.images),
        kept=len(options.kept),
        cards=bool(by_method),
        card_count=_card_count(run.plan, options.kept),
        card_limit=CARD_LIMIT,
        activations=len(sheets),
        unread=tuple(unread),
        absent=len(options.kept) - present,
        complete=run.complete,
    )


def _write_activations(file: EventFile, rows: list[Row], options: TensorBoardOptions) -> None:
    for row in rows:
        for activation in row.activations:
            sheet = activation_sheet(activation)
            file.add(
                image_value(
                    links.image_tag(f"{links.CHANNELS}/{activation.layer}", row),
                    [encode_jpeg(sheet, 90)],
                    (sheet.shape[1], sheet.shape[0]),
                    title=links.plain(row.path),
                    description="The strongest channels (largest spatial mean) of "
                    f"`{links.code(activation.layer)}`, each over its own range, "
                    f"{activation.width} x {activation.height} values.\n\n{_about(row, options)}",
                )
            )


def _readable(rows: Iterable[Row], unread: list[tuple[str, str]]) -> Iterator[Row]:
    for row in rows:
        if row.error is not None or row.image is None:
            unread.append((row.path, row.error or "the run holds no picture of it"))
        yield row


def _parts(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    part: list[Row] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _about(row: Row, options: TensorBoardOptions) -> str:
    parts = []
    if row.label is not None:
        parts.append(f"label **{links.escape_markdown(row.label)}**")
    parts += [
        f"{links.escape_markdown(said.name)} {said.score:.3g}" for said in row.predictions[:3]
    ]
    reason = options.kept_reason.get(row.id)
    if reason:
        parts.append(f"shown because: {links.escape_markdown(reason)}")
    if options.report_url:
        parts.append(f"[in the report]({links.report_image_link(options.report_url, row)})")
    return " · ".join(parts)


def _seconds(created: str) -> float:
    """Return the plan's time as seconds since 1970, so that the same run gives the same bytes."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
