from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from exporter.containers import rebuild

Pair = namedtuple("Pair", "logits aux")


@dataclass(frozen=True)
class Frozen:
    logits: torch.Tensor
    note: str = "kept"


@dataclass
class ModelOutput(OrderedDict):  # the shape of transformers' outputs: a mapping and a dataclass
    logits: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        for name in ("logits", "hidden"):
            super().__setitem__(name, getattr(self, name))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self) -> Any:
        return type(self), (self.logits, self.hidden)


def plus_one(_path: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor + 1


def test_every_container_keeps_its_type_and_is_not_written_to() -> None:
    one = torch.ones(1)
    for value, read in (
        ((one, "x"), lambda v: v[0]),
        ([3, [one]], lambda v: v[1][0]),
        ({"a": {"b": one}}, lambda v: v["a"]["b"]),
        (OrderedDict(out=one, aux=None), lambda v: v["out"]),
        (MappingProxyType({"a": one}), lambda v: v["a"]),
        (Pair(one, None), lambda v: v.logits),
        (Frozen(one), lambda v: v.logits),
        (torch.max(torch.ones(1, 1), dim=1), lambda v: v.values),
    ):
        new = rebuild(value, plus_one)
        assert type(new) is type(value)
        assert new is not value
        assert read(new).item() == 2
        assert read(value).item() == 1


def test_a_mapping_that_is_a_dataclass_changes_in_both_guises() -> None:
    value = ModelOutput(logits=torch.ones(1), hidden=(torch.ones(1),))
    new = rebuild(value, plus_one)
    assert type(new) is ModelOutput
    assert new.logits.item() == new["logits"].item() == 2
    assert new.hidden[0].item() == new["hidden"][0].item() == 2
    assert value.logits.item() == value["logits"].item() == 1


def test_what_is_unchanged_is_the_very_same_object() -> None:
    value = {"a": (torch.ones(1), [None, 3]), "b": Frozen(torch.ones(1))}
    assert rebuild(value, lambda _path, tensor: tensor) is value
    assert rebuild(None, plus_one) is None
    assert rebuild("text", plus_one) == "text"


def test_paths_name_each_element() -> None:
    seen: list[str] = []
    value = (torch.ones(1), {"k": [torch.ones(1)]}, Frozen(torch.ones(1)))
    rebuild(value, lambda path, tensor: (seen.append(path), tensor)[1])
    assert seen == ["[0]", "[1][k][0]", "[2][logits]"]
