from __future__ import annotations

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import TargetError
from exporter.targets import locate_output
from tests.small import Ending

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


class Detected(NamedTuple):
    boxes: Tensor
    scores: Tensor


@pytest.mark.parametrize("images", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("end", "least", "layer"),
    [
        (list, 4, "net.2"),  # four values per image
        (lambda y: [{"logits": row} for row in y], 4, "net.2"),
        (lambda y: [Detected(row.view(1, 4), row[:3]) for row in y], 3, "net.2"),
        (lambda y: [row.view(2, 2) for row in y], 2, "net.2"),
        (lambda y: [row.view(4, 1).expand(4, 6) for row in y], 4, "net.2"),
        (lambda y: y.T, 4, "net.2"),
        (lambda y: y.sum(0), 4, "auto"),
        (lambda y: {"scores": y.flatten()}, 4, "auto"),
    ],
)
def test_an_output_that_has_no_row_for_each_image_is_refused(
    end: Callable[[Tensor], object], least: int, layer: str, images: int
) -> None:
    """Also where it has as many rows as there are images by chance."""
    model = Ending(end)
    shown = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    said = rf"output.* has (\d+) rows for ({images} images?|1 image), where there is one per image"
    for targets in (None, [0] * images, "class:0"):
        with pytest.raises(TargetError, match=said) as caught:
            exporter.compute_maps(model, shown, maps=["gradcam"], layers=[layer], targets=targets)
        rows = re.search(said, str(caught.value))
        assert rows is not None
        assert int(rows[1]) in (least, 4 * images)
    with pytest.raises(TargetError, match=said):
        exporter.compute_maps(model, shown, maps=["ablationcam"], layers=[layer])


@pytest.mark.parametrize(
    ("end", "outputs"),
    [
        (lambda y: y.squeeze(), 1),
        (lambda y: y.squeeze(1), 1),
        (lambda y: {"loss": y.mean(), "score": y.squeeze()}, 1),
        (lambda y: {"loss": y.mean(), "score": y}, 3),
        (lambda y: [y, y * 2, y * 3], 3),
    ],
)
def test_one_that_has_is_explained_whatever_its_axes(
    end: Callable[[Tensor], object], outputs: int
) -> None:
    plain, ended = Ending(lambda y: y, outputs), Ending(end, outputs)
    ended.load_state_dict(plain.state_dict())
    for images in (1, 3):
        shown = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        given, expected = (
            exporter.compute_maps(model, shown, maps=["gradcam"], layers=["net.2"])
            for model in (ended, plain)
        )
        torch.testing.assert_close(given["gradcam", "net.2"], expected["gradcam", "net.2"])


@pytest.mark.parametrize("classes", [1, 5])
def test_a_convolutional_head_of_one_position_is_a_row(classes: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, classes, 1), nn.AdaptiveAvgPool2d(1)
    )
    images = torch.rand(2, 3, 16, 16)
    asked: dict[str, Any] = {"maps": ["gradcam"], "layers": ["1"]}
    asked |= {"targets": "prob:predicted"} if classes > 1 else {}
    plain = exporter.compute_maps(nn.Sequential(*net, nn.Flatten()), images, **asked)
    maps = exporter.compute_maps(net, images, **asked)
    torch.testing.assert_close(maps["gradcam", "1"], plain["gradcam", "1"], rtol=0, atol=0)
