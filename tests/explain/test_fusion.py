from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.errors import MapError
from exporter.explain import compute_maps

LAYERS = ["stem", "stage1", "stage2"]


def scaled(maps: Tensor) -> Tensor:
    return torch.stack([(m - m.min()) / (m.max() - m.min()) for m in maps])


def grown(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[
        :, 0
    ].numpy()


@pytest.mark.parametrize(
    ("how", "reduce"), [("mean", np.mean), ("max", np.max), ("product", np.prod)]
)
def test_fused_is_the_layers_scaled_grown_and_put_together(
    how: str, reduce: object, model: nn.Module, images: Tensor
) -> None:
    found = compute_maps(
        model, images, maps=["gradcam", "hirescam"], layers=LAYERS, targets=[0, 1, 2], fuse=how
    )
    size = tuple(found["hirescam", "stem"].shape[1:])
    for name, relu in (("gradcam", True), ("hirescam", False)):
        raw = [found[name, layer] for layer in LAYERS]
        stacked = [grown(scaled(one.relu() if relu else one), size) for one in raw]
        expected = reduce(np.stack(stacked), axis=0)  # type: ignore[operator]
        np.testing.assert_allclose(found[name, "fused"].numpy(), expected, atol=1e-6)
    assert [layer for name, layer in found if name == "gradcam"] == [*LAYERS, "fused"]


def test_refinecam_is_the_product_of_rectified_gradcam_plus_plus(
    model: nn.Module, images: Tensor
) -> None:
    found = compute_maps(
        model, images, maps=["refinecam", "gradcam++"], layers=LAYERS, targets=[[0, 3]] * 3
    )
    assert [layer for name, layer in found if name == "refinecam"] == ["fused"]
    assert ("gradcam++", "fused") not in found
    size = tuple(found["gradcam++", "stem"].shape[2:])
    for t in range(2):
        layers = [found["gradcam++", layer][:, t].relu() for layer in LAYERS]
        expected = np.prod([grown(scaled(one), size) for one in layers], axis=0)
        made = found["refinecam", "fused"][:, t].numpy()
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(made, expected, atol=1e-6)


def test_a_constant_layer_counts_as_zero(model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        model.stage2[0].weight.zero_()
    found = compute_maps(model, images, maps=["eigencam"], layers=["stage1", "stage2"], fuse="max")
    size = tuple(found["eigencam", "stage1"].shape[1:])
    expected = grown(scaled(found["eigencam", "stage1"]), size)
    np.testing.assert_allclose(found["eigencam", "fused"].numpy(), expected, atol=1e-6)


def test_an_unknown_fusion_is_refused(model: nn.Module, images: Tensor) -> None:
    with pytest.raises(MapError, match="'average'; choose one of mean, max, product"):
        compute_maps(model, images, layers=LAYERS, fuse="average")
