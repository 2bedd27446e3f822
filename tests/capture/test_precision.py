"""A model that runs in 16 bits takes and gives float32, and so does what is captured inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import (
    Precision,
    capture,
    guest,
    in_full_float32,
    precision_of,
    run_from,
    run_in,
)
from exporter.capture.precision import TYPES
from tests.small import small


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TYPES)
def test_only_the_inside_is_in_16_bits(name: str, images: Tensor) -> None:
    model, inside = small(), []
    model[2].register_forward_hook(lambda _m, _i, output: inside.append(output.dtype))
    with guest(model), run_in(model, Precision(name, 4.0)):
        assert model(images).dtype == torch.float32
        captured = capture(model, images, ["1", "3"], lambda output: output[:, :1])
    assert set(inside) == {TYPES[name]}
    assert captured.activations["3"].dtype == TYPES[name]
    assert {gradient.dtype for gradient in captured.gradients.values()} == {torch.float32}
    assert model(images).dtype == torch.float32
    assert inside[-1] == torch.float32
    assert not precision_of(model).lowered


class Failing(nn.Sequential):
    def forward(self, inputs: Tensor) -> Tensor:
        raise self.failure

    failure: BaseException = ValueError("no")


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt()])
def test_autocast_ends_with_a_forward_that_fails(failure: BaseException, images: Tensor) -> None:
    model = Failing(nn.Conv2d(3, 2, 3))
    model.failure = failure
    with pytest.raises(type(failure)), run_in(model, Precision("bf16")):
        model(images)
    assert not torch.is_autocast_enabled("cpu")
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


class Faint(nn.Module):
    """A deep mean of many: what reaches the first layer is below float16's smallest number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head((self.second(self.first(inputs).relu()) * 1e-3).mean((2, 3)) * 1e-1)


def gradient_at_first(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    with run_in(model, precision):
        return capture(model, images, ["first"], lambda output: output[:, :1]).gradients["first"]


def test_gradients_too_small_for_float16_survive_inside_the_model(images: Tensor) -> None:
    model = Faint()
    exact = gradient_at_first(model, images, Precision())
    assert 0 < exact.abs().max() < torch.finfo(torch.float16).smallest_normal / 100
    lost = gradient_at_first(model, images, Precision("fp16"))
    kept = gradient_at_first(model, images, next(Precision.candidates("fp16")))
    assert (lost - exact).norm() > 0.4 * exact.norm()
    assert (kept - exact).norm() < 0.05 * exact.norm()  # where a ReLU's input is near 0


def test_gradients_at_the_input_and_at_a_replaced_layer_are_unscaled(images: Tensor) -> None:
    model = small()

    def gradients(precision: Precision) -> list[Tensor]:
        start = images.clone().requires_grad_()
        with guest(model), run_in(model, precision):
            activation = capture(model, images, ["1"], lambda _output: images).activations["1"]
            at_layer = activation.float().requires_grad_()
            score: Any = run_from(model, "1", images, at_layer, alone=True)[:, 0].sum()
            return [
                *torch.autograd.grad(model(start)[:, 0].sum(), start),
                *torch.autograd.grad(score, at_layer),
            ]

    for exact, scaled in zip(
        gradients(Precision()), gradients(Precision("fp16", 2.0**10)), strict=True
    ):
        # Of 10 bits, and a few ReLUs whose inputs are near 0; the scale would be a factor of 1024.
        assert (scaled - exact).norm() < 0.15 * exact.norm()


def set_by_name(conv: bool, matmul: bool) -> None:
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = conv, matmul


def set_by_operation(conv: str, every: str) -> None:
    torch.backends.cudnn.conv.fp32_precision, torch.backends.fp32_precision = conv, every


def is_set() -> list[object]:
    backends = torch.backends
    where = (backends, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return [each.fp32_precision for each in where]


@pytest.mark.parametrize(
    ("setting", "first", "second"),
    [
        (set_by_name, True, False),
        (set_by_name, False, True),
        (set_by_name, False, False),
        (set_by_operation, "ieee", "none"),
        (set_by_operation, "tf32", "tf32"),
    ],
)
def test_nothing_is_rounded_to_tf32_meanwhile_and_settings_are_put_back(
    setting: Any, first: object, second: object
) -> None:
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has the settings by name alone")
    original = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        setting(first, second)
        before = is_set()
        with in_full_float32():
            _, *each = is_set()
            assert "tf32" not in each
            # What is not said of an operation is as it is said of all.
            assert torch.backends.fp32_precision != "tf32" or each == ["ieee"] * 3
        assert is_set() == before
    finally:
        set_by_operation("tf32", "none")
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.cudnn.rnn.fp32_precision = "tf32"
        set_by_name(*original)
