"""Models whose forward does to its buffers what it should not: they are left as they were found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx

import exporter
from exporter.capture import guest
from exporter.errors import ModelError
from exporter.explain import Explainer
from exporter.maps import get_methods
from exporter.targets import Scorer, parse_target
from tests.hostile.guests import convolutional

Forward = Callable[["Holding"], object]


class Holding(nn.Module):
    """Holds three buffers, of which a forward changes the first and the last."""

    first: Tensor
    last: Tensor

    def __init__(self, first: Tensor, change: Forward) -> None:
        super().__init__()
        self.register_buffer("first", first)
        self.net = convolutional()
        self.register_buffer("last", torch.zeros(3))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        self.change(self)
        self.last += 1
        output: Tensor = self.net(x)
        return output


def resized(model: Holding) -> object:
    return model.first.resize_(5).fill_(1)


def given_other_data(model: Holding) -> None:
    model.first.data = torch.ones(2, 2)


def broadcast(model: Holding) -> None:
    model.first.data = torch.ones(4, 3)


def written(model: Holding) -> object:
    return model.first.mul_(2)


def unseen(model: Holding) -> None:
    model.first.data.mul_(2)


def registered(model: Holding) -> None:
    model.register_buffer("extra", torch.ones(2), persistent=False)
    model.net.get_submodule("0").register_buffer("extra", torch.ones(2))


def deleted(model: Holding) -> None:
    if "first" in model._buffers:
        del model.first


def rebound(model: Holding) -> None:
    model.first = torch.ones(7)


def sparse() -> Tensor:
    return torch.eye(3).to_sparse()


def rows() -> Tensor:
    return torch.eye(3).to_sparse_csr()


def dense() -> Tensor:
    return torch.arange(3.0)


CASES = [
    *((dense, change) for change in (resized, given_other_data, broadcast, written, unseen)),
    *((dense, change) for change in (registered, deleted, rebound)),
    *((held, change) for held in (sparse, rows) for change in (written, rebound, registered)),
]


def state(model: nn.Module) -> dict[str, tuple[int, torch.layout, Tensor]]:
    return {
        name: (id(b), b.layout, b.to_dense().clone() if b.layout != torch.strided else b.clone())
        for name, b in model.named_buffers()
    }


def assert_same(before: dict[str, tuple[int, torch.layout, Tensor]], model: nn.Module) -> None:
    after = state(model)
    assert list(before) == list(after)
    for name, (number, layout, values) in before.items():
        assert (number, layout) == after[name][:2], name
        torch.testing.assert_close(values, after[name][2], rtol=0, atol=0, msg=name)
    assert not any("extra" in module._non_persistent_buffers_set for module in model.modules())


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize(("held", "change"), CASES)
def test_buffers_are_left_as_they_were(held: Callable[[], Tensor], change: Forward) -> None:
    model = Holding(held(), change).train()
    before = state(model)
    maps = ["gradcam", "ablationcam", "smoothgrad"]
    exporter.compute_maps(model, torch.rand(2, 3, 16, 16), maps=maps, layers=["net.4"])
    assert_same(before, model)
    assert model.training


def test_a_model_prepared_for_quantisation_is_left_as_it_was() -> None:
    mapping, example = get_default_qat_qconfig_mapping(), torch.rand(2, 3, 16, 16)
    model = prepare_qat_fx(convolutional().train(), mapping, (example,))
    before = state(model)
    exporter.compute_maps(model, example, maps=["gradcam"])
    assert_same(before, model)
    model(example)
    assert state(model).keys() == before.keys()


def test_the_other_buffers_are_put_back_where_one_cannot_be() -> None:
    model = Holding(torch.zeros(1).expand(3), lambda model: None)
    with pytest.raises(ModelError, match="single memory location"), guest(model):
        model.last += 1
        model.first.data = torch.ones(1).expand(3)
    assert torch.equal(model.last, torch.zeros(3))


def test_what_an_inner_guest_finds_written_it_puts_back_to_what_the_outer_found() -> None:
    model = Holding(dense(), written)
    with guest(model):
        model.first.add_(1)
        with guest(model):
            assert torch.equal(model.first, dense())
            model(torch.rand(1, 3, 16, 16))
        assert torch.equal(model.first, dense())
        model.first.data = torch.ones(5)
        with guest(model):
            assert torch.equal(model.first, dense())
    assert torch.equal(model.first, dense())


@pytest.mark.parametrize("within", [False, True])
def test_probabilities_change_neither_buffers_nor_the_random_state(within: bool) -> None:
    def change(model: Holding) -> None:
        model.first.mul_(2)
        torch.rand(1)

    model = Holding(dense(), change).eval()
    target = Scorer(parse_target("predicted", ()), None)
    explainer = Explainer(model, get_methods(["gradcam"]), ["net.4"], target=target)
    images = torch.ones(1, 3, 16, 16)
    before, random = state(model), torch.get_rng_state()
    if within:
        with guest(model):
            explainer.probability(images, 0)
            assert torch.equal(model.first, dense())
            assert torch.equal(random, torch.get_rng_state())
    else:
        explainer.probability(images, 0)
    assert_same(before, model)
    assert torch.equal(random, torch.get_rng_state())
