"""Whose random numbers a model can draw: torch's, NumPy's and Python's, of the whole process."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

_SETTERS: dict[str, Callable[[Any], Any]] = {
    "torch": torch.set_rng_state,
    "NumPy": np.random.set_state,
    "Python": random.setstate,
}


def random_states(cuda_devices: Sequence[int]) -> dict[str, Any]:
    """Return the random states by whose they are, such as ``torch`` or ``torch on cuda:0``."""
    on_cuda = {f"torch on cuda:{d}": torch.cuda.get_rng_state(d) for d in cuda_devices}
    others = {"NumPy": np.random.get_state(legacy=False), "Python": random.getstate()}
    return {"torch": torch.get_rng_state(), **on_cuda, **others}


def restore_random(states: dict[str, Any]) -> None:
    """Put random states back."""
    for name, state in states.items():
        on_cuda = partial(torch.cuda.set_rng_state, device=name.rpartition(" on ")[2])
        _SETTERS.get(name, on_cuda)(state)


def differ(state: Any, other: Any) -> bool:
    """Say whether two states of the same kind differ."""
    if isinstance(state, torch.Tensor):
        state, other = state.numpy(), other.numpy()
    return pickle.dumps(state) != pickle.dumps(other)
