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

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.records import Plan, Row, Written, parse_target
from exporter.render import activation_sheet, encode_jpeg
from exporter.writers import links
from exporter.writers.montages import montage_jpegs, montage_size
from exporter.writers.options import TensorBoardOptions
from exporter.writers.reading import in_order, kept_rows, set_numbers
from exporter.writers.tensorboard.cards import about, cards
from exporter.writers.tensorboard.events import EventFile, image_summary
from exporter.writers.tensorboard.overview import (
    kernel_summaries,
    maximised_summaries,
    run_page,
    set_summaries,
)

if TYPE_CHECKING:
    from exporter.store import Run

CARD_LIMIT = 2048
"""The most cards of single maps: about 60 MB in the server and a second to write.

Where kept images x methods x layers are more, each image has its montage only.
"""

ACTIVATION_IMAGES = 16
"""Kept images whose recorded activations are shown, the first of them."""

AT_ONCE = 64
"""Images in memory at a time, for their montages and then for their cards."""


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
    from tensorboard.plugins.text.summary_v2 import text_pb

    wall_time = _seconds(run.plan.created)
    base = folder / links.run_name(run.plan.model)
    with ExitStack() as files:

        def open_run(name: str = "") -> EventFile:
            where = base / links.safe_name(name) if name else base
            file: EventFile = files.enter_context(EventFile(where, wall_time, options.step))
            return file

        whole = open_run()
        numbers = set_numbers(run)
        images, notes, cards = _write_images(run, options, numbers.read, open_run)
        for summary in (*set_summaries(run, numbers), *kernel_summaries(run)):
            whole.add(summary)
        maximised: EventFile | None = None
        for summary in maximised_summaries(run):
            maximised = maximised or open_run(links.MAXIMISED)
            maximised.add(summary)
        page = run_page(run, options, images, notes, cards=cards)
        whole.add(text_pb("run/about", page.encode("utf-8", "replace")))
    return Written(
        writer="tensorboard",
        path="tensorboard",
        open=f"tensorboard --logdir {shlex.quote(str(run.path / 'tensorboard'))}",
        shown=images,
        total=len(run.plan.images),
        notes=notes,
    )


def _card_count(plan: Plan, kept: tuple[str, ...]) -> int:
    pixel = sum(method.pixel for method in plan.methods)
    maps = (len(plan.methods) - pixel) * len(plan.explained) + pixel
    return len(kept) * maps * parse_target(plan.target, plan.model.classes).k


def _write_images(
    run: Run, options: TensorBoardOptions, readable: int, open_run: Callable[[str], EventFile]
) -> tuple[int, tuple[str, ...], bool]:
    """Write the montages, cards and activations of the kept images.

    Returns:
        How many images are shown, what was left out and why, and whether each map has a card.
    """
    card_count = _card_count(run.plan, options.kept)
    images = unread = 0
    sheets: list[Row] = []
    by_method: dict[str, EventFile] = {}
    if options.kept:
        montages = open_run(links.MONTAGE)
        if card_count <= CARD_LIMIT:
            by_method = {method.name: open_run(method.name) for method in run.plan.methods}

    def cards_of(row: Row) -> list[tuple[str, bytes]]:
        drawn = cards(row, run.plan, options)
        return [(method, by_method[method].event(summary)) for method, summary in drawn]

    rows = kept_rows(run, options.kept)
    while part := list(islice(rows, AT_ONCE)):
        images += len(part)
        unread += sum(row.error is not None or row.image is None for row in part)
        for row, encoded in montage_jpegs(run, part):
            tag, said = links.image_tag(links.MONTAGE, row), about(row, options)
            title, size = links.plain(row.path), montage_size(run)
            montages.add(image_summary(tag, [encoded], size, title=title, description=said))
        for _, events in in_order(cards_of, part if by_method else ()):
            for method, event in events:
                by_method[method].write(event)
        sheets += [row for row in part if row.activations][: ACTIVATION_IMAGES - len(sheets)]
    if sheets:
        _write_activations(open_run(links.ACTIVATIONS), sheets, options)
    kept = len(options.kept)
    left_out = (
        (not run.complete, "the run is partial: it can be resumed, and this log written again"),
        (
            kept < readable,
            f"{images} of {len(run.plan.images)} images are shown; --keep N shows more",
        ),
        (
            images and not by_method,
            f"one montage per image instead of a card for each map: {card_count:,} cards are more "
            f"than {CARD_LIMIT:,}",
        ),
        (0 < len(sheets) < images, f"activations are shown of {len(sheets)} of these images"),
        (images < kept, f"{kept - images} chosen images are in shards that are not there yet"),
        (unread, f"{unread} chosen images could not be read"),
    )
    return images, tuple(note for holds, note in left_out if holds), bool(by_method)


def _write_activations(file: EventFile, rows: list[Row], options: TensorBoardOptions) -> None:
    for row in rows:
        for activation in row.activations:
            sheet = activation_sheet(activation)
            file.add(
                image_summary(
                    links.image_tag(f"{links.CHANNELS}/{activation.layer}", row),
                    [encode_jpeg(sheet, 90)],
                    (sheet.shape[1], sheet.shape[0]),
                    title=links.plain(row.path),
                    description="The strongest channels (largest spatial mean) of "
                    f"`{links.code(activation.layer)}`, each over its own range, "
                    f"{activation.width} x {activation.height} values.\n\n{about(row, options)}",
                )
            )


def _seconds(created: str) -> float:
    """Return the plan's time as seconds since 1970, so that the same run gives the same bytes."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
