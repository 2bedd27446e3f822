"""TensorBoard's numbers of a whole run: scalars, histograms and the sheets of kernels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import ChannelRow
from exporter.writers import links
from exporter.writers.maximised import channel_name, how
from exporter.writers.reading import set_numbers
from exporter.writers.tensorboard.events import histogram_value, image_value, scalar_value

if TYPE_CHECKING:
    from exporter.store import Run

_SCORES = {"probability": "probability", "share": "share of the area", "value": "output"}


def set_values(run: Run) -> Iterator[Any]:
    """Yield the scalars and histograms of the set and of each recorded layer."""
    numbers = set_numbers(run)
    partial = "" if run.complete else " The run is partial: these are the images so far."
    yield scalar_value("set/images", numbers.read, description="Images read." + partial)
    yield scalar_value("set/skipped", numbers.skipped, description="Images that could not be read.")
    if numbers.judged:
        yield scalar_value(
            "set/accuracy",
            numbers.correct / numbers.judged,
            description=f"Share of the {numbers.judged} images whose label is a class of the model "
            f"that the first prediction gets right.{partial}",
        )
    if numbers.losses.size:
        yield scalar_value(
            "set/mean loss",
            float(numbers.losses.mean()),
            description=f"Mean cross-entropy (nats) of {numbers.losses.size} labelled images."
            f"{partial}",
        )
    if numbers.scores.size:
        kind = run.plan.model.scores
        what = _SCORES["value" if kind == "probability" and run.plan.model.outputs == 1 else kind]
        yield scalar_value(
            "set/mean confidence",
            float(numbers.scores.mean()),
            description=f"Mean {what} of the first prediction, {numbers.scores.size} images."
            f"{partial}",
        )
        yield histogram_value(
            "set/confidence", numbers.scores, description=f"The {what} of the first prediction."
        )
    yield scalar_value(
        "set/flagged maps",
        numbers.flagged,
        description="Maps that are zero, constant, not a number, or without a positive value "
        "where a ReLU follows.",
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
    for picture in run.maximised():
        channel = channel_name(picture)
        yield image_value(
            links.tag_text(f"{links.MAXIMISED}/{picture.layer}/{channel}"),
            [picture.picture],
            (picture.width, picture.height),
            title=links.plain(channel),
            description=f"Optimised from noise to excite {links.escape_markdown(channel)} of "
            f"`{links.code(picture.layer)}`: mean {picture.after:.4g} (of the noise "
            f"{picture.before:.4g}), at most {picture.peak:.4g}. "
            f"{links.escape_markdown(how(picture))}.",
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
            description="Mean activation of each channel over positions and images.",
        )
