"""Occlusion: cover one window after the other and watch the target."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exporter.maps.context import PassContext
from exporter.maps.pixels import SIZE
from exporter.maps.registry import Needs, method
from exporter.records import MethodRecord


@method(
    MethodRecord(
        name="occlusion",
        title="Occlusion",
        shows="How far the target falls when a window of the image is covered.",
        formula="M(x,y) = mean over the windows W that cover (x,y) of S(I) − S(I with W set to 0),"
        " I the normalised input, so windows have the mean colour",
        paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
        url="https://arxiv.org/abs/1311.2901",
        cost="a forward a window (49 at the default size), no backward",
        caveats="It sees only what a window of this size can hide, evidence that is there twice is"
        " missed, and a covered image is none that the model was trained on.",
        relu=False,
        pixel=True,
        settings={"window": "0.25", "stride": "0.125", "reduce": "sum", "size": SIZE},
    ),
    needs=Needs(
        activations=False,
        passes="a forward for every window of {window}, {stride} apart (pixels, or below 1 a share"
        " of the shorter side), covered with the mean colour",
    ),
    kind="pass",
)
def occlusion(context: PassContext) -> Tensor:
    """Return the mean fall of each target over the windows that cover a pixel.

    Windows begin at multiples of the stride, from the top left until one reaches the edge, where
    they are cut. They are set to 0 in normalised space, in all channels. A pixel that no window
    covers, where the stride is larger than the window, is 0. No epsilon. Source: Zeiler and Fergus
    2014, section 4.2.

    Args:
        context: the batch; settings ``window`` and ``stride``, in pixels, or shares of the shorter
            side if below 1.

    Returns:
        (N, T, 1, H, W).
    """
    inputs = context.inputs
    height, width = inputs.shape[-2:]
    window, stride = (_pixels(context.number(n), min(height, width)) for n in ("window", "stride"))
    places = [
        (top, left)
        for top in _starts(height, window, stride)
        for left in _starts(width, window, stride)
    ]
    wide = torch.promote_types(inputs.dtype, torch.float32)
    whole = context.values(inputs).to(wide)
    falls = whole.new_zeros(*whole.shape, height, width)
    covers = whole.new_zeros(height, width)
    for part in context.portions(len(places)):
        covered = inputs.unsqueeze(0).repeat(len(places[part]), 1, 1, 1, 1)
        for one, (top, left) in zip(covered, places[part], strict=True):
            one[..., top : top + window, left : left + window] = 0
        left_over = torch.split(context.values(covered.flatten(0, 1)), len(inputs))
        for scores, (top, left) in zip(left_over, places[part], strict=True):
            here = (slice(top, top + window), slice(left, left + window))
            falls[..., *here] += (whole - scores)[..., None, None]
            covers[here] += 1
    return torch.div(falls, covers.clamp_min(1)).unsqueeze(2)


def _pixels(size: float, side: int) -> int:
    return min(side, max(1, round(size * side if size < 1 else size)))


def _starts(side: int, window: int, stride: int) -> range:
    return range(0, stride * (math.ceil((side - window) / stride) + 1), stride)
