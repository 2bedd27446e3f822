"""What the user's model and its surroundings do to `compute_maps` in Python."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import ModelError
from tests.hostile.guests import Around, convolutional


def missing(_x: Tensor) -> Any:
    return {}["key"]


def leaves(_x: Tensor) -> Any:
    sys.exit(0)


def fails(x: Tensor) -> Any:
    return x @ torch.zeros(3, 3)


def short(_x: Tensor) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def second(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Do it in the second forward only, so that the trial goes well."""
    calls: list[int] = []

    def changing(x: Tensor) -> Any:
        calls.append(1)
        return change(x) if len(calls) > 1 else x

    return changing


@pytest.mark.parametrize("layers", [("auto",), ("net.4",)])
@pytest.mark.parametrize(
    ("change", "cause", "said"),
    [
        (missing, KeyError, "KeyError: 'key'"),
        (leaves, SystemExit, r"sys\.exit\(0\)"),
        (fails, RuntimeError, "RuntimeError: "),
        (short, torch.OutOfMemoryError, "out of memory .*free memory, or ask for fewer layers"),
    ],
)
def test_what_a_forward_raises_is_a_sentence(
    change: Callable[[Tensor], Any], cause: type[BaseException], said: str, layers: tuple[str, ...]
) -> None:
    change = second(change) if layers == ("auto",) else change
    model = Around(convolutional(), change).train()
    with pytest.raises(
        ModelError, match=f"the model failed .*on inputs of 2 × 3 × .*{said}"
    ) as got:
        exporter.compute_maps(model, torch.rand(2, 3, 16, 16), maps=["gradcam"], layers=layers)
    assert isinstance(got.value.__cause__, cause)
    assert "test_python.py, line" in str(got.value)
    assert model.training


def test_ctrl_c_is_an_interrupt() -> None:
    def interrupted(_x: Tensor) -> Any:
        raise KeyboardInterrupt

    model = Around(convolutional(), interrupted)
    with pytest.raises(KeyboardInterrupt):
        exporter.compute_maps(model, torch.rand(1, 3, 16, 16), maps=["gradcam"], layers=["net.4"])


def test_another_generator_of_numpys_is_put_back_without_a_warning() -> None:
    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float(np.random.rand())

    model = nn.Sequential(Drawing(), convolutional())
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        expected = np.random.get_state(legacy=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exporter.compute_maps(model, torch.rand(1, 3, 16, 16), maps=["gradcam"], layers=["1.4"])
        assert np.random.get_state(legacy=False) == expected
    finally:
        np.random.set_bit_generator(before)
