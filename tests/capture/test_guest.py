from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from exporter.capture import capture, guest
from exporter.errors import ModelError


class Counting(nn.Module):
    """Writes to its buffers, draws random numbers and overrides train(), as models do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(3))
        self.trained = 0
        self.fail = False

    def train(self, mode: bool = True) -> Counting:
        self.trained += 1
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.replaced = self.replaced + torch.rand(3)
        x = self.drop(self.norm(self.conv(x)))
        if self.fail:
            raise RuntimeError("inside forward")
        return x.mean((2, 3))


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "values": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "buffers": [id(buffer) for buffer in model.buffers()],
        "modes": [module.training for module in model.modules()],
        "free": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [parameter.grad for parameter in model.parameters()],
        "grad values": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "random": torch.get_rng_state(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name in ("buffers", "modes", "free", "hooks", "grad mode"):
        assert before[name] == after[name], name
    assert torch.equal(before["random"], after["random"])
    assert all(one is other for one, other in zip(before["grads"], after["grads"], strict=True))
    torch.testing.assert_close(before["grad values"], after["grad values"], rtol=0, atol=0)
    torch.testing.assert_close(before["values"], after["values"], rtol=0, atol=0)


@pytest.fixture
def used() -> Counting:
    """A model in use: partly training, partly frozen, one gradient, a hook."""
    model = Counting()
    model.train()
    model.norm.eval()
    model.conv.bias.requires_grad_(False)
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model.conv.register_forward_hook(lambda _module, _inputs, output: output * 2)
    model.trained = 0
    return model


@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was(used: Counting, fail: bool, mode: Callable[[], Any]) -> None:
    used.fail = fail
    with mode():
        before = state(used)
        if fail:
            with pytest.raises(RuntimeError, match="inside forward"):
                capture(used, torch.ones(2, 1, 5, 5), ["conv", "norm"], lambda output: output)
        else:
            got = capture(used, torch.ones(2, 1, 5, 5), ["conv", "norm"], lambda output: output)
            assert got.gradients["conv"].abs().sum() > 0
        assert_same(before, state(used))
    assert used.trained == 0


def test_inside_everything_is_in_eval_and_frozen_and_autograd_records(used: Counting) -> None:
    with torch.inference_mode(), guest(used):
        assert not any(module.training for module in used.modules())
        assert not any(parameter.requires_grad for parameter in used.parameters())
        leaf = torch.ones(1, requires_grad=True)
        assert (leaf * 2).requires_grad
        assert not torch.is_inference_mode_enabled()


def test_an_exception_in_a_score_restores_too(used: Counting) -> None:
    def score(_output: Any) -> torch.Tensor:
        raise KeyError("score")

    before = state(used)
    with pytest.raises(KeyError):
        capture(used, torch.ones(2, 1, 5, 5), ["conv"], score)
    assert_same(before, state(used))


def test_guests_nest(used: Counting) -> None:
    before = state(used)
    with guest(used):
        within = state(used)
        capture(used, torch.ones(2, 1, 5, 5), ["conv"], lambda output: output)
        assert_same(within, state(used))
    assert_same(before, state(used))


def test_a_model_that_moves_inside_stays_where_it_moved() -> None:
    model = nn.BatchNorm2d(2)
    with guest(model):
        model.double()
    assert model.weight.dtype == model.running_mean.dtype == torch.float64


def test_inference_parameters_and_lazy_ones_are_refused_and_nothing_is_touched() -> None:
    with torch.inference_mode():
        inference = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(ModelError, match=r"'0\.weight' was made under torch\.inference_mode"):
        capture(inference, torch.ones(1, 1, 2, 2), ["0"], lambda output: output)
    assert inference.training
    lazy = nn.Sequential(nn.LazyConv2d(2, 1))
    with pytest.raises(ModelError, match=r"'0\.weight' has no shape yet"), guest(lazy):
        pass
    assert lazy.training


def test_what_hides_its_layers_is_refused_in_one_sentence() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 1, 1))
    compiled = nn.Sequential(torch.compile(nn.Conv2d(1, 1, 1)))
    spread = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1, device="meta"))
    for model, message in (
        (torch.compile(plain), "the model is compiled"),
        (compiled, "the layer '0' is compiled"),
        (nn.DataParallel(plain), "the model is a DataParallel"),
        (spread, r"several devices \(cpu, meta\)"),
    ):
        with pytest.raises(ModelError, match=message), guest(model):
            pass
        assert model.training


def test_a_module_compiled_in_place_runs_as_written_and_is_compiled_again() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    assert compiled is not None
    got = capture(model, torch.ones(1, 1, 2, 2), ["0"], lambda output: output.mean((2, 3)))
    assert list(got.activations) == ["0"]
    assert model._compiled_call_impl is compiled


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_random_state_of_the_device_is_kept() -> None:
    model = nn.Conv2d(1, 1, 1).cuda()
    before = torch.cuda.get_rng_state()
    with guest(model):
        torch.rand(5, device="cuda")
    assert torch.equal(before, torch.cuda.get_rng_state())
