from __future__ import annotations

from typing import Any

import pytest
import torch

from exporter.errors import TargetError
from exporter.targets import Target, parse_target, target_indices

CLASSES = ("tabby, tabby cat", "tiger cat", "crane", "crane", "label", "jack-o'-lantern")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("predicted", Target("predicted")),
        ("label", Target("label")),
        ("value", Target("value")),
        ("top-3", Target("top", k=3)),
        ("3", Target("class", index=3)),
        ("class:3", Target("class", index=3)),
        ("Tiger_Cat", Target("class", index=1)),
        ("class:tabby cat", Target("class", index=0)),
        ("class:label", Target("class", index=4)),
        ("second", Target("second")),
        ("binary", Target("predicted", reading="binary")),
        ("prob:3", Target("class", index=3, probability=True)),
        ("mask:prob:3", Target("class", index=3, reading="mask", probability=True)),
        ("value:3", Target("value", index=3)),
        ("box:3", Target("box", index=3)),
        ("similar:photos/a b.jpg", Target("similar", source="photos/a b.jpg")),
        ("my-file.py:score", Target("function", source="my-file.py:score")),
        ("predicted-label", Target("predicted", against=Target("label"))),
        ("0-tiger cat", Target("class", index=0, against=Target("class", index=1))),
        ("jack-o'-lantern", Target("class", index=5)),
        (
            "predicted+top-2",
            Target("several", k=3, parts=(Target("predicted"), Target("top", k=2))),
        ),
    ],
)
def test_targets_are_read_as_they_are_written(text: str, target: Target) -> None:
    assert parse_target(text, CLASSES) == target


@pytest.mark.parametrize(
    ("text", "classes", "message"),
    [
        ("6", CLASSES, r"no class 6; its classes are 0 \(tabby.*, 5 \("),
        (
            "9",
            [f"c{n}" for n in range(9)],
            r"no class 9; its classes are from 0 \(c0\) to 8 \(c8\)$",
        ),
        ("3-3", CLASSES, "is not a contrast"),
        ("top-2-3", CLASSES, "is not a contrast"),
        ("box:last", CLASSES, "needs a number"),
        ("prob:value:1", CLASSES, "does not fit together"),
        ("mask:binary:1", CLASSES, "does not fit together"),
        ("similar:", CLASSES, "names no image"),
        ("crane", CLASSES, "name of 2 classes; give the index: 2, 3"),
        ("tigre cat", CLASSES, "did you mean 'tiger cat'"),
        ("top-0", CLASSES, "asks for no class"),
        ("dog", (), "give them with --classes"),
    ],
)
def test_targets_that_mean_nothing_are_refused(text: str, classes: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        parse_target(text, classes)


LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 0.0, 4.0, 1.0]])
LABELS = torch.tensor([2, -1])


@pytest.mark.parametrize(
    ("target", "indices"),
    [
        (Target("predicted"), [[1], [0]]),
        (Target("label"), [[2], [0]]),
        (Target("top", k=3), [[1, 3, 2], [0, 2, 3]]),
        (Target("top", k=9), [[1, 3, 2, 0], [0, 2, 3, 1]]),
        (Target("class", index=3), [[3], [3]]),
    ],
)
def test_indices_are_the_columns_meant(target: Target, indices: Any) -> None:
    found = target_indices(target, LOGITS, LABELS)
    assert found.dtype == torch.int64
    assert found.tolist() == indices


def test_value_is_for_one_output() -> None:
    assert target_indices(Target("value"), LOGITS[:, :1], LABELS).tolist() == [[0], [0]]
    with pytest.raises(TargetError, match="'value' is for one output and the model gives 4"):
        target_indices(Target("value"), LOGITS, LABELS)
    with pytest.raises(TargetError, match="no class 4; it gives 4 values"):
        target_indices(Target("class", index=4), LOGITS, LABELS)
    with pytest.raises(TargetError, match="has shape"):
        target_indices(Target("predicted"), LOGITS[None], LABELS)


@pytest.mark.parametrize(
    "target", [Target("predicted"), Target("label"), Target("top", k=2), Target("class", index=1)]
)
def test_indices_never_wait_for_the_device(target: Target) -> None:
    # On the meta device whatever would make CUDA wait raises.
    found = target_indices(target, LOGITS.to("meta"), LABELS.to("meta"))
    assert found.device.type == "meta"
    assert found.shape == (2, target.k)
