"""Replicas are used only where they give the model's bits; what a later batch lacks is an error."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import exporter
from exporter.config import build_config
from exporter.engines import Recipe, local, replicas
from exporter.errors import ExporterError, LayerError
from exporter.maps import METHODS
from exporter.planning import bind
from exporter.watch import Watch
from tests.hostile.guests import Around
from tests.small import small

PHOTOS = Path(__file__).parent.parent.parent / "examples" / "photos"
HELD: dict[str, Tensor] = {}


class Remembering(nn.Module):
    """Keeps its input somewhere while it computes, and reads it back, in one forward."""

    def __init__(self, held: dict[str, Tensor]) -> None:
        super().__init__()
        self.net = nn.Sequential(*small())
        # What a closure holds is not copied.
        self.write = lambda x: held.update(last=x)
        self.read = lambda: held["last"]

    def forward(self, x: Tensor) -> Tensor:
        self.write(x)
        x = functional.avg_pool2d(x, 3, 1, 1)
        return self.net(x + self.read())


def in_a_closure() -> nn.Module:
    return Remembering({})


def in_a_global() -> nn.Module:
    return Remembering(HELD)


def in_a_hook() -> nn.Module:
    model = nn.Sequential(*small())
    held: dict[str, Tensor] = {}
    model[0].register_forward_hook(lambda _m, _i, output: held.update(first=output))
    model[2].register_forward_pre_hook(lambda _m, inputs: (inputs[0] + held["first"],))
    return model


def forward_of_another() -> nn.Module:
    """A block whose forward is bound to the block itself."""
    model = nn.Sequential(nn.Sequential(*small()))
    original = model[0].forward
    model[0].forward = lambda x: original(x) + 0  # type: ignore[method-assign]
    return model


class Default(nn.Module):
    """Shares a mutable default argument among all copies."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*small())

    def forward(self, x: Tensor, _held: dict[str, Tensor] = {}) -> Tensor:  # noqa: B006
        _held["x"] = x
        x = functional.avg_pool2d(x, 3, 1, 1)
        return self.net(x + _held["x"])


class OfClass(nn.Module):
    """Keeps its input in an attribute of its class."""

    held: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(*small())

    def forward(self, x: Tensor) -> Tensor:
        OfClass.held = x
        x = functional.avg_pool2d(x, 3, 1, 1)
        return self.net(x + OfClass.held)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small pictures."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for number in range(40):
        cv2.imwrite(str(folder / f"{number:02}.jpg"), noise.integers(0, 255, (40, 40, 3)))
    return folder


def job_of(model: nn.Module, photos: Path, out: Path, **settings: Any) -> Any:
    config = build_config(
        model="sharing",
        images=str(photos),
        out=out,
        preprocessing={"size": 32},
        batch_size=2,
        shard_size=8,
        **settings,
    )
    return bind(Recipe(config, module=model))


def computed(job: Any) -> list[Any]:
    taken: list[Any] = []
    local.run(
        job,
        list(range(len(job.plan.shards))),
        lambda _index, parts: taken.extend(row for part in parts for row in part.rows),
        Watch(),
    )
    return taken


EVERY = tuple(name for name, method in METHODS.items() if not method.needs.attention)


def partial_of_its_own() -> nn.Module:
    """A forward that is copied with its block."""
    model = nn.Sequential(nn.Sequential(*small()))
    model[0].forward = functools.partial(model[0].forward)  # type: ignore[method-assign]
    return model


def plain() -> nn.Module:
    return nn.Sequential(nn.Sequential(*small()))


