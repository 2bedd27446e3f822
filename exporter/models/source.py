"""A model that can be built, and the random state it is built under."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from exporter.records import Preprocessing

DEFAULT = "DEFAULT"
NONE = "none"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be built.

    Attributes:
        name: short name.
        weights: name of the weights that ``build`` loads.
        build: builds the model: with those weights, or bare where told so and then with another
            number of classes where one is given; bare models take their numbers from the random
            state.
        preprocessing: of a built model.
        classes: class names of a built model that has its usual number of classes, or empty.
        resizable: whether ``build`` takes a number of classes.
        own: whether it is the user's code, so that only the numbers say which model it is.
    """

    name: str
    weights: str
    build: Callable[[bool, int | None], nn.Module]
    preprocessing: Callable[[nn.Module], Preprocessing]
    classes: Callable[[nn.Module], tuple[str, ...]]
    resizable: bool = False
    own: bool = False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
