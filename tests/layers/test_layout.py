from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exporter.layers.layout import Layout, layout_of, read_layout


@pytest.mark.parametrize(
    ("shape", "size", "layout"),
    [
        ((1, 512, 7, 7), (224, 224), Layout("nchw", 512, 7, 7)),
        ((1, 7, 7, 512), (224, 224), Layout("nhwc", 512, 7, 7)),
        ((1, 56, 56, 48), (224, 224), Layout("nhwc", 48, 56, 56)),
        ((1, 64, 8, 10), (225, 300), Layout("nchw", 64, 8, 10)),
        ((1, 64, 1, 26), (32, 100), Layout("nchw", 64, 1, 26)),
        ((1, 196, 64), (224, 224), Layout("tokens", 64, 14, 14)),
        ((1, 197, 64), (224, 224), Layout("tokens", 64, 14, 14, prefix=1)),
        ((1, 201, 64), (224, 224), Layout("tokens", 64, 14, 14, prefix=5)),
        ((1, 73, 64), (96, 192), Layout("tokens", 64, 6, 12, prefix=1)),
        ((1, 1000), (224, 224), None),
        ((1, 3, 64), (224, 224), None),
    ],
)
def test_layout_is_read_from_the_proportions(shape: Any, size: Any, layout: Any) -> None:
    assert layout_of(shape, size) == layout


def test_spatial_puts_every_place_where_it_was() -> None:
    plane = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    last = plane.permute(0, 2, 3, 1)
    tokens = torch.cat([torch.zeros(2, 1, 3), last.reshape(2, 20, 3)], dim=1)
    assert torch.equal(Layout("nchw", 3, 4, 5).spatial(plane), plane)
    assert torch.equal(Layout("nhwc", 3, 4, 5).spatial(last), plane)
    assert torch.equal(Layout("tokens", 3, 4, 5, prefix=1).spatial(tokens), plane)


def test_a_layer_s_type_decides_where_its_shape_leaves_a_choice() -> None:
    square = torch.rand(1, 8, 8, 8)
    first = read_layout(torch.rand(1, 8, 8, 2), 1, (32, 32), module=nn.Conv2d(1, 8, 1))
    last = read_layout(square, 1, (32, 32), module=nn.Linear(8, 8))
    assert first == Layout("nchw", 8, 8, 2)
    assert last == Layout("nhwc", 8, 8, 8)
    assert read_layout(square, 1, (32, 32), module=nn.LayerNorm(8)) == last
    assert read_layout(square, 1, (32, 32)) == Layout("nchw", 8, 8, 8)


def test_a_layout_says_why_and_what_it_was_read_from() -> None:
    tokens = torch.rand(2, 17, 6)
    layout = read_layout(tokens, 2, (32, 32))
    assert layout is not None
    assert layout.evidence == "17 tokens could be a grid of 4×4 after 1 of their own"
    assert not layout.shown
    assert layout.fits(torch.rand(5, 17, 6), 5)
    assert not layout.fits(torch.rand(5, 17, 6), 17)
    assert not layout.fits(torch.rand(5, 16, 6), 5)
    given = read_layout(tokens, 2, (32, 32), lambda values: values[:, 1:].mT.unflatten(2, (4, 4)))
    assert given is not None
    assert (given.kind, given.evidence) == ("given", "the reshape function")
