"""Threads that explain at the same time: they take turns, and see nothing of one another."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.capture import guest, lent
from tests.capture.test_guest import assert_same, state
from tests.small import small

MAPS = ["gradcam", "ablationcam", "saliency"]
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Noisy(nn.Module):
    """Draws from every generator, counts in a buffer, and lets others run meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        drawn = torch.rand(()) + float(np.random.rand()) + random.random()
        time.sleep(0.002)  # another thread would draw, freeze, hook and restore in between
        return self.net(x * drawn)


def explained(model: nn.Module) -> dict[tuple[str, str], Tensor]:
    return dict(exporter.compute_maps(model, IMAGES, maps=MAPS, layers=["net.3"]))


def beside(*models: nn.Module) -> list[dict[tuple[str, str], Tensor]]:
    """Explain models in threads that begin at the same time."""
    begin = threading.Barrier(len(models))

    def explain(model: nn.Module) -> dict[tuple[str, str], Tensor]:
        begin.wait(10)
        return explained(model)

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(explain, models))


@pytest.mark.parametrize("models", [1, 2], ids=["one model", "two models"])
def test_threads_take_turns_and_leave_all_as_it_was(models: int) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    several = [Noisy().train() for _ in range(models)] * (3 - models)
    expected = [explained(model) for model in several]
    before = [state(model) for model in several]
    drawn = np.random.get_state()[1].copy(), random.getstate()
    for maps, known in zip(beside(*several), expected, strict=True):
        assert maps.keys() == known.keys()
        assert all(torch.equal(values, known[key]) for key, values in maps.items())
    for model, found in zip(several, before, strict=True):
        assert_same(found, state(model))
    assert np.array_equal(np.random.get_state()[1], drawn[0])
    assert random.getstate() == drawn[1]


def test_a_second_thread_waits_until_the_first_has_left() -> None:
    model, inside, entered = small(), threading.Event(), threading.Event()

    def enter() -> None:
        inside.wait(10)
        with guest(model):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    with guest(model):
        inside.set()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    thread.join()


def test_a_lent_model_is_explained_by_other_threads_and_restored_by_the_last_to_leave() -> None:
    model = small().train()
    with ThreadPoolExecutor(2) as pool, lent(model):
        maps = [
            pool.submit(exporter.compute_maps, model, IMAGES, maps=MAPS, layers=["3"])
            for _ in range(2)
        ]
        first, second = (future.result(30) for future in maps)
        assert all(torch.equal(values, second[key]) for key, values in first.items())
        assert not model.training
    assert model.training


def test_hosts_that_overlap_are_all_hosts() -> None:
    model = small().train()
    first, second = lent(model), lent(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model.training
    assert not model[0].weight.requires_grad
    second.__exit__(None, None, None)
    assert model.training
    assert model[0].weight.requires_grad
