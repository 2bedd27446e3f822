"""The report's words: numbers with units, and what its pages load."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from functools import cache

import numpy as np

from exporter.records import Plan, Preprocessing, parse_target
from exporter.render import COLORMAPS, encode_png, heatmap

POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing from elsewhere, nothing inline, no connection; it holds from a file too."""

IMAGE_SCRIPTS = (
    "paint.js", "data.js", "state.js", "select.js", "form.js", "grid.js",
    "stage.js", "boxes.js", "matrix.js", "beside.js", "live.js", "figure.js", "viewer.js",
    "keys.js",
)  # fmt: skip
"""Scripts of the images page, in the order in which they need one another."""

ASSETS = ("report.css", "theme.js", "tables.js", "channels.js", *IMAGE_SCRIPTS)
"""What the pages of the folder load."""

SINGLE_SCRIPTS = ("theme.js", "tables.js", *IMAGE_SCRIPTS, "single.js")
"""What is in the single file; the tables of channels are filled when it is written."""


def number(value: int) -> str:
    """Write a count with thousands apart.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def percent(share: float) -> str:
    r"""Write a share of one as percent, in one piece.

    >>> percent(0.1234)
    '12.3\xa0%'
    """
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def decimal(value: float, digits: int = 2) -> str:
    """Write a value to so many decimals, with a true minus sign.

    >>> decimal(-0.123), decimal(0.5, 3)
    ('−0.12', '0.500')
    """
    return f"{value:.{digits}f}".replace("-", "−")


def figure(value: float) -> str:
    """Write a value to four digits, with true minus signs.

    >>> figure(-0.000123456), figure(12.345678), figure(0.0)
    ('−1.23e−4', '12.35', '0')
    """
    if not math.isfinite(value):
        return "not a number"
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e5 or size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def layer_words(layer: str) -> str:
    """Say in a sentence which layer; one that is called by its number would be read as a number.

    >>> layer_words("layer4"), layer_words("9"), layer_words("")
    ('layer4', 'layer 9', 'input')
    """
    return f"layer {layer}" if layer[:1].isdigit() else layer or "input"


def count(value: int, noun: str, several: str | None = None) -> str:
    """Write a count with its noun.

    >>> count(1, "image"), count(2000, "image"), count(2, "class", "classes")
    ('1 image', '2,000 images', '2 classes')
    """
    return f"{number(value)} {noun if value == 1 else several or noun + 's'}"


def score(value: float | None, plan: Plan) -> str:
    """Write the score of a prediction: percent of a share of one, or the raw output."""
    if value is None:
        return ""
    return percent(value) if in_percent(plan) else figure(value)


def in_percent(plan: Plan) -> bool:
    """Whether scores are shares of one, written in percent; else they are raw values."""
    return score_words(plan)["unit"] != "raw output"


def score_words(plan: Plan) -> dict[str, str]:
    """Return what the scores of a run's predictions are: ``unit``, and the ``title`` of their mean.

    A run from before ``scores`` was kept has raw values if it has a single output.
    """
    kind = plan.model.scores
    if kind == "probability" and plan.model.outputs == 1:
        kind = "value"
    return {
        "probability": {"unit": "probability", "title": "Confidence"},
        "share": {"unit": "share of the area", "title": "Area"},
        "value": {"unit": "raw output", "title": "Output"},
    }[kind]


def moment(iso: str) -> str:
    """Write an ISO 8601 time as day and minute; one that is a day as that.

    >>> moment("2026-01-02T03:04:05+00:00"), moment("2026-01-02")
    ('2 January 2026, 03:04 UTC', '2 January 2026')
    """
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    day = f"{when.day} {when:%B %Y}"
    return f"{day}, {when:%H:%M} {when.tzname() or ''}".rstrip() if "T" in iso else day


def duration(seconds: float) -> str:
    """Write a duration in its natural units.

    >>> duration(7.25), duration(95), duration(7300)
    ('7.2 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def slug(name: str) -> str:
    """Return a name as a fragment of an address.

    >>> slug("gradcam++")
    'gradcam-plus-plus'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "-plus")).strip("-")


FILTERS = (number, percent, decimal, figure, count, moment, duration, slug)
"""What templates may write values with, by these names."""


def shape(values: tuple[int, ...]) -> str:
    """Write a shape.

    >>> shape((64, 3, 7, 7))
    '64 × 3 × 7 × 7'
    """
    return " × ".join(str(value) for value in values)


def preprocessing_text(steps: Preprocessing) -> str:
    """Say in one sentence how a photograph becomes the model's input."""
    parts = [] if steps.bits == 16 else [f"{steps.bits} bits of pictures with 16 are used"]
    if steps.in_bands and steps.shown_as:
        parts.append(f"{steps.shown_as} shown")
    if steps.resize is not None:
        to = (
            f"resized to {shape(steps.resize)}"
            if isinstance(steps.resize, tuple)
            else (f"shorter side resized to {steps.resize}")
        )
        how = f"{steps.interpolation}{', antialiased' if steps.antialias else ''}"
        parts.append(f"{to} pixels ({how})")
    if steps.crop == "center":
        parts.append(f"centre crop of {shape(steps.size)} pixels")
    mean, std = (", ".join(map(figure, values)) for values in (steps.mean, steps.std))
    parts.append(count(steps.channels, "channel"))
    parts.append(f"values in [0, 1] normalised with mean {mean} and standard deviation {std}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def target_text(target: str, classes: Sequence[str] = ()) -> str:
    """Say what is explained.

    >>> target_text("predicted"), target_text("prob:top-2")
    ('the score of the predicted class', 'the probabilities of the 2 most likely classes')
    """
    read = parse_target(target, classes)
    if read.kind == "value" and read.index is None:
        return "the output’s value"
    if read.compares:
        kind = {"similar": "image", "text": "text"}[read.kind]
        return f"the similarity to the {kind} {read.source}"
    parts = read.parts or (read,)
    explained = ("probability", "probabilities") if parts[0].probability else ("score", "scores")
    words = read.words(dict(enumerate(classes)))
    reading = f" ({parts[0].reading})" if parts[0].reading else ""
    return f"the {explained[read.k > 1]} of {words}{reading}"


@cache
def colour_bars() -> dict[str, str]:
    """Return each colour map as a picture with one level per pixel, as a data: address."""
    return {
        name: data_address(encode_png(np.ascontiguousarray(table[None])))
        for name, table in COLORMAPS.items()
    }


@cache
def icon() -> str:
    """Return the report's icon, a small heatmap, as a data: address."""
    spot = np.array([[0, 1, 2, 1], [1, 4, 6, 3], [1, 6, 9, 4], [0, 2, 4, 2]], dtype=np.float32)
    return data_address(encode_png(heatmap(spot, (32, 32), rectify=False)))


def data_address(picture: bytes, format: str = "png") -> str:
    """Return a picture as a data: address."""
    return f"data:image/{format};base64," + b64encode(picture).decode("ascii")
