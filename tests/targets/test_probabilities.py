"""Outputs that are probabilities already are shown and explained as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import TargetError
from exporter.store import Run
from exporter.targets.probabilities import last_function, read_numbers
from tests.small import Ending, small

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


class Masks(nn.Module):
    def __init__(self, end: Callable[[Tensor], Tensor], masks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head, self.end = small()[:4], nn.Conv2d(8, masks, 1), end

    def forward(self, x: Tensor) -> Tensor:
        planes = self.head(self.net(x))
        planes = self.end((planes - planes.mean((2, 3), keepdim=True)) * 99)
        return nn.functional.interpolate(planes, x.shape[-2:], mode="nearest")


def export(model: nn.Module, out: Path, **settings: object) -> Run:
    return exporter.export(
        model,
        PHOTOS,
        out=out,
        limit=3,
        maps=("gradcam",),
        writers=(),
        preprocessing={"size": 32},
        **settings,
    )


def scores(run: Run) -> np.ndarray:
    """Return each image's scores by class."""
    rows = [sorted(row.predictions, key=lambda each: each.index) for row in run.rows()]
    return np.array([[each.score for each in row] for row in rows])


def test_a_softmax_is_not_taken_twice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, ended = Ending(lambda y: y), Ending(lambda y: y.softmax(1))
    ended.load_state_dict(plain.state_dict())
    given, expected = export(ended, tmp_path / "a"), export(plain, tmp_path / "b")
    np.testing.assert_allclose(scores(given), scores(expected), atol=1e-6)
    assert scores(given).max() > 0.9
    assert (given.plan.model.reading, expected.plan.model.reading) == ("probability", "logits")
    notes = " ".join(given.plan.notes)
    assert "holds probabilities already (at least 0, and their sum is 1)" in notes
    assert "probabilities" not in " ".join(expected.plan.notes)
    # What is explained is the probability: Grad-CAM of `prob:` on the plain model.
    probable = export(plain, tmp_path / "c", target="prob:predicted")
    for row in given.rows():
        layer = given.plan.explained[-1]
        np.testing.assert_allclose(
            given.map(row.id, "gradcam", layer), probable.map(row.id, "gradcam", layer), atol=1e-6
        )


def test_it_is_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ended = Ending(lambda y: y.softmax(1))
    given = export(ended, tmp_path / "a", reading="logits")
    again = torch.tensor(scores(export(ended, tmp_path / "b"))).softmax(1)
    np.testing.assert_allclose(scores(given), again, atol=1e-6)


@pytest.mark.parametrize("end", [Tensor.sigmoid, lambda y: y.sigmoid()[:, :, None].squeeze(2)])
def test_sigmoids_are_shown_as_they_are(end: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, ended = Ending(lambda y: y), Ending(end)
    ended.load_state_dict(plain.state_dict())
    given = export(ended, tmp_path / "a")
    expected = export(plain, tmp_path / "b", target="multilabel")
    np.testing.assert_allclose(scores(given), scores(expected), atol=1e-6)
    assert "the model ends in a sigmoid" in " ".join(given.plan.notes)


def test_one_sigmoid_is_a_probability_of_two_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, ended = Ending(lambda y: y, 1), Ending(Tensor.sigmoid, 1)
    ended.load_state_dict(plain.state_dict())
    given = export(ended, tmp_path / "a", target="binary")
    np.testing.assert_allclose(
        scores(given), scores(export(plain, tmp_path / "b", target="binary")), atol=1e-6
    )
    alone = export(ended, tmp_path / "c")
    assert "one probability per image" in " ".join(alone.plan.notes)


@pytest.mark.parametrize(
    ("end", "masks"), [(Tensor.sigmoid, 1), (Tensor.sigmoid, 3), (lambda y: y.softmax(1), 3)]
)
def test_masks_of_probabilities_are_cut_at_one_half(
    end: Callable[[Tensor], Tensor], masks: int, tmp_path: Path
) -> None:
    plain, ended = Masks(lambda y: y, masks), Masks(end, masks)
    shares = scores(export(ended, tmp_path / "a"))
    alone = end is Tensor.sigmoid and masks > 1
    target = "multilabel" if alone else "predicted"
    expected = scores(export(plain, tmp_path / "b", target=target))
    np.testing.assert_allclose(shares, expected, atol=1e-3)
    assert shares.max() < 1


@pytest.mark.parametrize("first", [True, False])
def test_of_probabilities_and_logits_the_logits_are_explained(first: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)

    def pair(y: Tensor) -> tuple[Tensor, Tensor]:
        return (y.softmax(1), y) if first else (y, y.softmax(1))

    run = export(Ending(pair), tmp_path / "a")
    assert run.plan.model.output == ("1" if first else "0")
    assert run.plan.model.reading == "logits"
    if first:
        assert "the output '1' is explained, whose softmax is '0'" in " ".join(run.plan.notes)


def test_probabilities_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"values from -.* which are not probabilities"):
        export(Ending(lambda y: y), tmp_path / "a", reading="probability")


