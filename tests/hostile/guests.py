"""Models that do what models should not, built in many ways, and what each should be equal to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

Change = Callable[[Tensor], Tensor]


def convolutional() -> nn.Module:
    """Return a classifier of three classes for inputs of 16 × 16."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


def transformer() -> nn.Module:
    """Return a vision transformer of three classes for inputs of 16 × 16."""
    torch.manual_seed(0)
    model = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3)
    nn.init.normal_(model.heads[-1].weight)
    return model.eval()


class Around(nn.Module):
    """A model that changes its input, however, ahead of another model."""

    def __init__(self, net: nn.Module, change: Change) -> None:
        super().__init__()
        self.net = net
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.change(x))


def pure(net: nn.Module) -> nn.Module:
    """Return the form that all ways of writing into the input are equal to."""
    return Around(net, lambda x: x * 0.5)


def in_place(net: nn.Module) -> nn.Module:
    return Around(net, lambda x: x.mul_(0.5))


def in_two_steps(net: nn.Module) -> nn.Module:
    return Around(net, lambda x: x.mul_(2).div_(4))


def by_item(net: nn.Module) -> nn.Module:
    def change(x: Tensor) -> Tensor:
        x[...] = x * 0.5
        return x

    return Around(net, change)


def through_a_view(net: nn.Module) -> nn.Module:
    def change(x: Tensor) -> Tensor:
        x.view(len(x), -1).mul_(0.5)
        return x

    return Around(net, change)


def channel_by_channel(net: nn.Module) -> nn.Module:
    def change(x: Tensor) -> Tensor:
        for channel in range(x.shape[1]):
            x[:, channel].mul_(0.5)
        return x

    return Around(net, change)


def by_copying(net: nn.Module) -> nn.Module:
    return Around(net, lambda x: x.copy_(x * 0.5))


def with_a_hook(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)
    model.register_forward_pre_hook(lambda _module, inputs: (inputs[0].mul_(0.5),))
    return model


def with_a_hook_that_returns_nothing(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)

    def halve(_module: nn.Module, inputs: Any) -> None:
        inputs[0].mul_(0.5)

    model[0].register_forward_pre_hook(halve)
    return model


def in_a_closure(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)
    original = model.forward
    model.forward = lambda x: original(x.mul_(0.5))  # type: ignore[method-assign, assignment]
    return model


def in_a_partial(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net)

    def scaled(original: Change, x: Tensor, *, factor: float) -> Tensor:
        return original(x.mul_(factor))

    model.forward = functools.partial(scaled, model.forward, factor=0.5)  # type: ignore[assignment]
    return model


LAST: list[Tensor] = []


def later(net: nn.Module) -> nn.Module:
    """Write into the input of the call before, which others may still be using."""

    def change(x: Tensor) -> Tensor:
        for held in LAST:
            held.detach().zero_()
        LAST[:] = [x.detach()]
        return x * 0.5

    return Around(net, change)


def by_an_argument(net: nn.Module) -> nn.Module:
    return Around(net, lambda x: torch.mul(x, 0.5, out=x))


def without_gradients(net: nn.Module) -> nn.Module:
    def change(x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.mul_(0.5)

    return Around(net, change)


def through_data(net: nn.Module) -> nn.Module:
    def change(x: Tensor) -> Tensor:
        x.data.mul_(0.5)
        return x

    return Around(net, change)


def through_numpy(net: nn.Module) -> nn.Module:
    def change(x: Tensor) -> Tensor:
        x.detach().numpy()[:] *= 0.5
        return x

    return Around(net, change)


SEEN = (
    in_place,
    in_two_steps,
    by_item,
    through_a_view,
    channel_by_channel,
    by_copying,
    with_a_hook,
    with_a_hook_that_returns_nothing,
    in_a_closure,
    in_a_partial,
    later,
)
"""Ways of writing into the input that autograd sees."""

UNSEEN = (by_an_argument, without_gradients, through_data, through_numpy)
"""Ways that it refuses, or does not see: gradients at the input are then not those of the image."""
