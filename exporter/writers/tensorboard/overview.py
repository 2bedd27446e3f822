"""TensorBoard's numbers of a whole run: scalars, histograms and the sheets of kernels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from exporter.records import ChannelRow
from exporter.writers import links
from exporter.writers.maximised import channel_name, how
from exporter.writers.tensorboard.events import histogram_value, image_value, scalar_value

if TYPE_CHECKING:
    from exporter.store import Run

_SCORES = {"probability": "probability", "share": "share of the area", "value": "output"}

COLUMNS = ("error", "correct", "loss", "predictions", "maps.list.element.flags")


def set_values(run: Run) -> Iterator[Any]:
    """Yield the scalars and histograms of the set and of each recorded layer."""
    table = run.table(COLUMNS)
    error = table.column("error")
    skipped = len(table) - error.null_count
    partial = "" if run.complete else " The run is partial: these are the images so far."
    yield scalar_value("set/images", len(table) - skipped, description="Images read." + partial)
    yield scalar_value("set/skipped", skipped, description="Images that could not be read.")
    correct = table.column("correct").drop_null()
    if len(correct):
        yield scalar_value(
            "set/accuracy",
            float(pc.mean(correct).as_py()),
            description=f"Share of the {len(correct)} images whose label is a class of the model "
            f"that the first prediction gets right.{partial}",
        )
    loss = table.column("loss").drop_null()
    if len(loss):
        yield scalar_value(
            "set/mean loss",
            float(pc.mean(loss).as_py()),
            description=f"Mean cross-entropy (nats) of {len(loss)} labelled images.{partial}",
        )
    scores = _scores(table)
    if scores.size:
        kind = run.plan.model.scores
        what = _SCORES["value" if kind == "probability" and run.plan.model.outputs == 1 else kind]
        yield scalar_value(
            "set/mean confidence",
            float(scores.mean()),
            description=f"Mean {what} of the first prediction, {scores.size} images.{partial}",
        )
        yield histogram_value(
            "set/confidence", scores, description=f"The {what} of the first prediction."
        )
    yield scalar_value(
        "set/flagged maps",
        _flagged(table),
        description="Maps that are zero, constant, not a number, or left with nothing by a ReLU.",
    )
    yield from _layer_values(run.channels())


def kernel_values(run: Run) -> Iterator[Any]:
    """Yield a histogram of the weights and the stored sheet of each layer of kernels."""
    for record in run.kernels():
        name = links.tag_text(record.name)
        shape = " x ".join(str(size) for size in record.shape)
        yield histogram_value(
            f"weights/{name}",
            run.kernel_values(record),
            description=f"All weights of the {links.escape_markdown(record.type)}, {shape}.",
        )
        sheet = run.kernel_sheet(record)
        yield image_value(
            f"kernels/{name}",
            [sheet],
            png_size(sheet),
            description=f"{links.escape_markdown(record.type)} {shape}: {record.shown} of "
            f"{record.total} kernels, weights {record.lo:.4g} … {record.hi:.4g}.",
        )


def maximised_values(run: Run) -> Iterator[Any]:
    """Yield the picture of each maximised channel and class; what it says is the description."""
    for one in run.maximised():
        name = f"{links.MAXIMISED}/{one.layer}/{channel_name(one)}"
        yield image_value(
            links.tag_text(name),
            [one.picture],
            (one.width, one.height),
            title=links.plain(channel_name(one)),
            description=f"Made from noise to excite {links.escape_markdown(channel_name(one))} of "
            f"`{links.code(one.layer)}`: mean {one.after:.4g} (of the noise {one.before:.4g}), at "
            f"most {one.peak:.4g}. {links.escape_markdown(how(one))}.",
        )


def png_size(png: bytes) -> tuple[int, int]:
    """Return (width, height) of a PNG from its header, (0, 0) where it is none."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        return (0, 0)
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def _layer_values(rows: tuple[ChannelRow, ...]) -> Iterator[Any]:
    by_layer: dict[str, list[ChannelRow]] = {}
    for row in rows:
        by_layer.setdefault(row.layer, []).append(row)
    for layer, channels in by_layer.items():
        name = links.tag_text(layer)
        images = channels[0].images
        yield scalar_value(
            f"sparsity/{name}",
            float(np.mean([row.sparsity for row in channels])),
            description=f"Mean share of exact zeros, {len(channels)} channels, {images} images.",
        )
        yield scalar_value(
            f"dead channels/{name}",
            float(np.mean([row.dead for row in channels])),
            description=f"Share of the {len(channels)} channels that are zero in every image.",
        )
        yield histogram_value(
            f"mean activation/{name}",
            np.array([row.mean for row in channels]),
            description="A channel's mean activation over places and images.",
        )


def _scores(table: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
    parts = []
    for chunk in table.column("predictions").chunks:
        first = pc.list_flatten(pc.list_slice(chunk, 0, 1))
        parts.append(pc.struct_field(first, "score").to_numpy(zero_copy_only=False))
    scores = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
    return scores[np.isfinite(scores)]


def _flagged(table: pa.Table) -> int:
    count = 0
    for chunk in table.column("maps").chunks:
        flags = pc.struct_field(pc.list_flatten(chunk), "flags")
        count += int(pc.sum(pc.not_equal(flags, "")).as_py() or 0)
    return count
