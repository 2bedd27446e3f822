from __future__ import annotations

from typing import Any

import pytest
import torch

from exporter.layers.layout import Layout, layout_of


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
