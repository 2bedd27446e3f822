"""What the examples share: a photograph for a model, a folder to write to, tiles in one picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models import ResNet50_Weights

from exporter.config import PreprocessingConfig
from exporter.demo import photographs
from exporter.images import normalise, open_images
from exporter.models import ResolvedModel, resolve
from exporter.records import Preprocessing
from exporter.render import draw_text, encode_jpeg, encode_png, heatmap

Picture = NDArray[np.uint8]
GAP, STRIP = 4, 16
SMALL = 64
"""Side of the model's view in a test, in pixels."""


class Photograph(NamedTuple):
    """A photograph as a model sees it.

    Attributes:
        view: uint8 (H, W, 3) RGB.
        inputs: float32 (1, 3, H, W), normalised.
    """

    view: Picture
    inputs: Tensor


def read_photograph(name: str, preprocessing: Preprocessing) -> Photograph:
    """Read one of the bundled photographs the way a run would."""
    images = open_images(str(photographs() / f"{name}.jpg"))
    view = images.load(images.entries[0], preprocessing).view
    return Photograph(view, normalise(torch.from_numpy(view)[None], preprocessing))


def load_model(spec: str, weights: str, *, small: bool, side: int | None = None) -> ResolvedModel:
    """Resolve a model spec; a small one has random weights and takes a small view."""
    size = SMALL if small else side
    shape = PreprocessingConfig() if size is None else PreprocessingConfig(size=size, resize=size)
    return resolve(spec, weights="none" if small else weights, preprocessing=shape)


def prediction(logits: Tensor) -> str:
    """Say what an ImageNet model sees, and how sure it is."""
    index = int(logits.argmax())
    name: str = ResNet50_Weights.DEFAULT.meta["categories"][index]
    return f"{name} {float(logits.flatten().softmax(dim=0)[index]):.2f}"


def described(resolved: ResolvedModel) -> str:
    """Name a model, and say so where its weights are random."""
    # A factory of one's own decides about its weights itself.
    random = resolved.record.weights == "none" and ".py:" not in resolved.record.spec
    return resolved.record.name + (" (random weights)" if random else "")


def assert_same(computed: Tensor, formula: Tensor) -> None:
    """Raise if two maps differ by more than float32 rounds: 1e-4 of their largest value."""
    torch.testing.assert_close(computed, formula, rtol=0, atol=1e-4 * float(formula.abs().max()))


def lay_out(rows: Sequence[Sequence[tuple[str, Picture]]], caption: str = "") -> Picture:
    """Lay titled tiles out in rows, under a caption that says what they are."""
    high = [max(tile.shape[0] for _, tile in row) + STRIP + GAP for row in rows]
    wide = max(sum(tile.shape[1] + GAP for _, tile in row) for row in rows) + GAP
    canvas = np.full((sum(high) + STRIP + GAP, wide, 3), 255, dtype=np.uint8)
    draw_text(canvas, caption, (GAP, 14), size=13, width=wide - 2 * GAP)
    top = STRIP + GAP
    for row, height in zip(rows, high, strict=True):
        left = GAP
        for title, tile in row:
            draw_text(canvas, title, (left, top + 12), size=12, width=tile.shape[1])
            canvas[top + STRIP : top + STRIP + tile.shape[0], left : left + tile.shape[1]] = tile
            left += tile.shape[1] + GAP
        top += height
    return canvas


def channel_grid(features: Tensor, *, across: int, cell: int) -> Picture:
    """Draw the first ``across * across`` channels of (C, h, w), each over its own range."""
    cells = np.full((across * across, cell, cell, 3), 255, dtype=np.uint8)
    for k, channel in enumerate(features[: len(cells)].numpy()):
        own = heatmap(channel, (channel.shape[1], channel.shape[0]), rectify=False)
        side = (cell - 2, cell - 2)
        cells[k, :-2, :-2] = cv2.resize(own, side, interpolation=cv2.INTER_AREA)
    sheet = cells.reshape(across, across, cell, cell, 3).swapaxes(1, 2)
    return sheet.reshape(across * cell, across * cell, 3)


def save(picture: Picture, path: Path) -> Path:
    """Write a picture as a JPEG or PNG, by the name's ending; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((encode_png if path.suffix == ".png" else encode_jpeg)(picture))
    return path


def arguments(
    doc: str | None, *, models: Sequence[str] = (), weights: str = "DEFAULT"
) -> argparse.Namespace:
    """Read an example's command line: --out, and --model and --weights where it takes models."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the picture to")
    parser.add_argument("--weights", default=weights, help=f"default: {weights}")
    parser.add_argument("--model", action="append", help=f"default: {', '.join(models)}")
    given = parser.parse_args()
    given.model = tuple(given.model or models)
    return given
