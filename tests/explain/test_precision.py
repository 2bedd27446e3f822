"""Every method in 16 bits gives the map of float32, in float32, to what the format can hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import exporter
from exporter.errors import ConfigError, ExporterError
from exporter.maps import METHODS
from exporter.models import placement
from tests.small import small

TOLERANCES = {"bf16": 2e-2, "fp16": 5e-3}
"""Mean difference in shares of the range; bfloat16 has 8 bits, float16 has 11."""
ROUGH = {"occlusion": 6e-2, "ablationcam": 8e-2}
"""Differences of two outputs that are nearly the same."""


@pytest.fixture(autouse=True)
def by_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in formats that this processor has no instructions for, too."""
    monkeypatch.setattr(placement, "has_format", lambda *_: True)


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 3, 4, 24, 48, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", [n if n == "gradcam" else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]
)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_every_method_gives_the_maps_of_float32(
    name: str, precision: str, transformer: nn.Module
) -> None:
    compared = 0
    for model, layers in ((small(), ["1", "3"]), (transformer, ["encoder.layers.*_1"])):
        if name == "hirescam" and model is transformer:
            continue  # rounding alone, before the last layer normalisation
        wanted = {"maps": [name], "layers": layers, "targets": [1, 1, 2]}
        try:
            exact = exporter.compute_maps(model, images(), **wanted)
        except ExporterError:
            continue  # attention needs a transformer, cam a pooled plane
        lowered = exporter.compute_maps(model, images(), precision=precision, **wanted)
        assert lowered.keys() == exact.keys()
        for key, maps in exact.items():
            assert lowered[key].dtype == torch.float32
            allowed = max(TOLERANCES[precision], ROUGH.get(name, 0))
            spread = float(maps.max() - maps.min())
            assert float((lowered[key] - maps).abs().mean()) <= allowed * spread
            assert name == "refinecam" or float((lowered[key] - maps).abs().max()) > 0
        compared += 1
    assert compared


def test_gradients_that_overflow_are_scaled_less() -> None:
    steep = small()
    with torch.no_grad():
        steep[6].weight *= 1000
    exact = exporter.compute_maps(steep, images(), maps=["gradcam"], layers=["1"], targets=[1] * 3)
    lowered = exporter.compute_maps(
        steep, images(), maps=["gradcam"], layers=["1"], targets=[1] * 3, precision="fp16"
    )
    spread = float(exact["gradcam", "1"].abs().max())
    torch.testing.assert_close(lowered, exact, rtol=0, atol=5e-3 * spread)


def test_what_does_not_fit_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(model: nn.Module, precision: str) -> str:
        with pytest.raises(ConfigError) as refusal:
            exporter.compute_maps(model, images(), layers=["1"], precision=precision)
        return str(refusal.value)

    assert refused(small().double(), "bf16") == (
        "the model's parameters are float64 and precision 'bf16' is for a float32 model; leave "
        "it out"
    )
    assert refused(small(), "half") == (
        "no precision is called 'half'; choose float32, bf16 or fp16"
    )
    monkeypatch.setattr(placement, "has_format", lambda *_: False)
    assert refused(small(), "fp16") == (
        "the device 'cpu' has no instructions for fp16, which would be slower than float32; give "
        "bf16 or float32"
    )
