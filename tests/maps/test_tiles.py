"""All methods of a layer together must give what each gives by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.errors import MapError
from exporter.maps import METHODS, Needs, Terms, channel_maps, get_methods, method, tiles

ALL = tuple(method for method in METHODS.values() if method.kind != "pass")


def naive(activations: Tensor, gradients: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Every method by its own function, and weighted sums spelt out."""
    maps = {}
    for one in ALL:
        given = one(Terms(activations, gradients, rows))
        weighted = one.kind == "weights"
        maps[one.name] = torch.einsum("nc,nchw->nhw", given, activations) if weighted else given
    return maps


@pytest.mark.parametrize("elements", [1, 700, 5000, 1 << 19])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_tiles_are_naive_to_rounding(
    elements: int, memory_format: Any, taken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE_ELEMENTS", elements)
    for layer in taken[::3] if elements == 1 else taken:
        if elements == 1 and layer.activations.shape[1] > 200:
            continue
        activations = layer.activations.contiguous(memory_format=memory_format)
        gradients = layer.gradients.contiguous(memory_format=memory_format)
        found = channel_maps(ALL, activations, gradients, layer.classifier)
        expected = naive(layer.activations, layer.gradients, layer.classifier)
        assert list(found) == [one.name for one in ALL]
        for name, one in expected.items():
            # The eigen methods are one function either way; only the layout differs.
            tolerance = 1e-10 if name.startswith("eigen") else 1e-12
            scale = one.abs().amax()
            assert (found[name] - one).abs().amax() <= tolerance * scale, (layer.name, name)


@pytest.mark.usefixtures("registry_kept")
@pytest.mark.parametrize(("device", "calls"), [("cpu", 4), ("meta", 1)])
def test_only_the_cpu_is_given_tiles(
    device: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    @method("counting", shows="s", formula="f", kind="map")
    def counting(terms: Terms) -> Tensor:
        shapes.append(tuple(terms.A.shape))
        return terms.A.sum(1)

    monkeypatch.setattr(tiles, "TILE_ELEMENTS", 3 * 4 * 5)
    channel_maps(get_methods("counting"), torch.zeros(2, 6, 4, 5, device=device))
    assert len(shapes) == calls


def test_inputs_are_left_as_they_were(taken: Any) -> None:
    for layer in taken[:3]:
        kept = [layer.activations.clone(), layer.gradients.clone(), layer.classifier.clone()]
        channel_maps(ALL, layer.activations, layer.gradients, layer.classifier)
        assert torch.equal(kept[0], layer.activations)
        assert torch.equal(kept[1], layer.gradients)
        assert torch.equal(kept[2], layer.classifier)


def test_maps_come_in_the_order_asked_for_and_keep_no_graph() -> None:
    activations = torch.rand(2, 3, 4, 4, requires_grad=True)
    names = ["eigencam", "layercam", "gradcam"]
    found = channel_maps(get_methods(names), activations, torch.rand(2, 3, 4, 4))
    assert list(found) == names
    assert not any(one.requires_grad for one in found.values())


def test_no_image_gives_no_map() -> None:
    empty = torch.zeros(0, 5, 3, 4)
    for one in channel_maps(ALL, empty, empty, torch.zeros(0, 5)).values():
        assert one.shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("name", "shapes", "said"),
    [
        ("gradcam", ((2, 3, 4),), r"\(N, C, H, W\), not \(2, 3, 4\)"),
        ("gradcam", ((2, 3, 4, 4),), r"gradcam needs gradients .*none were given"),
        ("layercam", ((2, 3, 4, 4), (2, 3, 4, 5)), r"\(2, 3, 4, 4\); not \(2, 3, 4, 5\)"),
        ("cam", ((2, 3, 4, 4),), r"cam needs a linear classifier's rows of shape \(2, 3\)"),
    ],
)
def test_what_is_missing_is_said(name: str, shapes: Any, said: str) -> None:
    with pytest.raises(MapError, match=said):
        channel_maps(get_methods([name]), *(torch.zeros(shape) for shape in shapes))


@pytest.mark.usefixtures("registry_kept")
@pytest.mark.parametrize("kind", ["weights", "map"])
@pytest.mark.parametrize("channelwise", [True, False])
def test_a_new_method_is_one_function_and_one_decorator(kind: Any, channelwise: bool) -> None:

    @method(
        "mine",
        shows="s",
        formula="f",
        needs=Needs(gradients=True),
        kind=kind,
        channelwise=channelwise,
    )
    def mine(terms: Terms) -> Tensor:
        return terms.g.amax((2, 3)) if kind == "weights" else (2 * terms.g).sum(1)

    activations, gradients = torch.rand(2, 2, 300, 40, 50, dtype=torch.float64)
    found = channel_maps(get_methods(["Mine", "gradcam"]), activations, gradients)["mine"]
    if kind == "weights":
        expected = (gradients.amax((2, 3), keepdim=True) * activations).sum(1)
    else:
        expected = 2 * gradients.sum(1)
    torch.testing.assert_close(found, expected)
