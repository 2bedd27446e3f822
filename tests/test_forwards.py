"""How often a model runs before the first batch of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models import VisionTransformer

import exporter
from tests.small import small

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def before_the_first_batch(
    model: nn.Module, out: Path, where: object = PHOTOS, limit: int = 4, **settings: Any
) -> list[int]:
    """Return how many images went through the model at a time, before four of a batch."""
    images: list[int] = []

    def count(_module: nn.Module, inputs: Any) -> None:
        images.append(len(inputs[0]))

    model.register_forward_pre_hook(count)
    exporter.export(
        model,
        where,
        out=out,
        limit=limit,
        batch_size=4,
        writers=(),
        preprocessing={"size": 32},
        **settings,
    )
    return images[: images.index(4)]


def test_planning_runs_a_model_four_times_at_most(tmp_path: Path) -> None:
    # The trial that planning reads; its image between two others, to see whether a batch changes
    # what the model gives; the first image explained, to see what is missing.
    assert before_the_first_batch(small(), tmp_path / "run") == [1, 3, 1]


def test_of_a_transformer_it_sees_in_one_more_how_its_tokens_lie(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 4, 24, 48, num_classes=3)
    nn.init.normal_(model.heads.head.weight)
    assert before_the_first_batch(model, tmp_path / "run") == [1, 7, 3, 1]


def test_a_model_that_differs_in_a_batch_is_run_a_fourth_time_to_see_why(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    model.eval()(torch.zeros(1, 3, 32, 32))
    norm.register_forward_pre_hook(lambda module, _inputs: module.train() and None)
    assert before_the_first_batch(model, tmp_path / "run") == [1, 3, 1, 1]


def test_what_a_target_or_pictures_of_other_sizes_need_is_run_once_each(tmp_path: Path) -> None:
    # The reference image, and a picture of each size that is not the view's, however often asked.
    requests = [f"0:{n}:size={size},steps=1" for n, size in enumerate((16, 48, 16, 32))]
    target = f"similar:{PHOTOS / 'coffee.jpg'}"
    images = before_the_first_batch(
        small(), tmp_path / "run", target=target, maximise=tuple(requests)
    )
    assert images == [1, 3, 1, 1, 1, 1]


class Noise(Dataset[Tensor]):
    """Eighty images: twenty batches."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, number: int) -> Tensor:
        return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(number))


class Halves(Dataset[Tensor]):
    """Four images, of which the first ones are dark and leave the last ReLU of `behind` at zero."""

    def __init__(self, dark: int) -> None:
        self._dark = dark

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Tensor:
        return torch.full((3, 32, 32), -1.0 if number < self._dark else 1.0)


def behind() -> nn.Sequential:
    """Return a model of two resolutions that sees only bright images."""
    first, second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model = nn.Sequential(first, nn.Identity(), second, nn.ReLU(), *head)
    for layer in (first, second):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return model


@pytest.mark.filterwarnings("ignore:gradcam at .* zero everywhere")
@pytest.mark.parametrize(("dark", "further"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_another_image_or_two_are_tried_where_the_first_has_no_gradient(
    dark: int, further: int, tmp_path: Path
) -> None:
    images = before_the_first_batch(behind(), tmp_path / "run", Halves(dark))
    assert images == [1, *[1] * further, 3, 1]
    whole = ("3",) if dark > 2 else ("0", "3")
    assert exporter.open_run(tmp_path / "run").plan.explained == whole
    batch = torch.stack([Halves(dark)[number] for number in range(4)])
    maps = exporter.compute_maps(behind(), batch, maps="gradcam")
    assert tuple(layer for _, layer in maps) == whole


@pytest.mark.slow
def test_in_a_long_run_two_images_are_explained_alone_and_on_two_replicas(tmp_path: Path) -> None:
    images = before_the_first_batch(small(), tmp_path / "run", Noise(), limit=80)
    assert images == [1, 3, 1, *[1] * 4]
    assert exporter.open_run(tmp_path / "run").plan.findings.replicas is True  # type: ignore[union-attr]


def test_a_forward_that_fails_is_tried_again_with_less(tmp_path: Path) -> None:
    class Short(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x

    model = nn.Sequential(Short(), *small())
    assert before_the_first_batch(model, tmp_path / "run") == [1, 3, 2, 1]


@pytest.mark.parametrize("maps", ["eigencam", "gradcam", "ablationcam"])
@pytest.mark.parametrize(("layers", "again"), [("3", [2]), ("auto", [1, 2])])
def test_maps_of_a_batch_need_no_forward_but_the_trial(
    maps: str, layers: str, again: list[int]
) -> None:
    """How a layer that is named lies is tried once for a model and a size."""
    model, images = small().eval(), list[int]()
    for counts in ([1, 2], again):
        images.clear()
        handle = model.register_forward_pre_hook(
            lambda _module, inputs: images.append(len(inputs[0]))
        )
        exporter.compute_maps(model, torch.rand(2, 3, 64, 64), maps=maps, layers=layers)
        handle.remove()
        assert sorted(images[: len(counts)]) == counts
        assert maps == "ablationcam" or len(images) == len(counts)
