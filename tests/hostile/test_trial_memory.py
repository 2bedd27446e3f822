"""Memory that runs out while planning: said truly, never taken for what the model cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import ModelError
from exporter.guard import is_shortage
from exporter.layers import find_out, run_trial
from tests.hostile.guests import Around, convolutional

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SHORTAGES = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
)


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, raised: Exception) -> Tensor:
        ctx.raised = raised
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise ctx.raised


@pytest.mark.parametrize("raised", SHORTAGES)
@pytest.mark.parametrize("at", ["forward", "backward"])
def test_a_trial_that_does_not_fit_is_not_a_model_without_a_graph(at: str, raised: Any) -> None:
    def change(x: Tensor) -> Any:
        if at == "backward":
            return Backward.apply(x, raised)  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled():
            raise raised
        return x

    with pytest.raises(ModelError, match=f"a trial {at} of Around failed .*free memory") as got:
        run_trial(Around(convolutional(), change), IMAGE)
    assert is_shortage(got.value)


def test_a_step_that_has_no_graph_is_still_run_without_one() -> None:
    model = Around(convolutional(), lambda x: torch.mul(x, 0.5, out=torch.empty_like(x)))
    assert run_trial(model, IMAGE).reached is None


@pytest.mark.parametrize("raised", SHORTAGES)
@pytest.mark.parametrize(("most", "alone"), [(1, None), (2, False), (3, False)])
def test_what_does_not_fit_together_is_tried_with_less(
    raised: Any, most: int, alone: bool | None
) -> None:
    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > most:
                raise raised
            return x - x.mean(0, keepdim=True) / 2

    findings = find_out(run_trial(nn.Sequential(Mixing(), convolutional()), IMAGE))
    assert findings.repeats
    assert findings.alone is alone
    if alone is None:
        assert findings.notes == (
            "whether the model's output for an image depends on the other images in its batch is "
            "not known, as planning could not run several at once: there was not enough memory for "
            "2 images",
        )
    else:
        assert findings.untold == ""
