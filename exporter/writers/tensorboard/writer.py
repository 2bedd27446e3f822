"""TensorBoard: a run for each model and method, whose steps are checkpoints.

    model           montage/<path>: every map of an image in one picture; strongest channels,
                    kernels, maximised; scalars, histograms, confusion, HParams, what ran
    model/METHOD    <stage>/<path>: heatmap and overlay; scalars of the method
    model/input     deepest/<path>: the model's view, once per image
    model/embeddings@step   the projector, with --embeddings

Where no step is known the model's run is called ``model@checkpoint``. The server keeps about tags x
bytes in memory, so only the kept images are here, and every map has a card of its own only up to
`CARD_LIMIT` cards; the page says how many of how many.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Container
from contextlib import ExitStack
from functools import cache
from itertools import islice
from pathlib import Path

from exporter.errors import WriterError, reason
from exporter.records import Plan, Row, Written, parse_target
from exporter.render import activation_sheet, encode_jpeg
from exporter.store import Run
from exporter.writers import links
from exporter.writers.montages import montage_jpegs, montage_size
from exporter.writers.options import TensorBoardOptions
from exporter.writers.reading import in_order, kept_rows, seconds_of, set_numbers
from exporter.writers.scalars import given_scalars, method_scalars, set_scalars
from exporter.writers.tensorboard.cards import about, cards
from exporter.writers.tensorboard.events import EventFile, image_summary
from exporter.writers.tensorboard.numbers import scalar_summaries, set_summaries
from exporter.writers.tensorboard.overview import kernel_summaries, maximised_summaries, run_page
from exporter.writers.tensorboard.projector import why_none, write_projector
from exporter.writers.tensorboard.sessions import layout_summary, session_summaries

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

    Returns:
        How many of how many images are shown, and what was left out.

    Raises:
        RunError: if the run is damaged.
    """
    from tensorboard.plugins.text.summary_v2 import text_pb

    wall_time = seconds_of(run.plan.created)
    step = links.step_of(run.plan.model, options.step)
    base = folder / links.run_name(run.plan.model, step)
    mark = hashlib.sha256(json.dumps(run.settings, sort_keys=True).encode()).hexdigest()[:8]
    with ExitStack() as files:

        @cache
        def open_run(name: str) -> EventFile:
            where = base / links.safe_name(name) if name else base
            file: EventFile = files.enter_context(EventFile(where, wall_time, step or 0, mark))
            return file

        numbers = set_numbers(run)
        images, notes, cards = _write_images(run, options, numbers.read, open_run)
        scalars, methods = set_scalars(run, numbers), method_scalars(run)
        known = (scalars, *methods.values())
        whole = (
            *scalar_summaries(scalars),
            *scalar_summaries(given_scalars(options.metrics), "given"),
            *set_summaries(run, numbers),
            *session_summaries(run, step, methods, wall_time),
            layout_summary({name for own in known for name, value, _ in own if value is not None}),
            *kernel_summaries(run),
            *maximised_summaries(run),
        )
        for summary in whole:
            open_run("").add(summary)
        for method, own in methods.items():
            for summary in scalar_summaries(own):
                open_run(method).add(summary)
        if options.embeddings:
            notes += _write_projector(run, base, options, open_run)
        page = run_page(run, options, images, notes, cards=cards)
        open_run("").add(text_pb("run/about", page.encode("utf-8", "replace")))
    logs = [options.tensorboard_dir] if options.tensorboard_dir is not None else []
    if options.summary_writer is not None:
        logs.append(Path(options.summary_writer.get_logdir()))
    for log in logs:
        notes += _add_to(log, folder, f"{step or 0:010d}", mark)
    shown = shlex.quote(str(next(iter(logs), run.path)))
    return Written(
        writer="tensorboard",
        path="tensorboard",
        open=f"exporter tensorboard {shown}",
        shown=images,
        total=len(run.plan.images),
        notes=notes,
    )


def _write_projector(
    run: Run, base: Path, options: TensorBoardOptions, open_run: Callable[[str], EventFile]
) -> tuple[str, ...]:
    """Write the projector in a run of its own, whose step is in its name, and return a note.

    A run has one projector, so that checkpoints need one each.
    """
    from tensorboard.plugins.text.summary_v2 import text_pb

    step = links.step_of(run.plan.model, options.step)
    name = links.EMBEDDINGS if step is None else f"{links.EMBEDDINGS}@{step}"
    count = write_projector(run, base / name, options)
    if not count:
        return (f"the projector is left out: {why_none(run) or 'no kept image has features'}",)
    said = f"{count} images in the projector, by what the model's linear head reads of each."
    open_run(name).add(text_pb("run/embeddings", said.encode()))
    return ()


