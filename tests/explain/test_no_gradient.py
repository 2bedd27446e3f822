"""Models whose backward gives nothing, or fails: a sentence, and methods of activations go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import exporter
from exporter.errors import ExporterError
from tests.small import small

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


class GivesNone(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, *_gradients: Any) -> None:
        return None


class Raises(GivesNone):
    @staticmethod
    def backward(_ctx: Any, *_gradients: Any) -> None:
        raise RuntimeError("no rule")


class Between(nn.Module):
    """A function between the layers and the head."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.between = small(), between

    def forward(self, x: Tensor) -> Tensor:
        features = self.net[:4](x)
        return self.net[4:](self.between(features))


def overwritten(x: Tensor) -> Tensor:
    gate = x.sigmoid()
    product = gate.exp()
    gate.sigmoid_()
    return gate * product


def tanh_overwritten(x: Tensor) -> Tensor:
    squashed = x.tanh()
    product = squashed * squashed
    squashed.add_(1)
    return product


def rounded(x: Tensor) -> Tensor:
    return (x * 8).round().to(torch.int8).to(torch.float32)


def without_a_graph(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


def quantised_head() -> nn.Module:
    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if not engines:
        pytest.skip("this build of torch has no quantised operations")
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, engines[-1]
    try:
        return torch.ao.quantization.quantize_dynamic(small().eval(), {nn.Linear})
    finally:
        torch.backends.quantized.engine = before


class Whole(nn.Module):
    """The model in a wrapper that records no graph of it."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.run = small(), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.net, x)


def in_inference(net: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(x)


def reentrant() -> nn.Module:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor) -> Tensor:
            return self.net[4:](checkpoint(self.net[1:4], self.net[0](x), use_reentrant=True))

    return Checkpointed()


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a function that gives None": (lambda: Between(GivesNone.apply), "does not depend on it"),
    "a function whose backward raises": (
        lambda: Between(Raises.apply),
        r"backward pass fails \(RuntimeError: no rule \(tests/explain/test_no_gradient.py, line"
        r" \d+\)\)",
    ),
    "a detached layer": (lambda: Between(Tensor.detach), "detache"),
    "numbers rounded to integers": (lambda: Between(rounded), "carries none|does not depend on it"),
    "a part without a graph": (
        lambda: Between(without_a_graph),
        "carries none|does not depend on it",
    ),
    "a gate overwritten in place": (
        lambda: Between(overwritten),
        "Sigmoid gave or took is overwritten in place",
    ),
    "a tanh overwritten in place": (lambda: Between(tanh_overwritten), "overwritten in place"),
    "a model under no_grad": (lambda: Whole(torch.no_grad()(nn.Module.__call__)), "torch.no_grad"),
    "a model in inference mode": (lambda: Whole(in_inference), "torch.no_grad|inference"),
    "logits that are detached": (lambda: Whole(lambda net, x: net(x).detach()), "detache"),
    "logits through numpy": (
        lambda: Whole(lambda net, x: torch.from_numpy(net(x).detach().numpy() * 2)),
        "detache|torch.no_grad",
    ),
    "a reentrant checkpoint": (reentrant, "use_reentrant=False"),
    "a quantised head": (quantised_head, "quantised and has no gradients"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["gradcam", "saliency", "guidedbackprop", "fullgrad"])
def test_a_method_of_gradients_says_what_is_the_matter(name: str, method: str) -> None:
    build, why = CASES[name]
    with pytest.raises(ExporterError, match=why) as caught:
        exporter.compute_maps(build(), IMAGES, maps=[method])
    assert "\n" not in str(caught.value)


def test_ablation_runs_on_from_a_quantised_layer() -> None:
    before = torch.backends.quantized.engine
    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if not engines:
        pytest.skip("this build of torch has no quantised operations")
    torch.backends.quantized.engine = engines[-1]
    try:
        stub, end = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        model = nn.Sequential(stub, *small(), end).eval()
        model.qconfig = torch.ao.quantization.get_default_qconfig(engines[-1])
        prepared = torch.ao.quantization.prepare(model)
        prepared(IMAGES)
        net = torch.ao.quantization.convert(prepared)
        maps = exporter.compute_maps(
            net, IMAGES, maps=["ablationcam"], layers=["4"], targets=[1, 2]
        )
        seen = net[:5](IMAGES)
        rows, planes = torch.arange(2), seen.dequantize()
        score = net[5:](seen)[rows, [1, 2]]
        expected = torch.zeros_like(planes[:, 0])
        for channel in range(planes.shape[1]):
            without = planes.clone()
            without[:, channel] = 0
            levels = torch.quantize_per_tensor(
                without, seen.q_scale(), seen.q_zero_point(), seen.dtype
            )
            drop = (score - net[5:](levels)[rows, [1, 2]]) / score
            expected += drop[:, None, None] * planes[:, channel]
    finally:
        torch.backends.quantized.engine = before
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps["ablationcam", "4"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_method_of_activations_goes_on(name: str) -> None:
    build, _ = CASES[name]
    maps = exporter.compute_maps(build(), IMAGES, maps=["eigencam"])
    # Layers before what fails are those of the plain model.
    plain = list(exporter.compute_maps(small(), IMAGES, maps=["eigencam"]).values())
    torch.testing.assert_close(next(iter(maps.values())), plain[0])


@pytest.mark.parametrize("name", ["a function that gives None", "a gate overwritten in place"])
def test_a_run_makes_the_maps_that_need_none_and_notes_the_others(
    name: str, tmp_path: Path
) -> None:
    build, why = CASES[name]
    run = exporter.export(
        build(),
        PHOTOS,
        out=tmp_path / "run",
        limit=2,
        maps=("gradcam", "eigencam", "saliency"),
        writers=(),
        preprocessing={"size": 32},
    )
    assert [method.name for method in run.plan.methods] == ["eigencam"]
    assert {each.method for row in run.rows() for each in row.maps} == {"eigencam"}
    notes = " ".join(run.plan.notes)
    assert "net.3: no gradient reaches it" in notes
    assert "saliency at the input: " in notes
    assert torch.tensor([each.error is None for each in run.rows()]).all(), why
