"""What keeps a model from being explained as others are: quantised and scripted modules."""

from __future__ import annotations

import torch
from torch import nn


def is_quantised(module: nn.Module) -> bool:
    """Say whether a model holds torch's quantised modules, through which no gradient flows."""
    kinds = (type(one).__module__ for one in module.modules())
    return any(kind.startswith("torch.") and "quantized" in kind for kind in kinds)


def is_scripted(module: nn.Module) -> bool:
    """Say whether a module is TorchScript, scripted or traced, which runs no hooks."""
    return isinstance(module, torch.jit.ScriptModule)
