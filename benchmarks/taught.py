"""Networks taught to tell textures apart wherever they lie, where random weights mix all places.

Where every place of a network looks at all others, random weights spread a patch over the whole
plane: what it changes goes with it, and no class's score says where. Trained weights need not. So
such a network learns eight textures of 64 pixels on photographs, at random places, and then its
maps have to follow as any other's (`benchmarks.following`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.fixtures import photographs_at

LESSONS: dict[str, tuple[int, int]] = {"byoanet": (160, 8), "efficientvim": (240, 16)}
"""timm's families that are taught: steps, and images for each."""
CLASSES = 8
_CELL, _GRAIN = 32, 8


def teach(module: nn.Module, side: int, steps: int, images: int) -> float:
    """Train a model in place, and return its accuracy over the last twenty steps.

    Args:
        module: gives at least `CLASSES` logits; it is left in eval mode and frozen.
        side: of its square input, in pixels.
        steps: of AdamW, the rate rising over twenty and falling to zero.
        images: in each.
    """
    generator = torch.Generator().manual_seed(5)
    textures = torch.randn(CLASSES, 3, 8, 8, generator=generator)
    textures = textures.repeat_interleave(_GRAIN, 2).repeat_interleave(_GRAIN, 3)
    photographs = photographs_at(side, side)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
    right: list[float] = []
    module.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        shown, labels = _lesson(images, photographs, textures)
        logits = module(shown)
        optimiser.zero_grad()
        functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        right.append(float((logits.argmax(1) == labels).float().mean()))
    module.eval().requires_grad_(False)
    last = right[-20:]
    return sum(last) / len(last)


def _lesson(
    count: int, photographs: torch.Tensor, textures: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (N, 3, H, W) with a texture each, in whole cells, and which it is."""
    labels = torch.randint(CLASSES, (count,))
    images = photographs[torch.randint(len(photographs), (count,))] * torch.rand(count, 1, 1, 1)
    images = images + torch.randn(count, 3, 1, 1) * 0.5
    side, length = images.shape[-1], textures.shape[-1]
    for image, label in zip(images, labels, strict=True):
        row, column = (
            int(cell) * _CELL for cell in torch.randint((side - length) // _CELL + 1, (2,))
        )
        laid = textures[label] * (0.7 + 0.6 * torch.rand(1)) + torch.randn(3, 1, 1) * 0.3
        image[:, row : row + length, column : column + length] = laid
    return images, labels
