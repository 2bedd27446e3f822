"""A two-stream net that finds manipulated regions, in the manner of MVSS-Net.

After Chen, Dong, Ji, Cao and Li, "Image Manipulation Detection by Multi-View Multi-Scale
Supervision" (ICCV 2021), written afresh. One stream sees the edges of pasted regions: a ResNet-50
whose four stages pass a Sobel gate and are added up, coarse on fine. The other sees the noise: a
constrained high-pass convolution (Bayar and Stamm, 2018) before a ResNet-50 of its own. Dual
attention (Fu et al., CVPR 2019) over positions and over channels joins them into one mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

WIDTHS = (256, 512, 1024, 2048)
"""Channels of c1 … c4, the four stages of a ResNet-50."""


class ConstrainedConv(nn.Module):
    """A convolution whose every kernel has -1 in the middle and a sum of 1 around it.

    It answers nothing on a flat picture but what a neighbourhood cannot predict: noise.

    Attributes:
        weight: the kernels that are used, (O, I, k, k).
    """

    def __init__(self, inputs: int, outputs: int, size: int = 3) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.rand(outputs, inputs, size, size))
        self.constrain()

    @torch.no_grad()
    def constrain(self) -> None:
        """Project the kernels onto the constraint; training does so after each step."""
        middle = self.size // 2
        self.weight[:, :, middle, middle] = 0
        self.weight.div_(self.weight.sum(dim=(2, 3), keepdim=True))
        self.weight[:, :, middle, middle] = -1

    def forward(self, pictures: Tensor) -> Tensor:
        """Filter (N, I, H, W) to (N, O, H, W)."""
        return F.conv2d(pictures, self.weight, padding=self.size // 2)


class SobelGate(nn.Module):
    """Weigh a stage by where its own values change: features times the sigmoid of their slope."""

    horizontal: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        slope = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        self.register_buffer("horizontal", slope.expand(channels, 1, 3, 3).clone())
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Gate (N, C, H, W)."""
        around = F.pad(features, (1, 1, 1, 1), mode="replicate")
        groups = features.shape[1]
        across = F.conv2d(around, self.horizontal, groups=groups)
        down = F.conv2d(around, self.horizontal.transpose(2, 3), groups=groups)
        # The small number keeps the root's gradient finite where nothing changes.
        steepness = (across**2 + down**2 + 1e-6).sqrt()
        gate: Tensor = self.norm(steepness).sigmoid()
        return features * gate


class EdgeStage(nn.Module):
    """One stage of the edge branch: gate, squeeze, add what the coarser stage found, refine."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.gate = SobelGate(channels)
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, features: Tensor, coarser: Tensor | None) -> Tensor:
        """Return the refined features, (N, width, h, w)."""
        own: Tensor = self.squeeze(self.gate(features))
        if coarser is not None:
            own = own + enlarge(coarser, own.shape[2:])
        refined: Tensor = own + self.refine(own)
        return refined


class PositionAttention(nn.Module):
    """Every position attends to every other: softmax of queries and keys, added to the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.share = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, features: Tensor) -> Tensor:
        """Attend within (N, C, h, w)."""
        query, key = self.query(features).flatten(2), self.key(features).flatten(2)
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)
        seen: Tensor = self.value(features).flatten(2) @ attention.transpose(1, 2)
        return features + self.share * seen.reshape(features.shape)


class ChannelAttention(nn.Module):
    """Every channel attends to every other, by how alike they are over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, features: Tensor) -> Tensor:
        """Attend within (N, C, h, w)."""
        flat = features.flatten(2)
        attention = F.normalize(flat, dim=2) @ F.normalize(flat, dim=2).transpose(1, 2)
        return features + self.share * (attention.softmax(dim=2) @ flat).reshape(features.shape)


class DualAttention(nn.Module):
    """Attention over positions and attention over channels, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position, self.channel = PositionAttention(channels), ChannelAttention()

    def forward(self, features: Tensor) -> Tensor:
        """Attend within (N, C, h, w)."""
        joined: Tensor = self.position(features) + self.channel(features)
        return joined


class Stages(nn.Module):
    """ResNet-50 without its head; the last stage is dilated, so that c4 is as large as c3."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet50(weights=None, replace_stride_with_dilation=[False, False, True])
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.c1, self.c2, self.c3, self.c4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return c1 … c4 of (N, 3, H, W): strides 4, 8, 16 and 16."""
        c1 = self.c1(self.stem(pictures))
        c2 = self.c2(c1)
        c3 = self.c3(c2)
        return c1, c2, c3, self.c4(c3)


class TwoStream(nn.Module):
    """The whole net: (N, 3, H, W) to (edge, mask), both (N, 1, H, W) logits before the sigmoid."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.constrained = ConstrainedConv(3, 3)
        self.edges = Stages()
        self.noise = Stages()
        self.stages = nn.ModuleList(EdgeStage(channels) for channels in WIDTHS)
        self.edge = nn.Conv2d(32, 1, 1)
        self.reduce = nn.Sequential(
            nn.Conv2d(2 * WIDTHS[-1], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.attention = DualAttention(width)
        self.mask = nn.Conv2d(width, 1, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the edges and of the mask."""
        features = self.edges(pictures)
        refined = None
        for stage, own in zip(reversed(self.stages), reversed(features), strict=True):
            refined = stage(own, refined)
        edge = self.edge(refined)
        noise = self.noise(self.constrained(pictures))[-1]
        mask = self.mask(self.attention(self.reduce(torch.cat([features[-1], noise], dim=1))))
        return enlarge(edge, pictures.shape[2:]), enlarge(mask, pictures.shape[2:])


def enlarge(plane: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate (N, C, h, w) to a size, bilinearly."""
    return F.interpolate(plane, tuple(size), mode="bilinear", align_corners=False)


def build() -> TwoStream:
    """Build the net with random weights: ``--model examples/two_stream.py:build``."""
    return TwoStream().eval()
