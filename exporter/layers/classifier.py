"""The linear head that the original CAM reads, and whether it fits a layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.trial import run_trial
from exporter.errors import MapError
from exporter.layers.layout import layout_of
from exporter.layers.names import split_suffix
from exporter.targets.outputs import locate_output


def find_classifier(
    module: nn.Module, layer: str, example: Tensor, *, output: str | None = None
) -> Tensor:
    """Find the weights that turn a layer's spatial means into the logits.

    CAM (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, eq. 1)
    holds only where logits = W · mean over rows and columns of the layer's output + b. That is
    checked on the numbers of a trial forward, not guessed from names.

    Args:
        module: the model.
        layer: name of the layer.
        example: (N, C, H, W) on the model's device; an image that is not constant.
        output: path of the logits inside the model's output, as for ``locate_output``.

    Returns:
        (K, C): a row a class, detached, on the model's device.

    Raises:
        MapError: if the layer's means and a linear layer do not give the logits.
    """
    name, suffix = split_suffix(layer)
    seen: list[Tensor] = []
    heads: list[tuple[str, nn.Module]] = []

    def watch(call: str, child: nn.Module, _inputs: tuple[Any, ...], given: Any) -> None:
        if call.split("#", maxsplit=1)[0] == name and layer.startswith(call):
            part = given if "[" not in suffix else _part(given, suffix[suffix.index("[") :])
            if isinstance(part, Tensor):
                seen.append(part.clone())  # an in-place operation may follow
        if seen and isinstance(child, (nn.Linear, nn.Conv2d)):
            heads.append((call, child))

    trial = run_trial(module, example, watch)
    logits, _ = locate_output(trial.output, output)
    if not seen:
        raise MapError(f"cam does not fit {layer!r}: the layer gives no tensor; use gradcam")
    activation = seen[-1]
    layout = layout_of(tuple(activation.shape), trial.size)
    if layout is None or layout.kind == "tokens" or logits.dim() != 2:
        raise MapError(
            f"cam does not fit {layer!r}: it needs a layer with rows and columns, pooled into one "
            "linear layer; use gradcam, which needs neither"
        )
    means = layout.spatial(activation).mean(dim=(2, 3))
    fitting = [
        (head, weight)
        for head, child in heads
        if (weight := _matrix(child)) is not None
        and weight.shape == (logits.shape[1], means.shape[1])
    ]
    if not fitting:
        raise MapError(
            f"cam does not fit {layer!r}: no linear layer goes from its {means.shape[1]} channel "
            f"means to the {logits.shape[1]} logits; use gradcam, which needs no such head"
        )
    bias_of = {head: getattr(child, "bias", None) for head, child in heads}
    for head, weight in reversed(fitting):
        if _gives(means, weight, bias_of[head], logits):
            return weight.detach().clone()
    raise MapError(
        f"cam does not fit {layer!r}: its channel means through {fitting[-1][0]!r} are not the "
        "logits, so something lies between them (a ReLU, a norm); use gradcam, which allows it"
    )


def _matrix(head: nn.Module) -> Tensor | None:
    """Return the head's weights as (K, C), or None where it is not a plain linear map."""
    weight = head.weight
    if not isinstance(weight, Tensor):
        return None
    if isinstance(head, nn.Conv2d):
        plain = head.kernel_size == (1, 1) and head.groups == 1
        return weight[:, :, 0, 0] if plain else None
    return weight


def _gives(means: Tensor, weight: Tensor, bias: Tensor | None, logits: Tensor) -> bool:
    """Say whether means · weightᵀ + bias is the logits, to the rounding of their type."""
    rounding = 1e3 * torch.finfo(logits.dtype).eps
    last_place = 4 * torch.finfo(logits.dtype).eps * logits.double().abs().max()
    means, weight, explained = means.double(), weight.double(), logits.double()
    if bias is not None:
        explained = explained - bias.double()
    error = (means @ weight.T - explained).abs().max()
    # Sums of large terms that cancel are rounded by the terms' size, not by the sum's.
    terms = (means.abs() @ weight.abs().T).max()
    return bool(error <= rounding * (explained.abs().max() + 1e-2 * terms) + last_place)


def _part(value: Any, suffix: str) -> Any:
    for key in suffix.strip("[]").split("]["):
        value = value[key] if isinstance(value, dict) else value[int(key)]
    return value
