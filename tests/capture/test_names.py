from __future__ import annotations

import pytest
from torch import nn

from exporter.capture import LayerName, find_layer, parse_name
from exporter.errors import LayerError


@pytest.mark.parametrize(
    ("text", "name", "written"),
    [
        ("layer4.0", LayerName("layer4.0"), "layer4.0"),
        ("relu#2", LayerName("relu", 2), "relu#2"),
        ("relu#1", LayerName("relu"), "relu"),
        ("block[0][key]", LayerName("block", 1, "[0][key]"), "block[0][key]"),
        ("block#3[0]", LayerName("block", 3, "[0]"), "block#3[0]"),
    ],
)
def test_a_name_is_read_once_and_written_again(text: str, name: LayerName, written: str) -> None:
    assert parse_name(text) == name
    assert str(name) == written


@pytest.mark.parametrize("text", ["layer4]", "a#b", "a[", "a[]", "a[0]b"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(LayerError, match="is not a layer's name"):
        parse_name(text)


def test_a_modules_own_name_comes_first_whatever_it_holds() -> None:
    model = nn.ModuleDict({"a#2": nn.ReLU(), "b[0]": nn.ReLU()})
    assert find_layer(model, "a#2") == LayerName("a#2")
    assert find_layer(model, "b[0]") == LayerName("b[0]")
