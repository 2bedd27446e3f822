"""Every kind of target in float64, against the formula written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from exporter.errors import TargetError
from exporter.targets import Scorer, locate_output, parse_target, say_guess

UNKNOWN = torch.tensor([-1, -1])
LABELS = torch.tensor([2, 0])


def draw(*shape: int, seed: int = 0) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=noise, dtype=torch.float64).requires_grad_()


def gradient(score: Tensor, values: Tensor) -> Tensor:
    return torch.autograd.grad(score.sum(), values, retain_graph=True)[0]


def score(text: str, values: Any, labels: Tensor = UNKNOWN, **options: Any) -> Any:
    masks = options.pop("masks", None)
    return Scorer(parse_target(text, ()), **options)(values, labels, masks)


def softmax(rows: Tensor) -> Tensor:
    return rows.exp() / rows.exp().sum(1, keepdim=True)


ROWS = draw(2, 4)  # the largest: column 3 or whatever the seed gives; asked of torch below
BEST = ROWS.detach().argmax(1)
ORDER = ROWS.detach().argsort(1, descending=True)
N = torch.arange(2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("predicted", lambda z: z[N, BEST]),
        ("second", lambda z: z[N, ORDER[:, 1]]),
        ("label", lambda z: z[N, LABELS]),
        ("3", lambda z: z[:, 3]),
        ("prob:3", lambda z: softmax(z)[:, 3]),
        ("prob:label", lambda z: softmax(z)[N, LABELS]),
        ("multilabel:1", lambda z: z[:, 1]),
        ("multilabel:prob:1", lambda z: 1 / (1 + (-z[:, 1]).exp())),
        ("3-1", lambda z: z[:, 3] - z[:, 1]),
        ("prob:3-1", lambda z: softmax(z)[:, 3] - softmax(z)[:, 1]),
        ("predicted-second", lambda z: z[N, ORDER[:, 0]] - z[N, ORDER[:, 1]]),
        ("value:2", lambda z: z[:, 2]),
    ],
)
def test_scores_of_rows_are_their_formula(text: str, expected: Callable[[Tensor], Tensor]) -> None:
    scored = score(text, ROWS, LABELS)
    wanted = expected(ROWS)
    assert scored.scores.shape == scored.targets.shape == (2, 1)
    torch.testing.assert_close(scored.scores[:, 0], wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        gradient(scored.scores, ROWS), gradient(wanted, ROWS), rtol=0, atol=1e-14
    )


def test_label_and_prediction_stand_side_by_side() -> None:
    scored = score("predicted+label+top-2", ROWS, LABELS)
    assert scored.targets.tolist() == [
        [int(BEST[n]), int(LABELS[n]), *ORDER[n, :2].tolist()] for n in range(2)
    ]
    assert torch.equal(scored.scores, ROWS.gather(1, scored.targets))


def test_a_contrast_with_itself_is_with_the_next_in_line() -> None:
    labels = torch.tensor([int(BEST[0]), -1])
    scored = score("predicted-label", ROWS, labels)
    assert scored.targets[:, 0].tolist() == BEST.tolist()
    assert scored.against[:, 0].tolist() == ORDER[:, 1].tolist()
    expected = ROWS[N, ORDER[:, 0]] - ROWS[N, ORDER[:, 1]]
    torch.testing.assert_close(scored.scores[:, 0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_binary_is_a_logit_of_two_classes(shape: tuple[int, ...]) -> None:
    z = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64).reshape(shape).requires_grad_()
    labels = torch.tensor([0, 0, 1])
    scored = score("binary", z, labels)
    assert scored.targets[:, 0].tolist() == [1, 0, 1]
    assert scored.scores[:, 0].tolist() == [2.0, 1.0, 0.5]
    assert gradient(scored.scores, z).flatten().tolist() == [1, -1, 1]
    sure = score("binary:prob:1", z, labels).scores[:, 0]
    torch.testing.assert_close(sure, z.flatten().sigmoid(), rtol=0, atol=1e-15)
    index, shares, loss = scored.reading.predict(labels, 5)
    assert index.tolist() == [[1, 0], [0, 1], [1, 0]]
    torch.testing.assert_close(shares[:, 0].double(), z.flatten().detach().abs().sigmoid())
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        z.flatten().detach(), labels.double(), reduction="none"
    )
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert scored.reading.outputs == 2


def test_multilabel_predictions_are_sigmoids_of_their_own() -> None:
    _, shares, loss = score("multilabel", ROWS).reading.predict(LABELS, 4)
    torch.testing.assert_close(
        shares.double(), ROWS.detach().sigmoid().sort(1, descending=True).values
    )
    assert loss.isnan().all()


def test_likeness_is_the_cosine_with_the_reference() -> None:
    reference = draw(4, seed=3).detach()
    scored = score("similar:photo.jpg", ROWS, reference=reference)
    expected = (ROWS * reference).sum(1) / (
        (ROWS * ROWS).sum(1).sqrt() * (reference * reference).sum().sqrt()
    )
    torch.testing.assert_close(scored.scores[:, 0], expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        gradient(scored.scores, ROWS), gradient(expected, ROWS), rtol=0, atol=1e-14
    )
    assert scored.reading.named == "value"


PLANES = draw(2, 3, 4, 5)


def region(number: int) -> Tensor:
    return PLANES.detach().argmax(1) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", lambda z: torch.stack([z[n, 1][region(1)[n]].mean() for n in range(2)])),
        (
            "prob:1",
            lambda z: torch.stack([softmax(z)[n, 1][region(1)[n]].mean() for n in range(2)]),
        ),
        ("plane:2", lambda z: z[:, 2].mean((1, 2))),
        (
            "1-2",
            lambda z: torch.stack(
                [z[n, 1][region(1)[n]].mean() - z[n, 2][region(2)[n]].mean() for n in range(2)]
            ),
        ),
        (
            "multilabel:1",
            lambda z: torch.stack([z[n, 1][z[n, 1] > 0].mean() for n in range(2)]),
        ),
    ],
)
def test_a_class_of_a_segmentation_is_the_mean_over_its_region(
    text: str, expected: Callable[[Tensor], Tensor]
) -> None:
    scored = score(text, PLANES)
    wanted = expected(PLANES)
    torch.testing.assert_close(scored.scores[:, 0], wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        gradient(scored.scores, PLANES), gradient(wanted, PLANES), rtol=0, atol=1e-14
    )


def test_a_given_mask_takes_the_place_of_the_region() -> None:
    masks = torch.full((2, 8, 10), 255, dtype=torch.uint8)
    masks[0] = 0
    masks[0, :4, :4] = 1  # the upper left 2 × 2 of the output's 4 × 5
    scored = score("mask:1", PLANES, masks=masks)
    expected = [PLANES[0, 1, :2, :2].mean(), PLANES[1, 1][region(1)[1]].mean()]
    torch.testing.assert_close(scored.scores[:, 0], torch.stack(expected), rtol=0, atol=1e-14)
    with pytest.raises(TargetError, match="needs a mask for each image"):
        score("mask:1", PLANES)


def test_a_sigmoid_mask_is_explained_where_it_is_predicted() -> None:
    z = draw(2, 1, 4, 5, seed=5)
    scored = score("predicted", z)
    expected = torch.stack([z[n, 0][z[n, 0] > 0].mean() for n in range(2)])
    torch.testing.assert_close(scored.scores[:, 0], expected, rtol=0, atol=1e-14)
    assert scored.reading.named == "mask"


def test_the_largest_region_is_predicted_and_the_background_only_where_it_is_alone() -> None:
    planes = torch.zeros(2, 3, 2, 3)
    planes[:, 0] = 1.0
    planes[0, 2, 0, 0] = 5.0
    scored = score("predicted", planes, background=0)
    assert scored.targets[:, 0].tolist() == [2, 0]
    index, shares, _ = scored.reading.predict(UNKNOWN, 2)
    assert index.tolist() == [[0, 2], [0, 1]]
    torch.testing.assert_close(shares, torch.tensor([[5 / 6, 1 / 6], [1.0, 0.0]]))
    # Nothing is predicted as class 1: a score, and a gradient, of zero.
    absent = score("1", planes.requires_grad_())
    assert absent.scores.tolist() == [[0.0], [0.0]]
    assert not gradient(absent.scores, planes).any()


def detections(scores: Tensor, labels: list[int]) -> dict[str, Tensor]:
    boxes = torch.zeros(len(labels), 4)
    return {"boxes": boxes, "scores": scores, "labels": torch.tensor(labels, dtype=torch.int64)}


def test_boxes_are_numbered_as_the_model_gives_them() -> None:
    first = torch.tensor([0.9, 0.8, 0.7]).requires_grad_()
    second = torch.empty(0).requires_grad_()
    output = [detections(first, [5, 7, 5]), detections(second, [])]
    scored = score("top-2", output)
    assert scored.targets.tolist() == [[0, 1], [-1, -1]]
    torch.testing.assert_close(scored.scores[0], first[:2])
    assert score("class:7", output).targets.tolist() == [[1], [-1]]
    assert score("label", output, torch.tensor([7, 7])).targets.tolist() == [[1], [-1]]
    assert score("box:2", output).targets.tolist() == [[2], [-1]]
    assert score("box:6", output).targets.tolist() == [[-1], [-1]]
    index, _, _ = scored.reading.predict(UNKNOWN, 2)
    assert index.tolist() == [[5, 7], [-1, -1]]
    assert scored.reading.finite.tolist() == [True, True]
    boxes = scored.reading.boxes
    assert boxes is not None
    assert boxes.isfinite().all(2).tolist() == [[True] * 3, [False] * 3]
    # Rotated boxes have five numbers, and no four ends.
    rotated = [image | {"boxes": torch.zeros(len(image["scores"]), 5)} for image in output]
    assert score("top-2", rotated).reading.boxes is None
    only = score("predicted", [output[1]], UNKNOWN[:1])
    assert only.scores.requires_grad
    assert not gradient(only.scores, second).any()


def test_a_function_of_the_output_is_a_target() -> None:
    found = score(
        "package.module:function", {"a": ROWS}, function=lambda output: output["a"].square().sum(1)
    )
    torch.testing.assert_close(found.scores[:, 0], ROWS.square().sum(1))
    with pytest.raises(TargetError, match="one scalar per image"):
        score("package.module:function", ROWS, function=lambda output: output)


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("binary", ROWS, "one logit and the model gives 4"),
        ("value:4", ROWS, "no value 4; it gives 4, from 0 to 3"),
        ("value", ROWS, "use value:0"),
        ("mask", ROWS, "is for planes of scores"),
        ("box:0", ROWS, "no boxes, which 'box' needs"),
        ("9", PLANES, "no class 9; it gives 3 values"),
        ("binary", PLANES, "use predicted, mask or plane"),
        ("prob:predicted", ROWS[:, :1], "no probability"),
        ("1-2", ROWS[:, :1], "no class 1"),
        ("predicted", draw(2, 3, 4), "--output"),
        ("prob:1", [detections(torch.rand(1), [1])], "a probability"),
        ("value", [detections(torch.rand(1), [1])], "gives boxes"),
    ],
)
def test_a_target_that_does_not_fit_says_what_would(text: str, values: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        score(text, values)


@pytest.mark.parametrize(
    "text",
    [
        "prob:predicted",
        "predicted+label",
        "predicted-label",
        "prob:3-1",
        "second",
        "multilabel:top-2",
        "value:1",
    ],
)
def test_targets_of_rows_never_wait_for_the_device(text: str) -> None:
    rows, labels = ROWS.detach().to("meta"), LABELS.to("meta")
    assert score(text, rows, labels).scores.device.type == "meta"


@pytest.mark.parametrize("text", ["predicted", "top-2", "1-2", "prob:label", "mask", "plane"])
def test_targets_of_planes_never_wait_for_the_device(text: str) -> None:
    planes, labels = PLANES.detach().to("meta"), LABELS.to("meta")
    masks = torch.empty(2, 8, 8, dtype=torch.uint8, device="meta")
    scored = score(text, planes, labels, masks=masks, background=0)
    index, _, _ = scored.reading.predict(labels, 2)
    assert scored.scores.device.type == index.device.type == "meta"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("predicted", ROWS),
        ("binary", ROWS[:, :1]),
        ("value:1", ROWS),
        ("multilabel", ROWS),
        ("predicted", PLANES),
        ("similar:x", ROWS),
    ],
)
def test_an_output_that_is_no_number_is_seen_in_its_image(text: str, values: Tensor) -> None:
    spoilt = values.detach().clone()
    spoilt[1] = torch.nan
    found = score(text, spoilt, reference=torch.ones(4, dtype=torch.float64)).reading.finite
    assert found.tolist() == [True, False]


@dataclass
class ModelOutput(dict):  # type: ignore[type-arg]
    """What transformers gives: a mapping and a dataclass in one."""

    loss: Tensor | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        self.update({k: v for k, v in vars(self).items() if v is not None})


@pytest.mark.parametrize(
    "output",
    [ModelOutput(logits=ROWS), SimpleNamespace(logits=ROWS), {"hidden": PLANES, "logits": ROWS}],
)
def test_the_output_is_located_by_its_look(output: Any) -> None:
    assert locate_output(output, None) == (ROWS, "logits")
    assert locate_output(output, "logits") == (ROWS, "logits")


def test_a_guess_is_said_where_there_was_a_choice() -> None:
    assert say_guess(ROWS, "") == ""
    assert say_guess({"out": PLANES}, "out") == ""
    assert say_guess({"out": PLANES, "aux": PLANES}, "out") == (
        "the output 'out' is explained; --output names another (aux)"
    )


@pytest.mark.parametrize(
    ("text", "values"),
    [("predicted-second", ROWS), ("prob:top-2", ROWS), ("1", PLANES), ("1-2", PLANES)],
)
def test_variants_are_scored_for_what_the_images_were(text: str, values: Tensor) -> None:
    """Two variants of the second image: the image itself, and one that looks like another class."""
    asked = Scorer(parse_target(text, ()))
    first = asked(values, UNKNOWN)
    other = values.detach().flip(1)
    variants = torch.cat((values[1:], other[1:]))
    found = asked.again(variants, first, slice(1, 2))
    torch.testing.assert_close(found[0], first.scores[1])
    if values is ROWS and text.startswith("predicted"):
        best, second = first.targets[1, 0], first.against[1, 0]
        torch.testing.assert_close(found[1, 0], other[1, best] - other[1, second])
    if text == "1" and values is PLANES:
        torch.testing.assert_close(found[1, 0], other[1, 1][region(1)[1]].mean())


def test_boxes_are_followed_through_further_passes_and_not_through_variants() -> None:
    asked = Scorer(parse_target("box:1", ()))
    scores, others = torch.tensor([0.9, 0.4]), torch.tensor([0.8, 0.3])
    output = [detections(scores, [1, 2]), detections(scores[:1], [1])]
    first = asked(output, UNKNOWN[:2])
    assert asked.again(output, first, slice(0, 2)).tolist() == [[scores[1]], [0]]
    for variant in (
        [detections(others, [1, 2]), output[1]],
        [output[1], output[0]],
        [*output, *output],
    ):
        with pytest.raises(TargetError, match="finds other boxes in a variant"):
            asked.again(variant, first, slice(0, 2))


@pytest.mark.parametrize(
    ("function", "count"), [(lambda y: y.flatten(), 6), (lambda y: y.mean(0), 3), (torch.mean, 1)]
)
def test_a_function_that_gives_no_scalar_per_image_is_refused(function: Any, count: int) -> None:
    scorer = Scorer(parse_target("mine.py:goal", ()), function=lambda y: function(y).reshape(-1))
    with pytest.raises(TargetError, match=rf"'mine.py:goal' returned {count} values for 2 images"):
        scorer(torch.rand(2, 3), torch.full((2,), -1))