def _add_to(log: Path, folder: Path, step: str, mark: str) -> tuple[str, ...]:
    """Add a run's event files to a log of several, in the place of those it added before.

    Returns:
        A note, where the log has another run at this step.

    Raises:
        WriterError: if the log cannot be written.
    """
    own = {file.relative_to(folder) for file in folder.rglob(f"*.{step}.{mark}.exporter")}
    beside = {
        file.relative_to(folder)
        for file in folder.glob(f"*/{links.EMBEDDINGS}*/*")
        if file.suffix != ".exporter"
    }
    # The run folder itself may lie elsewhere in the log's folder.
    parts = {place.parts[0] for place in own}
    try:
        same = {
            file.relative_to(log): file
            for part in parts
            for file in (log / part).rglob(f"*.{step}.*.exporter")
        }
        for place, file in same.items():
            if file.match(f"*.{mark}.exporter") and place not in own:
                file.unlink()
        for place in own | beside:
            (log / place).parent.mkdir(parents=True, exist_ok=True)
            part = (log / place).with_name(".part")
            shutil.copyfile(folder / place, part)
            part.replace(log / place)
    except OSError as error:
        raise WriterError(
            f"the TensorBoard log {str(log)!r} cannot be written: {reason(error)}"
        ) from None
    parents = {place.parent for place in own}
    if any(place.parent in parents and place not in own for place in same):
        return (
            f"the log has another run of this model at step {int(step)}, and TensorBoard shows one "
            "picture per step; give them different steps with --step",
        )
    return ()


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
    shared, with_cards = links.shared_paths(run.plan), card_count <= CARD_LIMIT
    whole = open_run("")  # before there are threads
    images = unread = 0
    sheets: list[Row] = []

    def cards_of(row: Row) -> list[tuple[str, bytes]]:
        drawn = cards(run, row, options, shared)
        return [(name, whole.event(summary)) for name, summary in drawn]

    rows = kept_rows(run, options.kept)
    while part := list(islice(rows, AT_ONCE)):
        images += len(part)
        unread += sum(row.error is not None or row.image is None for row in part)
        for row, encoded in montage_jpegs(run, part, uniform=options.uniform_opacity):
            tag, said = links.image_tag(links.MONTAGE, row, shared), about(row, options)
            title, size = links.shown_path(row.path), montage_size(run)
            whole.add(image_summary(tag, [encoded], size, title=title, description=said))
        for _, events in in_order(cards_of, part if with_cards else ()):
            for name, event in events:
                open_run(name).write(event)
        sheets += [row for row in part if row.activations][: ACTIVATION_IMAGES - len(sheets)]
    _write_activations(whole, sheets, options, shared)
    kept = len(options.kept)
    left_out = (
        (not run.complete, "the run is partial: it can be resumed, and this log written again"),
        (
            kept < readable,
            f"{images} of {len(run.plan.images)} images are shown; --keep N shows more",
        ),
        (
            images and not with_cards,
            f"one montage per image instead of a card for each map: {card_count:,} cards are more "
            f"than {CARD_LIMIT:,}",
        ),
        (0 < len(sheets) < images, f"activations are shown of {len(sheets)} of these images"),
        (images < kept, f"{kept - images} chosen images are in shards that are not computed yet"),
        (unread, f"{unread} chosen images could not be read"),
    )
    return images, tuple(note for holds, note in left_out if holds), with_cards


def _write_activations(
    file: EventFile, rows: list[Row], options: TensorBoardOptions, shared: Container[str]
) -> None:
    for row in rows:
        for activation in row.activations:
            sheet = activation_sheet(activation)
            file.add(
                image_summary(
                    links.image_tag(f"{links.CHANNELS}/{activation.layer}", row, shared),
                    [encode_jpeg(sheet, 90)],
                    (sheet.shape[1], sheet.shape[0]),
                    title=links.shown_path(row.path),
                    description="The strongest channels (largest spatial mean) of "
                    f"`{links.code(activation.layer)}`, each over its own range, "
                    f"{activation.width} x {activation.height} values.\n\n{about(row, options)}",
                )
            )
