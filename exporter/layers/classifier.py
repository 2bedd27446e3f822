"""The linear head that the original CAM reads, and whether it fits a layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from exporter.capture import named_layers, parse_name
from exporter.errors import MapError
from exporter.layers.trial import Trial
from exporter.targets import locate_output


class Classifier(NamedTuple):
    """The linear layer behind a layer's spatial means, detached, on the model's device.

    Attributes:
        weight: (K, C), a row for each class.
        bias: (K,), or None.
    """

    weight: Tensor
    bias: Tensor | None


class ClassifierError(MapError):
    """No linear layer gives the logits from a layer's spatial means.

    Attributes:
        why: the reason by itself, without the method and the advice.
    """

    def __init__(self, layer: str, why: str, other: str) -> None:
        super().__init__(f"cam does not fit {layer!r}: {why}; use gradcam, which {other}")
        self.why = why


def find_classifier(trial: Trial, layer: str) -> Classifier:
    """Find the weights that turn a layer's spatial means into the logits.

    CAM (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, eq. 1)
    holds only where logits = W · mean over rows and columns of the layer's output + b. That is
    checked on the numbers of a trial forward of an image that is not constant.

    Returns:
        The linear layer.

    Raises:
        ClassifierError: if the layer's means and a linear layer do not give the logits.
    """
    plane = trial.planes.get(str(parse_name(layer, named_layers(trial.module))))
    logits, _ = locate_output(trial.output, trial.path)
    if plane is None or plane.means is None or logits.dim() != 2:
        why = "it needs a layer with rows and columns, pooled into one linear layer"
        raise ClassifierError(layer, why, "needs neither")
    means = plane.means
    heads = [
        (call.name, *linear)
        for call in trial.calls[plane.position :]
        if (linear := _linear(call.module)) is not None
        and linear[0].shape == (logits.shape[1], means.shape[1])
    ]
    if not heads:
        ends = f"its {means.shape[1]} channel means to the {logits.shape[1]} logits"
        raise ClassifierError(layer, f"no linear layer goes from {ends}", "needs no such head")
    for _, weight, bias in reversed(heads):
        if _gives(means, weight, bias, logits):
            # Not copies: they are the model's, also where its parameters are randomised.
            return Classifier(weight.detach(), None if bias is None else bias.detach())
    why = (
        f"its channel means through {heads[-1][0]!r} are not the logits, so something lies between "
        "them (a ReLU, a norm)"
    )
    raise ClassifierError(layer, why, "allows it")


def _linear(head: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Return a head's weights (K, C) and bias, or None where it is not a plain linear map."""
    if isinstance(head, nn.Conv2d):
        plain = head.kernel_size == (1, 1) and head.groups == 1
        return (head.weight[:, :, 0, 0], head.bias) if plain else None
    # A quantised layer's weight is a method.
    if isinstance(head, nn.Linear) and isinstance(head.weight, Tensor):
        return head.weight, head.bias
    return None


def _gives(means: Tensor, weight: Tensor, bias: Tensor | None, logits: Tensor) -> bool:
    """Say whether means · weightᵀ + bias is the logits, to the rounding of their type."""
    rounding = 1e3 * torch.finfo(logits.dtype).eps
    # On the host: not every device has float64.
    means, weight, explained = (each.cpu().double() for each in (means, weight, logits))
    last_place = 4 * torch.finfo(logits.dtype).eps * explained.abs().max()
    if bias is not None:
        explained = explained - bias.cpu().double()
    error = (means @ weight.T - explained).abs().max()
    # Sums of large terms that cancel are rounded by the terms' size, not by the sum's.
    terms = (means.abs() @ weight.abs().T).max()
    return bool(error <= rounding * (explained.abs().max() + 1e-2 * terms) + last_place)
