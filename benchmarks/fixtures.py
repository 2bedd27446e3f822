"""Random weights that do not mislead: what tests and coverage use where no weights are bundled.

A freshly initialised model can be unexplainable by accident: a head or a gain that starts at zero
makes every gradient zero, and without statistics BatchNorm lets the activations of a deep model
shrink to nothing, so that its logits differ between images by rounding only. ``prepared`` mends
both on the model it is given, and refuses a model whose logits still do not tell images apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from exporter.demo import photographs
from exporter.images import decode
from exporter.targets import locate_output

IMAGES = ("chelsea", "coffee", "astronaut", "rocket")
"""Bundled photographs that BatchNorm is calibrated on."""
_SPREAD = 1e-3
"""Least spread of the logits between images, relative to their size."""
_GAIN = 0.1
"""What a gain becomes that is no norm's, and zero or all but zero."""
_FAINT = 1e-2
"""Gains up to this let their block pass all but unchanged (LayerScale begins at 1e-6 to 1e-4)."""


@lru_cache(maxsize=4)
def photographs_at(height: int, width: int) -> Tensor:
    """Return bundled photographs as a float32 batch (4, 3, height, width), roughly normalised."""
    read = [decode((photographs() / f"{name}.jpg").read_bytes()) for name in IMAGES]
    fitted = np.stack([cv2.resize(image, (width, height)) for image in read])
    return (torch.from_numpy(fitted).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.25


def prepared(
    module: nn.Module, *, size: tuple[int, int] = (224, 224), seed: int = 0, images: int = 4
) -> nn.Module:
    """Make a model with random weights one whose gradients and logits mean something.

    Weights and gains that are all zero are drawn anew; the statistics of BatchNorm are those of
    bundled photographs. The model is changed in place, put into eval mode and frozen.

    Args:
        module: the model; takes (N, 3, H, W).
        size: (height, width) of the photographs it is shown.
        seed: of what is drawn.
        images: how many photographs, at most 4.

    Returns:
        The same model.

    Raises:
        ValueError: if its logits do not differ between the photographs.
    """
    generator = torch.Generator().manual_seed(seed)
    fill_zeros(module, generator)
    module.eval().requires_grad_(False)
    shown = photographs_at(*size)[:images]
    with torch.no_grad():
        output = calibrate(module, shown)
    logits, _ = locate_output(output, None)
    rows = logits.flatten(1).double()
    spread = rows.std(dim=0).mean()
    scale = rows.abs().mean()
    if not bool(torch.isfinite(rows).all()) or not bool(spread > _SPREAD * scale):
        raise ValueError(
            f"the logits of {type(module).__name__} do not differ between photographs: they spread "
            f"by {float(spread):.2g} around values of {float(scale):.2g}"
        )
    return module


def fill_zeros(module: nn.Module, generator: torch.Generator) -> None:
    """Draw anew every weight that is zero throughout, and raise faint gains; biases are left."""
    norms = {
        id(child.weight)
        for child in module.modules()
        if "norm" in type(child).__name__.lower()
        and isinstance(getattr(child, "weight", None), Tensor)
    }
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.numel() == 0 or "bias" in name.rsplit(".", maxsplit=1)[-1]:
                continue
            least, most = float(parameter.min()), float(parameter.max())
            if least == most and 0 < most <= _FAINT:
                parameter.fill_(_GAIN)
            if bool(parameter.any()):
                continue
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
            elif id(parameter) in norms:
                parameter.fill_(1.0)
            else:
                parameter.fill_(_GAIN)


def without_inplace(module: nn.Module) -> nn.Module:
    """Let no ReLU work in place, as captum's hooks on modules need it; return the same module."""
    for child in module.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False
    return module


def calibrate(module: nn.Module, images: Tensor) -> Any:
    """Set every BatchNorm's statistics to those of a batch, and return the model's output."""
    norms = [
        child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)
    ]
    momentum = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.momentum = True, 1.0
        module(images)
    finally:
        for norm, kept in zip(norms, momentum, strict=True):
            norm.training, norm.momentum = False, kept
    return module(images)
