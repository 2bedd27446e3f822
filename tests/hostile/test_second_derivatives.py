"""Second derivatives of attention: those of the plain form, and no other thread is switched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import exporter
from exporter.capture import TwiceDifferentiable
from exporter.errors import ExporterError
from tests.hostile.guests import transformer

ATTENTION: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "boolean mask": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()},
    "floating mask": {"attn_mask": torch.linspace(-1, 1, 25).view(5, 5)},
    "scaled": {"scale": 0.3},
    "grouped": {"enable_gqa": True},
}


def twice(attend: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a value, its gradient and the derivative of the squared gradient."""
    start = start.detach().requires_grad_()
    value = attend(start)
    (first,) = torch.autograd.grad(value.square().sum(), start, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), start)
    return value.detach(), first.detach(), second


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_what_torch_gives(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, 5, 3, generator=generator)

    def attend(x: Tensor) -> Tensor:
        other = x[:, :2] * 2 if name == "grouped" else x * 2
        return functional.scaled_dot_product_attention(x, other, other + 1, **ATTENTION[name])

    with sdpa_kernel(SDPBackend.MATH):
        expected = twice(attend, start)
    with TwiceDifferentiable():
        torch.testing.assert_close(twice(attend, start), expected)


@pytest.mark.parametrize("weights", [False, True])
def test_so_is_that_of_modules(weights: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()

    def attend(x: Tensor) -> Tensor:
        output: Tensor = module(x, x, x, need_weights=weights)[0]
        return output

    start = torch.randn(2, 5, 8)
    with sdpa_kernel(SDPBackend.MATH):
        expected = twice(attend, start)
    with TwiceDifferentiable():
        torch.testing.assert_close(twice(attend, start), expected)


def test_what_is_switched_for_the_process_stays_as_it_is() -> None:
    """Two threads leave the blocks of `sdpa_kernel` in another order than they entered them."""
    inside: list[bool] = []

    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside.append(torch.backends.cuda.flash_sdp_enabled())
            return x

    def explain() -> None:
        model = transformer()
        model.encoder.layers.append(Looking())
        layers = ["encoder.layers.encoder_layer_0"]
        exporter.compute_maps(model, torch.rand(2, 3, 16, 16), maps=["shapleycam"], layers=layers)

    before = torch.backends.cuda.flash_sdp_enabled()
    threads = [threading.Thread(target=explain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inside) >= 6
    assert before
    assert all(inside)
    assert torch.backends.cuda.flash_sdp_enabled() == before


class _Plain(torch.autograd.Function):
    """exp, whose gradient can be differentiated in its turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * x.exp()


class OnlyOnce(_Plain):
    """The same, which says that it cannot be."""

    backward = staticmethod(once_differentiable(_Plain.backward))


class ByNumpy(_Plain):
    """The same, computed where autograd does not see it."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * torch.from_numpy(np.exp(x.detach().numpy()))


class ByAttribute(_Plain):
    """The same, decorated, with what it reads kept as an attribute."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x.detach()
        return x.exp()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.x.exp()


class Ending(nn.Module):
    """Convolutions, and a function of the logits or of what is before the head."""

    def __init__(self, function: Any, *, logits: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)
        self.function, self.logits = function, logits

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.convolution(x).tanh().mean((2, 3))
        output: Tensor = self.head(pooled if self.logits else self.function(pooled))
        return self.function(output) if self.logits else output


def shapley(model: nn.Module) -> Tensor:
    given = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = exporter.compute_maps(
        model, given, maps=["shapleycam"], layers=["convolution"], targets=[1, 2], reading="value"
    )
    return maps["shapleycam", "convolution"]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("function", [OnlyOnce, ByNumpy, ByAttribute])
def test_a_function_without_a_second_derivative_is_named(function: Any, logits: bool) -> None:
    """Autograd is silent where such a function is given a constant, and leaves its part out."""
    with pytest.raises(ExporterError, match=f"second derivative.*{function.__name__}"):
        shapley(Ending(function.apply, logits=logits))


@pytest.mark.parametrize("logits", [False, True])
def test_one_with_a_second_derivative_gives_the_plain_map(logits: bool) -> None:
    plain = shapley(Ending(torch.exp, logits=logits))
    torch.testing.assert_close(shapley(Ending(_Plain.apply, logits=logits)), plain)