@pytest.mark.parametrize(
    ("build", "apart"),
    [
        (in_a_closure, False),
        (forward_of_another, False),
        (plain, True),
        *(
            pytest.param(build, apart, marks=pytest.mark.slow)
            for build, apart in (
                (in_a_global, False),
                (in_a_hook, False),
                (Default, False),
                (OfClass, False),
                (partial_of_its_own, True),
            )
        ),
    ],
)
def test_replicas_are_used_only_where_they_share_nothing(
    build: Callable[[], nn.Module],
    apart: bool,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[int] = []
    run = local.Replicas.run
    monkeypatch.setattr(replicas, "_PATIENCE", 2.0)
    maps = EVERY if build is partial_of_its_own else ("gradcam", "saliency")
    with job_of(build(), photos, tmp_path / "run", layers=("@ReLU",), maps=maps) as job:
        in_turn = computed(job)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        # Replicas always win where they may be used.
        monkeypatch.setattr(local, "_timed", lambda work: (work(), 1.0 / (1 + len(used)))[1])
        monkeypatch.setattr(
            local.Replicas, "run", lambda *given: (used.append(len(given[1])), run(*given))
        )
        assert computed(job) == in_turn
    assert job.plan.findings.replicas is apart
    assert bool(used) == apart
    assert any("two replicas" in note for note in job.plan.notes) != apart
    assert all(row.maps for row in in_turn)


# ---------------------------------------------------------------- what a later batch lacks


class Seldom(nn.Module):
    """Leaves a layer out for some images."""

    def __init__(self, leave: Callable[[Tensor], bool], how: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.leave, self.how = leave, how

    def forward(self, x: Tensor) -> Tensor:
        left = self.leave(x)
        features = self.first(x)
        if not left or self.how == "detached":
            deep = self.second(features)
            features = features + (deep.detach() if left else deep)
        elif self.how == "without gradients":
            with torch.no_grad():
                deep = self.second(features)
            features = features + deep
        return self.head(features.mean((2, 3)))


def third_call() -> Callable[[Tensor], bool]:
    """Leave it out once the run's first batches are done."""
    sizes: list[int] = []

    def leave(x: Tensor) -> bool:
        sizes.append(len(x))
        return sizes.count(2) > 2

    return leave


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("never called", "never called"),
        ("detached", "no gradient reaches it"),
        ("without gradients", "no gradient reaches it"),
    ],
)
def test_a_layer_that_a_later_batch_lacks_is_an_error_of_that_batch(
    how: str, why: str, photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    with pytest.raises(
        LayerError, match=rf"a batch of 2 images, from '04.*nothing at 'second'.*{why}"
    ):
        exporter.export(
            Seldom(third_call(), how),
            photos,
            out=tmp_path / "run",
            maps=("gradcam",),
            layers=("first", "second"),
            preprocessing={"size": 32},
            batch_size=2,
            shard_size=4,
            writers=(),
        )
    # What was computed before it is there, and is gone on with.
    assert exporter.open_run(tmp_path / "run").shards == (0,)


@pytest.fixture(autouse=True)
def nothing_is_held() -> Iterator[None]:
    yield
    HELD.clear()


class Growing(nn.Module):
    """Gives four classes, and eight later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().mean((2, 3))


def twice(scores: Tensor, later: bool) -> Tensor:
    return torch.cat((scores, scores), 1) if later else scores


def by_a_replaced_forward() -> nn.Module:
    model, later = Growing(), third_call()
    original = model.forward
    model.forward = lambda x: twice(original(x), later(x))  # type: ignore[method-assign]
    return model


def by_a_hook() -> nn.Module:
    model, later = Growing(), third_call()
    model.register_forward_hook(lambda _m, inputs, scores: twice(scores, later(inputs[0])))
    return model


def by_a_module_behind_it() -> nn.Module:
    later = third_call()
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3, 2), pool=nn.AdaptiveAvgPool2d(1)))
    model.append(Around(nn.Flatten(), lambda x: twice(x, later(x))))
    return model


@pytest.mark.parametrize("build", [by_a_replaced_forward, by_a_hook, by_a_module_behind_it])
def test_a_number_of_classes_that_changes_is_an_error_of_that_batch(
    build: Callable[[], nn.Module], photos: Path, tmp_path: Path
) -> None:
    """The plan says how many classes there are."""
    with pytest.raises(ExporterError, match="gives 8 values for each image of this batch and gave"):
        exporter.export(
            build(),
            photos,
            out=tmp_path / "run",
            maps=("gradcam",),
            layers=("conv",),
            preprocessing={"size": 32},
            batch_size=2,
            writers=(),
        )


class Classes(nn.Module):
    """Gives as many classes as there are images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3)).unsqueeze(1).expand(-1, len(x) + 1)


@pytest.mark.parametrize("target", ["predicted", "top-2", "0"])
def test_as_many_classes_as_images_are_refused(target: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ExporterError, match="values"):
        exporter.export(
            Classes(),
            photos,
            out=tmp_path / "run",
            maps=("saliency",),
            target=target,
            preprocessing={"size": 32},
            writers=(),
        )
