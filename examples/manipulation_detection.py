"""Inside a net that finds manipulated regions: edge stages, mask and high-pass kernels.

    python examples/manipulation_detection.py --out runs/examples [--weights FILE.pt]

The net (``two_stream.py``) returns two planes, (edge, mask), where a classifier returns a row of
values. What is explained is the mask before its sigmoid: by the weights of its last convolution
(CAM), and by the gradient of its sum over the region that it predicts (Grad-CAM). There are no
weights to fetch: without ``--weights`` they are random, and the picture shows how the net is looked
into, not what a trained one finds.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from pictures import (
    SMALL,
    Picture,
    arguments,
    assert_same,
    channel_grid,
    lay_out,
    read_photograph,
    save,
)
from torch import Tensor, nn
from two_stream import build

from exporter import compute_maps
from exporter.capture import capture
from exporter.config import PreprocessingConfig
from exporter.layers import collect_kernels
from exporter.models import adopt
from exporter.render import heatmap, kernel_sheet

STAGES = {"edges.c1": (256, 4), "edges.c2": (512, 8)}
STAGES |= {"edges.c3": (1024, 16), "edges.c4": (2048, 16)}
"""Channels and stride; the last stage is dilated, so its stride stays 16."""
GATES = tuple(f"stages.{n}.gate" for n in range(4))
"""The same four stages after their Sobel gates."""
KERNELS = ("constrained.weight", *(f"stages.{n}.refine.0.weight" for n in range(4)))
KERNELS += ("reduce.0.weight", "noise.c1.0.conv2.weight")
"""Seven parameters that hold 3 x 3 kernels, by name."""


TILE = 196


class MaskScore(nn.Module):
    """The net with one value per image: its mask's logits, summed where they say manipulated."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (N, 1) of (N, 3, H, W)."""
        mask = self.net(pictures)[1]
        region = (mask.detach() > 0).to(mask)
        score: Tensor = (mask * region).sum(dim=(1, 2, 3))
        return score.unsqueeze(1)


def main(out: Path, *, small: bool = False, weights: str = "none") -> Path:
    """Write the stages' strongest channels, the mask's maps and the kernels, in one picture."""
    torch.manual_seed(0)
    net = build()
    if weights != "none":
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    side = SMALL if small else 512
    whole = PreprocessingConfig(size=side, resize=side)
    view, inputs = read_photograph(
        "astronaut", adopt(net, preprocessing=whole).record.preprocessing
    )

    # One forward gives the stages of the edge stream, what the mask is made of, and both planes.
    names = [*STAGES, *GATES, "attention", "mask"]
    captured = capture(net, inputs, names, lambda planes: planes, gradients=False)
    for (name, (channels, stride)), gate in zip(STAGES.items(), GATES, strict=True):
        assert captured.activations[name].shape == (1, channels, side // stride, side // stride)
        assert captured.activations[gate].shape == captured.activations[name].shape
    edge, mask = captured.output
    assert edge.shape == mask.shape == (1, 1, side, side)

    # CAM: the mask's own weights on its features. It is the mask before the sigmoid, less a bias.
    parameters = net.state_dict()
    row, bias = parameters["mask.weight"][0, :, 0, 0], parameters["mask.bias"]
    cam = torch.einsum("c,chw->hw", row, captured.activations["attention"][0])
    assert_same(cam, captured.activations["mask"][0, 0] - bias)
    named = ("gradcam", "net.attention")
    gradcam = compute_maps(MaskScore(net), inputs, maps=named[:1], layers=named[1:])[named][0]
    # The region weighs every channel alike, so that here Grad-CAM is CAM but for a factor.
    assert_same(gradcam / gradcam.abs().max(), cam / cam.abs().max())

    kernels = collect_kernels(net, KERNELS)
    assert len(kernels) == 7
    assert all(kernel.values.shape[2:] == (3, 3) for kernel in kernels)
    constrained = parameters["constrained.weight"]
    assert (constrained[:, :, 1, 1] == -1).all()
    torch.testing.assert_close(constrained.sum(dim=(2, 3)), torch.zeros(3, 3))

    shrunk = cv2.resize(view, (TILE, TILE), interpolation=cv2.INTER_AREA)
    planes = [
        ("input", np.asarray(shrunk, dtype=np.uint8)),
        ("edge, before the sigmoid", plane(edge[0, 0])),
        ("mask, after the sigmoid", plane(mask[0, 0].sigmoid())),
        ("CAM of the mask", plane(cam)),
        ("Grad-CAM of the mask", plane(gradcam)),
    ]
    stages = []
    for n, gate in enumerate(GATES, 1):
        features = captured.activations[gate][0]
        order = features.mean(dim=(1, 2)).argsort(descending=True)
        shape = " × ".join(map(str, features.shape))
        tile = channel_grid(features[order], across=4, cell=TILE // 4)
        stages.append((f"c{n} gated: 16 of {shape}", tile))
    sheets = [
        (part.name, kernel_sheet(part.values, limit=4, inputs=6, rgb=False)[0]) for part in kernels
    ]
    trained = "random weights" if weights == "none" else Path(weights).name
    picture = lay_out([planes, stages, sheets[:4], sheets[4:]], f"two streams, {trained}")
    return save(picture, out / "manipulation_detection.jpg")


def plane(values: Tensor, side: int = TILE) -> Picture:
    """Draw one plane over its own range."""
    return heatmap(values.numpy(), (side, side), rectify=False)


if __name__ == "__main__":
    given = arguments(__doc__, weights="none")
    print(main(given.out, weights=given.weights))
