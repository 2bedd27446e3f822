"""Occlusion: cover one window after the other and watch the target."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exporter.maps.context import PassContext
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method


@method(
    "occlusion",
    title="Occlusion",
    shows="How far the target falls when a window of the image is covered.",
    formula="M(x,y) = mean over the windows W that cover (x,y) of S(I) − S(I with W set to 0),"
    " I the normalised input, so windows have the mean colour",
    paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
    url="https://arxiv.org/abs/1311.2901",
    cost="one forward pass per window (49 at the default size), no backward pass",
    caveats="It sees only what a window of this size can hide, evidence that is there twice is"
    " missed, and a covered image is none that the model was trained on.",
    pixel="sum",
    needs=Needs(
        activations=False,
        passes=Passes(
            forwards="per window",
            of="the image with that window covered",
            least={"window": 0.99, "stride": 0.99},
        ),
    ),
    kind="pass",
)
def occlusion(context: PassContext, window: float = 0.25, stride: float = 0.125) -> Tensor:
    """Return the mean fall of each target over the windows that cover a pixel, (N, T, 1, H, W).

    Windows begin at multiples of the stride, from the top left until one reaches the edge, where
    they are cut. They are set to 0 in normalised space, in all channels. A pixel that no window
    covers, where the stride is larger than the window, is 0. No epsilon. Source: Zeiler and Fergus
    2014, section 4.2.

    Args:
        context: the batch.
        window: side of a window, in pixels, or if below 1 a share of the shorter side.
        stride: pixels, or a share of the shorter side, from one window to the next.
    """
    inputs = context.inputs
    height, width = inputs.shape[-2:]
    windows = window_places(height, width, window, stride)
    wide = torch.promote_types(inputs.dtype, torch.float32)
    whole = context.values(inputs).to(wide)
    falls = whole.new_zeros(*whole.shape, height, width)
    covers = whole.new_zeros(height, width)
    for part in context.portions(len(windows)):
        covered = inputs.unsqueeze(0).repeat(len(windows[part]), 1, 1, 1, 1)
        for variant, (rows, columns) in zip(covered, windows[part], strict=True):
            variant[..., rows, columns] = 0
        scores = torch.split(context.values(covered.flatten(0, 1)), len(inputs))
        for score, (rows, columns) in zip(scores, windows[part], strict=True):
            falls[..., rows, columns] += (whole - score)[..., None, None]
            covers[rows, columns] += 1
    return torch.div(falls, covers.clamp_min(1)).unsqueeze(2)


def window_places(
    height: int, width: int, window: float, stride: float
) -> list[tuple[slice, slice]]:
    """Return the rows and columns of every window."""
    side, step = (_pixels(size, min(height, width)) for size in (window, stride))
    return [
        (slice(top, top + side), slice(left, left + side))
        for top in _starts(height, side, step)
        for left in _starts(width, side, step)
    ]


def _pixels(size: float, side: int) -> int:
    return min(side, max(1, round(size * side if size < 1 else size)))


def _starts(side: int, window: int, stride: int) -> range:
    return range(0, stride * (math.ceil((side - window) / stride) + 1), stride)
