"""A compiled pass gives what the plain one gives, from one graph, and leaves the model alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import CompiledCapture, Precision, capture, compiled, guest, run_in
from exporter.errors import LayerError
from tests.small import small

pytestmark = pytest.mark.slow  # importing the compiler takes as long as all of this
LAYERS = ["0", "1", "3"]
"""The ReLUs write into what the convolutions return."""


@pytest.fixture(autouse=True)
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def in_place() -> nn.Sequential:
    model = small()
    model[1], model[3] = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    return model.to(memory_format=torch.channels_last)


def images(count: int) -> Tensor:
    batch = torch.rand(count, 3, 24, 24, generator=torch.Generator().manual_seed(count))
    return batch.contiguous(memory_format=torch.channels_last)


def first_two(output: Tensor) -> Tensor:
    return output[:, :2]


def both(model: nn.Module, quick: CompiledCapture, batch: Tensor, gradients: Any = True) -> None:
    expected = capture(model, batch, LAYERS, first_two, gradients=gradients)
    given = quick(model, batch, LAYERS, first_two, gradients=gradients)
    assert given.asked == expected.asked
    assert given.missing == expected.missing
    torch.testing.assert_close(given.output, expected.output)
    for part in ("activations", "gradients"):
        left, right = getattr(given, part), getattr(expected, part)
        assert list(left) == list(right)
        for name, values in right.items():
            torch.testing.assert_close(left[name], values)


def test_every_batch_runs_one_graph_the_short_ones_too() -> None:
    model, quick = in_place(), CompiledCapture(4)
    with guest(model):
        for count in (4, 4, 3, 1, 4):
            both(model, quick, images(count))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_only_what_is_asked_for_has_a_gradient() -> None:
    model = in_place()
    both(model, CompiledCapture(2), images(2), ["3"])
    both(model, CompiledCapture(2), images(2), False)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_compiled_pass_runs_in_the_models_format(precision: str) -> None:
    model, quick = small(), CompiledCapture(2)
    exact = capture(model, images(2), LAYERS, first_two)
    with run_in(model, Precision(precision, 2.0**6)):
        lowered = quick(model, images(2), LAYERS, first_two)
    assert (
        lowered.activations["3"].dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    )
    for name, gradient in exact.gradients.items():
        assert lowered.gradients[name].dtype == torch.float32
        assert (lowered.gradients[name] - gradient).norm() < 0.2 * gradient.norm()


def test_the_model_is_left_as_it_was_with_a_forward_of_its_own_too() -> None:
    model = small()
    own = model[1].forward

    def wrapped(values: Tensor) -> Any:
        return own(values)

    model[1].forward = wrapped  # as libraries do that move weights about
    CompiledCapture(2)(model, images(2), LAYERS, first_two)
    assert vars(model[1])["forward"] is wrapped
    assert not any("forward" in vars(model[n]) for n in (0, 2, 3))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


class Branching(nn.Sequential):
    def forward(self, inputs: Tensor) -> Any:
        chosen = inputs if inputs.sum() > 0 else -inputs
        return super().forward(chosen)  # type: ignore[no-untyped-call]


def test_what_cannot_be_one_graph_is_an_error_and_leaves_the_model_alone() -> None:
    model = Branching(*small())
    with pytest.raises(torch._dynamo.exc.Unsupported):
        CompiledCapture(2)(model, images(2), ["1"], first_two)
    assert "forward" not in vars(model[1])


def test_layers_that_are_called_twice_or_give_several_tensors_are_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 3, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Any:
            return self.head(self.one(self.one(inputs)).mean((2, 3)))

    with pytest.raises(LayerError, match="'one' gives several tensors, none, or is called more"):
        CompiledCapture(2)(Twice(), images(2), ["one"], first_two)


def test_where_memory_runs_out_the_pass_is_a_plain_one_from_there_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, quick = small(), CompiledCapture(4)
    both(model, quick, images(4))

    def short(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(quick, "_run", short)
    with pytest.raises(torch.OutOfMemoryError):
        quick(model, images(4), LAYERS, first_two)
    both(model, quick, images(2))
