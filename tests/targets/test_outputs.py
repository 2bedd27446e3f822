from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.errors import TargetError
from exporter.targets import locate_output

LOGITS = torch.rand(2, 5)
OTHER = torch.rand(2, 3)
COUNTS = torch.zeros(2, dtype=torch.int64)


@dataclass
class Named:
    hidden: Tensor
    logits: Tensor


Pair = namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize(
    ("output", "path", "found"),
    [
        (LOGITS, None, ""),
        (LOGITS, "", ""),
        ((LOGITS, OTHER), None, "0"),
        ([COUNTS, LOGITS], None, "1"),
        ((OTHER, LOGITS), "1", "1"),
        ({"loss": OTHER, "logits": LOGITS}, None, "logits"),
        (OrderedDict(aux=OTHER, out=LOGITS), None, "out"),
        ({"out": (LOGITS, OTHER)}, "out.0", "out.0"),
        ({"a.b": {"c": LOGITS}}, "a.b.c", "a.b.c"),
        (Named(OTHER, LOGITS), None, "logits"),
        (Named(OTHER, LOGITS), "logits", "logits"),
        (Pair(OTHER, LOGITS), "second", "second"),
        (Pair(OTHER, LOGITS), "1", "1"),
        ([{"scores": LOGITS, "boxes": OTHER}], "0.scores", "0.scores"),
    ],
)
def test_the_tensor_is_found(output: Any, path: str | None, found: Any) -> None:
    tensor, place = locate_output(output, path)
    assert place == found
    assert tensor is LOGITS


@pytest.mark.parametrize(
    ("output", "path", "message"),
    [
        (LOGITS, "0", "is one tensor and has no part '0'"),
        ({"logits": LOGITS}, "", "is a dict, not a tensor; choose a part of it .*: logits"),
        ({"logits": LOGITS}, "logit", "no tensor at 'logit'; did you mean 'logits'"),
        ("text", None, "a str and holds no floating-point tensor"),
        ([COUNTS], None, "holds no floating-point tensor"),
    ],
)
def test_what_is_not_there_is_refused(output: Any, path: str | None, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        locate_output(output, path)