@pytest.mark.parametrize(
    ("values", "asked", "ends", "given", "said"),
    [
        ([[0.2, 0.8]], "auto", "", "probability", "their sum is 1"),
        ([[0.2, 0.7]], "auto", "Sigmoid", "probability", "ends in a sigmoid"),
        ([[0.2, 0.7]], "auto", "Addmm", "logits", "lie between 0 and 1"),
        ([[0.9]], "auto", "Addmm", "logits", ""),
        ([[-0.2231, -1.6094]], "auto", "LogSoftmax", "logits", "logarithms of probabilities"),
        ([[-0.2231, -1.2]], "auto", "Addmm", "logits", ""),
        ([[0.2, 1.7]], "auto", "Sigmoid", "logits", ""),
        ([[0.2, 0.8]], "value", "", "value", ""),
        ([[0.2, 0.7]], "probability", "", "probability", "as asked for"),
    ],
)
def test_numbers_say_what_they_are(
    values: list[list[float]], asked: str, ends: str, given: str, said: str
) -> None:
    reading, note = read_numbers(torch.tensor(values), asked, lambda: ends)
    assert reading == given
    assert said in note
    assert bool(note) == bool(said)


def test_the_last_function_is_what_is_left_when_shapes_are_changed_back() -> None:
    start = torch.rand(1, 2, 3, 3, requires_grad=True)
    assert last_function(nn.functional.interpolate(start.sigmoid(), (6, 6))) == "Sigmoid"
    assert last_function(start.softmax(1).flatten(1).unsqueeze(0)[0]) == "Softmax"
    assert last_function(start * 2) == "Mul"
    assert last_function(start) == ""


def grad_cam(model: nn.Module, **settings: Any) -> Tensor:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = exporter.compute_maps(model, images, maps=["gradcam"], layers=["net.2"], **settings)
    return maps["gradcam", "net.2"]


def twins(end: Callable[[Tensor], object]) -> tuple[nn.Module, nn.Module]:
    """Return the model that gives logits, and the same with something behind them."""
    torch.manual_seed(0)
    plain, ended = Ending(lambda y: y), Ending(end)
    ended.load_state_dict(plain.state_dict())
    return plain, ended


@pytest.mark.parametrize(
    ("end", "read", "reading"),
    [
        (lambda y: y.softmax(1), "", "auto"),
        (lambda y: y.softmax(1), "", "probability"),
        (Tensor.sigmoid, "multilabel:", "auto"),
        (lambda y: y.sigmoid()[:, :, None].squeeze(2), "multilabel:", "auto"),
    ],
)
def test_maps_of_a_batch_take_probabilities_as_they_are(
    end: Callable[[Tensor], Tensor], read: str, reading: str
) -> None:
    plain, ended = twins(end)
    expected = grad_cam(plain, targets=f"{read}prob:1")
    torch.testing.assert_close(grad_cam(ended, targets="prob:1", reading=reading), expected)
    torch.testing.assert_close(grad_cam(ended, targets=[1, 1], reading=reading), expected)
    assert not torch.allclose(grad_cam(ended, targets="prob:1", reading="logits"), expected)


def test_maps_of_a_batch_explain_the_logits_beside_their_softmax() -> None:
    plain, ended = twins(lambda y: (y.softmax(1), y))
    torch.testing.assert_close(grad_cam(ended, targets=[1, 2]), grad_cam(plain, targets=[1, 2]))
    torch.testing.assert_close(
        grad_cam(ended, output="0", targets="prob:1"), grad_cam(plain, targets="prob:1")
    )


def test_methods_without_a_gradient_know_a_sigmoid_too() -> None:
    plain, ended = twins(Tensor.sigmoid)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = {"maps": ["scorecam"], "layers": ["net.2"]}
    given = exporter.compute_maps(ended, images, targets="prob:1", **asked)
    expected = exporter.compute_maps(plain, images, targets="multilabel:prob:1", **asked)
    torch.testing.assert_close(given["scorecam", "net.2"], expected["scorecam", "net.2"])


@pytest.mark.parametrize(
    ("end", "forwards"),
    [(lambda y: y, 0), (lambda y: y.softmax(1), 0), (Tensor.sigmoid, 1)],
)
@pytest.mark.parametrize(("method", "layer"), [("occlusion", "auto"), ("ablationcam", "net.2")])
def test_what_a_model_ends_in_is_asked_only_where_its_numbers_do_not_tell(
    end: Callable[[Tensor], object], forwards: int, method: str, layer: str
) -> None:
    ended, calls = twins(end)[1], []
    ended.net[0].register_forward_hook(lambda *given: calls.append(len(given[2])))
    exporter.compute_maps(ended, torch.rand(5, 3, 32, 32), maps=[method], layers=[layer])
    assert calls[: 2 + forwards] == [5, *[1] * forwards, 5 if method == "occlusion" else 1]


def test_maps_of_a_batch_refuse_a_reading_that_is_none() -> None:
    with pytest.raises(TargetError, match="not probabilities; use reading='logits'"):
        grad_cam(twins(lambda y: y)[0], reading="probability")
    with pytest.raises(TargetError, match="'value' is for one output and the model gives 4"):
        grad_cam(twins(lambda y: y)[0], reading="value")
    with pytest.raises(TargetError, match=r"the reading 'prob' is unknown; .*probability"):
        grad_cam(twins(lambda y: y)[0], reading="prob")
