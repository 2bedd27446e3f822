"""Memory that runs out in `compute_maps`: fewer images at a time, else one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import ModelError
from tests.small import small

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
TARGETS = [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]]


class Short(nn.Module):
    """Has room for so many images, in a forward or in a backward, after the first few calls."""

    def __init__(self, most: int, *, backward: bool = False, of_batch: bool = False) -> None:
        super().__init__()
        self.most, self.backward, self.of_batch = most, backward, of_batch

    def need(self, x: Tensor) -> None:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def forward(self, x: Tensor) -> Tensor:
        if self.of_batch:
            x = x - x.mean(0)
        if not self.backward:
            self.need(x)
        return _Needing.apply(x, self)  # type: ignore[no-untyped-call, no-any-return]


class _Needing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, owner: Short) -> Tensor:
        ctx.owner = owner
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if ctx.owner.backward:
            ctx.owner.need(gradients[0])
        return gradients[0], None


def model(most: int, at: int = 2, **how: bool) -> nn.Module:
    """Return a model whose memory is short at one of its layers."""
    plain = small()
    return nn.Sequential(*plain[:at], Short(most, **how), *plain[at:]).eval()


STAGES = {
    "forward": ("gradcam", {}),
    "backward": ("gradcam", {"backward": True}),
    "reruns": ("ablationcam:channels=4", {}),
    "backwards of reruns": ("finercam", {"backward": True}),
    "masks": ("scorecam:channels=4", {}),
    "windows": ("occlusion", {}),
    "samples": ("smoothgrad:samples=4", {"backward": True}),
    "input": ("saliency", {"backward": True}),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("given", ["classes of its own", "predicted"])
def test_fewer_images_at_a_time_give_the_same_maps(stage: str, given: str) -> None:
    name, how = STAGES[stage]
    targets = TARGETS if given == "classes of its own" else None
    plain, short = (
        exporter.compute_maps(
            model(most, **how), IMAGES, maps=[name], layers=["1"], targets=targets, rectify=True
        )
        for most in (10**6, 2)
    )
    assert plain.keys() == short.keys()
    for key, values in plain.items():
        torch.testing.assert_close(short[key], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_what_does_not_fit_alone_is_one_sentence(stage: str) -> None:
    name, how = STAGES[stage]
    with pytest.raises(
        ModelError,
        match=r"^the model failed( in its layer '2')? on inputs of 5 × 3 × 16 × 16: "
        r"OutOfMemoryError: .*; not even one image fits into the memory of 'cpu': free memory, "
        r"or ask for fewer layers, maps or targets at a time$",
    ) as raised:
        exporter.compute_maps(model(0, **how), IMAGES, maps=[name], layers=["1"])
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)


def test_where_the_batch_matters_it_is_not_cut_and_the_number_that_fits_is_said() -> None:
    with pytest.raises(
        ModelError,
        match=r"^inputs of 5 × 3 × 16 × 16 do not fit .* others in its batch, .* at most 2 at a",
    ):
        exporter.compute_maps(model(3, of_batch=True), IMAGES, layers=["1"])


def test_a_run_says_the_batch_size_to_try_where_the_batch_matters(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"they do not fit .* a lower batch_size=, such as 2, and overwrite=True$",
    ):
        exporter.export(
            model(3, of_batch=True),
            Path(__file__).parent.parent.parent / "examples" / "photos",
            out=tmp_path / "run",
            batch_size=4,
            limit=4,
            layers=("1",),
            writers=(),
            preprocessing={"size": 16},
        )
