"""A share of the training's time, kept by leaving epochs out."""

from __future__ import annotations

import pytest

from exporter.errors import ConfigError
from exporter.training import Budget
from exporter.training.budget import FEWEST


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def explained(share: str | float | None, training: float, cost: float, epochs: int) -> list[int]:
    """Return which epochs are explained where each trains and costs so many seconds."""
    clock = Clock()
    budget, done = Budget(share, clock), []
    for epoch in range(epochs):
        clock.now += training
        if budget.refusal():
            continue
        done.append(epoch)
        with budget.spending():
            clock.now += cost
    return done


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("5 %", [0, 39]),  # at epoch n, 2 times 1 s is 5 % of n + 1 seconds
        ("10%", [0, 19, 29, 39]),
        (0.5, [0, *range(3, 40, 2)]),
        ("100 %", list(range(40))),
        (None, list(range(40))),
    ],
)
def test_the_share_of_the_training_is_kept(share: str | float | None, expected: list[int]) -> None:
    assert explained(share, 1, 1, 40) == expected


def test_epochs_that_cost_less_than_the_share_are_all_explained() -> None:
    assert explained("5 %", 100, 5, 20) == list(range(20))


def test_the_reason_has_the_numbers() -> None:
    clock = Clock()
    budget = Budget("5 %", clock)
    with budget.spending():
        clock.now += 4
    clock.now += 30
    assert budget.refusal() == (
        "explaining one epoch took 4 s and 4 s so far, and 5 % of the 30 s of training is the "
        "budget"
    )


@pytest.mark.parametrize(
    ("share", "training", "cost", "number"),
    [
        ("10 %", 100, 20, 16),  # half of what an epoch costs is there: half of the images
        ("10 %", 100, 10, 32),
        ("10 %", 100, 5, 32),
        ("1 %", 1, 10, FEWEST),
        (None, 1, 10, 32),
    ],
)
def test_so_many_images_fit_every_epoch(
    share: str | None, training: float, cost: float, number: int
) -> None:
    clock = Clock()
    budget = Budget(share, clock)
    clock.now += training
    with budget.spending():
        clock.now += cost
    clock.now += training
    assert budget.fewer(32, 2) == number
    assert budget.last == cost * number / 32


@pytest.mark.parametrize("share", ["5", "five %", "0 %", 0, -0.1, True, "-5 %"])
def test_what_is_no_share_is_one_sentence(share: str | float) -> None:
    with pytest.raises(ConfigError, match="give a share of the training's time such as '5 %'"):
        Budget(share)
