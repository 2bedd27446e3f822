"""What a forward writes is put back, on the CPU as on a device: learnt once, then not looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import guest, state
from tests.explain.test_no_synchronisation import NoWaiting
from tests.small import small

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def trained() -> nn.Module:
    """Return a model whose normalisation trains in eval mode, so that its statistics change."""
    norm = nn.BatchNorm2d(6)
    norm.register_forward_pre_hook(lambda module, _inputs: module.train() and None)
    model = small()
    return nn.Sequential(model[0], norm, *model[1:])


def through_data() -> nn.Module:
    model = small()

    def shrink(module: nn.Module, _inputs: object) -> None:
        module.weight.data.mul_(0.5)

    model[2].register_forward_pre_hook(shrink)
    return model


def without_gradients() -> nn.Module:
    model = small()

    def shrink(module: nn.Module, _inputs: object) -> None:
        with torch.no_grad():
            module.weight.mul_(0.5)

    model[2].register_forward_pre_hook(shrink)
    return model


class Rebinding(nn.Module):
    """Gives a layer other parameters, and itself one more, in every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()

    def forward(self, x: Tensor) -> Tensor:
        self.net[0].weight = nn.Parameter(self.net[0].weight * 0.5)
        self.extra = nn.Parameter(torch.ones(1))
        return self.net(x)


WRITING = [trained, through_data, without_gradients, Rebinding]


@contextmanager
def never_compared() -> Iterator[None]:
    """Fail where values are compared: on a device, that would wait."""

    def compared(*_: object) -> bool:
        raise AssertionError("it waits for the device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "same", compared)
        yield


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


@pytest.mark.parametrize("build", WRITING)
def test_what_is_written_is_put_back_for_every_pass(build: Callable[[], nn.Module]) -> None:
    model = build()
    before = values_of(model)

    def as_found() -> None:
        torch.testing.assert_close(values_of(model), before, rtol=0, atol=0)

    with guest(model):
        with guest(model):  # the first to run it finds out
            first = model(IMAGES)
        as_found()
        with never_compared():
            for _ in range(2):
                with guest(model):
                    assert torch.equal(model(IMAGES), first)
                    assert torch.equal(model(IMAGES), first)
                as_found()
    as_found()


def test_nothing_waits_after_the_first_pass() -> None:
    model = trained().to("meta")
    images = torch.empty(3, 3, 16, 16, device="meta")
    with guest(model), NoWaiting():
        for _ in range(2):
            with guest(model):
                model(images)


def test_a_model_that_writes_nothing_is_written_nothing() -> None:
    model = small()
    score = model(IMAGES).sum()  # with a graph, for which values may not be written
    with guest(model):
        model(IMAGES)
    score.backward()
    assert model[0].weight.grad is not None


def test_copies_lie_on_the_host_where_the_device_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = without_gradients()
    before = values_of(model)

    def full(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Tensor, "clone", full)
    held = state.ModelState(list(model.modules()))
    monkeypatch.undo()
    model(IMAGES)
    held.restore(by_value=False)
    torch.testing.assert_close(values_of(model), before, rtol=0, atol=0)


def test_parameters_that_a_model_left_alone_are_not_copied_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied: list[tuple[int, ...]] = []
    copy = state._copied
    monkeypatch.setattr(state, "_copied", lambda t: (copied.append(tuple(t.shape)), copy(t))[1])
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).eval()
    for _ in range(2):
        with guest(model):
            pass  # nothing ran, so nothing is known
        assert (2, 3, 3, 3) in copied
        copied.clear()
    with guest(model):
        model(IMAGES)
    copied.clear()
    with guest(model):
        model(IMAGES)
    assert copied == [(2,), (2,), ()]


@pytest.mark.parametrize("failure", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_values_are_put_back_where_there_is_no_memory_to_compare_them_together(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(_tensors: object) -> Tensor:
        raise failure

    model = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with guest(model):
        model(IMAGES)
        monkeypatch.setattr(torch, "cat", short)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
