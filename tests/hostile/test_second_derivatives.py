"""Second derivatives of attention: those of the plain form, and no other thread is switched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import exporter
from exporter.capture import TwiceDifferentiable
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
