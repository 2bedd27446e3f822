"""Models that cannot be looked into: refused, or taken out of what they are wrapped in."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from exporter.errors import ModelError, kind_of

_REPLICATED = ("DataParallel", "DistributedDataParallel")
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")
"""What wraps a model to train it, by name: the distributed part of torch may be missing."""


def refuse_unfit(model: nn.Module) -> None:
    """Refuse a model whose modules cannot be seen at work, or that is not ready.

    Raises:
        ModelError: if a module is TorchScript, compiled, a `torch.nn.DataParallel` or one of
            DistributedDataParallel or FSDP, if a parameter has no shape yet or was made under
            ``torch.inference_mode()``, or if the parameters lie on several devices or are cut.
    """
    devices: dict[torch.device, None] = {}
    for name, module in model.named_modules():
        which = f"the layer {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"{which} is TorchScript (scripted or traced), which runs no hooks, so nothing in"
                " it can be seen; hand over the module it was made from"
            )
        if "_orig_mod" in module._modules:
            raise ModelError(
                f"{which} is compiled (torch.compile), which leaves out hooks, so nothing in it "
                "can be seen; hand over the module it was made from"
            )
        wrapped = _wrapper(module)
        if wrapped in _SHARDED:
            raise ModelError(
                f"{which} is sharded (FSDP): each process holds a part of its parameters, and a "
                "forward waits for the others; gather its state and load it into the model without "
                "FSDP"
            )
        if wrapped:
            raise ModelError(
                f"{which} is a {wrapped}, whose copies each see a part of the images; hand over "
                "its .module"
            )
        own = (module._parameters, module._buffers)
        for key, tensor in ((key, t) for held in own for key, t in held.items() if t is not None):
            if nn.parameter.is_lazy(tensor):
                called = f"{name}.{key}" if name else key
                raise ModelError(
                    f"{called!r} has no shape yet (a lazy layer); run the model once before"
                )
            if tensor.is_inference():
                called = f"{name}.{key}" if name else key
                raise ModelError(
                    f"{called!r} was made under torch.inference_mode() and cannot carry gradients;"
                    " build or load the model outside of it"
                )
            if hasattr(tensor, "placements"):
                called = f"{name}.{key}" if name else key
                raise ModelError(
                    f"{called!r} is a DTensor, of which each process holds a part; gather it with "
                    ".full_tensor() and load it into a model of whole tensors"
                )
        devices |= {p.device: None for p in module._parameters.values() if p is not None}
    if len(devices) > 1:
        named = ", ".join(sorted(map(str, devices)))
        raise ModelError(
            f"the parameters lie on several devices ({named}), and a model is "
            "explained on one; load it without device_map, or move it with model.to(…)"
        )


def _wrapper(module: nn.Module) -> str:
    """Return what a module is a wrapper of, or ``""``; of a subclass the name of torch's class."""
    known = (*_REPLICATED, *_SHARDED)
    return next(
        (
            kind.__name__
            for kind in type(module).__mro__
            if kind.__name__ in known and kind.__module__.startswith("torch.")
        ),
        "",
    )


def unwrapped(model: Any) -> nn.Module:
    """Return the module inside a compiled model, a replicated one, or an average of weights.

    Raises:
        ModelError: if it is no module at all; it says where one is inside.
    """
    if not isinstance(model, nn.Module):
        # A pipeline of transformers, a learner of fastai, a trainer.
        within = isinstance(getattr(model, "model", None), nn.Module)
        held = ", which its attribute 'model' is" if within else ""
        raise ModelError(f"the model is {kind_of(model)}; give a torch.nn.Module{held}")
    # timm's averages: ModelEma, ModelEmaV2, ModelEmaV3.
    averaged = isinstance(model, AveragedModel) or type(model).__name__.startswith("ModelEma")
    wrapper = "module" if averaged or _wrapper(model) in _REPLICATED else "_orig_mod"
    inside = dict(model.named_children()).get(wrapper)
    return model if inside is None else unwrapped(inside)
