"""The local engine: order, replicas, and a device that runs out of memory."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from exporter.config import build_config
from exporter.engines import Computed, Job, Recipe, compute_shard, local, replicas
from exporter.errors import ModelError
from exporter.explain import compute, load
from exporter.planning import bind
from exporter.records import Row
from exporter.watch import Watch


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@contextmanager
def bound(
    tmp_path: Path, module: nn.Module, layers: tuple[str, ...], maps: tuple[str, ...]
) -> Iterator[Job]:
    """Yield a job of 60 images, one broken, in shards of 7 and batches of 2."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(60):
        cv2.imwrite(str(tmp_path / f"photos/{index}.jpg"), noise.integers(0, 255, (40, 40, 3)))
    (tmp_path / "photos/5.jpg").write_bytes(b"broken")
    config = build_config(
        model="small",
        images=str(tmp_path / "photos"),
        out=tmp_path / "run",
        maps=maps,
        layers=layers,
        batch_size=2,
        shard_size=7,
        preprocessing={"size": 32},
    )
    with bind(Recipe(config, module=module)) as planned:
        yield planned


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    with bound(tmp_path, small(), ("1", "3"), maps=("gradcam", "eigencam", "cam")) as planned:
        yield planned


def rows(job: Job, missing: list[int] | None = None) -> list[Row]:
    """Compute shards and return their rows, asserting that shards come whole and in order."""
    wanted = list(range(len(job.plan.shards))) if missing is None else missing
    taken: list[tuple[int, list[Computed]]] = []
    local.run(job, wanted, lambda index, parts: taken.append((index, parts)), Watch())
    assert [index for index, _ in taken] == wanted
    for index, parts in taken:
        start, stop = job.plan.shards[index]
        found = [row.id for part in parts for row in part.rows]
        assert found == [entry.id for entry in job.plan.images[start:stop]]
    return [row for _, parts in taken for part in parts for row in part.rows]


@pytest.mark.slow
def test_shards_come_whole_and_in_order_with_a_row_an_image(job: Job) -> None:
    found = rows(job)
    assert len(found) == 60
    assert [row.path for row in found if row.error] == ["5.jpg"]


@pytest.mark.slow
def test_a_shard_does_not_depend_on_the_others(job: Job) -> None:
    every = rows(job)
    start, stop = job.plan.shards[3]
    assert rows(job, [3]) == every[start:stop]


@pytest.mark.slow
def test_replicas_give_the_bits_of_one_model(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    in_turn = rows(job)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    used: list[int] = []
    run = local.Replicas.run
    monkeypatch.setattr(
        local.Replicas,
        "run",
        lambda self, batches, take: (used.append(1), run(self, batches, take)),
    )
    # The trial is decided by the clock; here replicas always win.
    monkeypatch.setattr(local, "_timed", lambda work: (work(), 1.0 / (1 + len(used)))[1])
    assert rows(job) == in_turn
    assert len(used) == 3


@pytest.mark.slow
def test_rows_made_beside_the_model_are_those_made_in_turn(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_turn = rows(job)
    threads: set[str] = set()
    rows_of = local.rows

    def noting(*given: Any) -> Computed:
        threads.add(threading.current_thread().name)
        return rows_of(*given)

    monkeypatch.setattr(local, "rows", noting)
    monkeypatch.setattr(local, "_on_cpu", lambda job, batches, storing: local._overlapped(
        job, batches, storing, job.explainer(job.module)
    ))  # fmt: skip
    assert rows(job) == in_turn
    assert threads
    assert threads <= {"rows_0", "rows_1"}


class Locked(nn.Sequential):
    """A model that holds something that cannot be copied."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.lock = threading.Lock()


class Noisy(nn.Sequential):
    """A model that draws random numbers in eval, too."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs + 0.1 * torch.randn_like(inputs))


class Counting(nn.Sequential):
    """A model that writes a buffer in eval, too."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return super().forward(inputs) * self.seen


class Rebound(nn.Sequential):
    """A model with a block whose forward is a closure over the block itself."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(nn.Sequential(*parts))
        block = self[0]
        original = block.forward
        block.forward = lambda inputs: original(inputs) + 0  # type: ignore[method-assign]


class Remembering(nn.Sequential):
    """A model that reads what a forward hook wrote into a dictionary."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        held: dict[str, torch.Tensor] = {}
        self[0].register_forward_hook(lambda _module, _inputs, output: held.update(first=output))
        self[-1].register_forward_hook(
            lambda _module, _inputs, output: output + held["first"].mean((2, 3))[:, :4]
        )


LAST: list[torch.Tensor] = []


class Global(nn.Module):
    """A layer that keeps its input in a global, for another to read."""

    def __init__(self, *, reads: bool) -> None:
        super().__init__()
        self.reads = reads

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.reads:
            return inputs + LAST[0].mean()
        LAST[:] = [inputs]
        return inputs


def globally(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(*parts[:1], Global(reads=False), *parts[1:], Global(reads=True))


class Loop(nn.Sequential):
    """A model that calls a layer as often as the image says."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for _ in range(int(inputs[0, 0, 0, 0] * 1000) % 50):
            inputs = self[-1](inputs)
        return super().forward(inputs)


def looping(*parts: nn.Module) -> nn.Module:
    return Loop(*parts, nn.Identity())


class Forgetful(nn.Sequential):
    """A model whose copies lack something that they need."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.gain = 1.0

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        twin = Forgetful(*self)
        del twin.gain
        return twin

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs * self.gain)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [Locked, Noisy, Counting, Rebound, Remembering, globally, looping, Forgetful]
)
def test_models_whose_copies_are_not_apart_have_no_replicas(
    tmp_path: Path, kind: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ("0.0",) if kind is Rebound else ("0",)
    monkeypatch.setattr(replicas, "_PATIENCE", 0.5)
    with bound(tmp_path, kind(*small()), layers, maps=("gradcam",)) as odd:
        torch.manual_seed(0)
        in_turn = rows(odd)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(local.Replicas, "run", None)  # calling it would raise
        torch.manual_seed(0)
        assert rows(odd) == in_turn


def test_a_batch_before_the_one_that_fails_is_still_stored(job: Job) -> None:
    explainer = job.explainer(job.module)
    calls: list[int] = []

    class Failing:
        def __call__(self, batch: torch.Tensor, labels: torch.Tensor) -> object:
            calls.append(1)
            if len(calls) > 4:  # the first of the second shard
                raise ValueError("no more")
            return explainer(batch, labels)

    stored: list[int] = []
    batches = [batch for shard in range(2) for batch in job.cut(shard)]
    with (
        pytest.raises(ModelError, match="no more"),
        local._Storing(lambda index, _parts: stored.append(index), Watch()) as storing,
    ):
        local._overlapped(job, batches, storing, Failing())  # type: ignore[arg-type]
    assert stored == [0]


@pytest.mark.slow
def test_decoding_threads_change_nothing(job: Job) -> None:
    assert rows(dataclasses.replace(job, workers=3)) == rows(dataclasses.replace(job, workers=0))


def test_out_of_memory_halves_the_batch_and_loses_nothing(job: Job) -> None:
    entries = job.plan.images[:6]
    explainer = job.explainer(job.module)
    whole = compute(job, explainer, load(job, entries))
    sizes: list[int] = []

    class Tight:
        """An explainer on a device that holds two images."""

        def __call__(self, batch: torch.Tensor, labels: torch.Tensor) -> object:
            sizes.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError
            return explainer(batch, labels)

    halved = compute(job, Tight(), load(job, entries))  # type: ignore[arg-type]
    assert sizes == [5, 2, 2, 1]
    assert [row.id for row in halved.rows] == [row.id for row in whole.rows]
    for one, other in zip(halved.rows, whole.rows, strict=True):
        for stored, expected in zip(one.maps, other.maps, strict=True):
            span = expected.hi - expected.lo
            np.testing.assert_allclose(stored.array(), expected.array(), atol=1e-4 * span)


def test_a_batch_of_one_that_does_not_fit_is_an_error(job: Job) -> None:
    class Full:
        def __call__(self, batch: torch.Tensor, labels: torch.Tensor) -> object:
            raise torch.OutOfMemoryError

    with pytest.raises(ModelError, match="not even one image of a batch"):
        compute(job, Full(), load(job, job.plan.images[:4]))  # type: ignore[arg-type]


def test_a_model_that_fails_later_is_an_error_of_one_line(job: Job) -> None:
    class Picky:
        def __call__(self, batch: torch.Tensor, labels: torch.Tensor) -> object:
            raise ValueError("one image a time\nand more")

    with pytest.raises(ModelError, match=r"a batch of 3 images, from .* ValueError: one") as e:
        compute(job, Picky(), load(job, job.plan.images[:3]))  # type: ignore[arg-type]
    assert "--batch-size" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.slow
def test_what_the_first_image_showed_is_not_looked_for_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = job.explainer(job.module)
    assert job.explainer(job.module) is explainer
    for name in ("run_trial", "find_classifier"):
        for module in ("planning", "explain.layers"):
            monkeypatch.setattr(f"exporter.{module}.{name}", None, raising=False)
    assert all(row.maps for row in rows(job) if row.error is None)


@pytest.mark.slow
def test_shards_that_are_computed_are_stored_when_the_user_interrupts(job: Job) -> None:
    """The first three shards are done when the fourth is interrupted; storing takes its time."""

    class Interrupting(Watch):
        done = 0

        def advance(self, steps: int = 1) -> None:
            self.done += steps
            if self.done > 3 * 7:
                raise KeyboardInterrupt

    stored: list[int] = []

    def store(index: int, batches: list[Computed]) -> None:
        time.sleep(0.5)
        stored.append(index)

    with pytest.raises(KeyboardInterrupt):
        local.run(job, [0, 1, 2, 3, 4], store, Interrupting())
    assert stored == [0, 1, 2]


@pytest.mark.slow
def test_one_shard_is_what_the_engine_gives(job: Job) -> None:
    start, stop = job.plan.shards[3]
    found = [row for computed in compute_shard(job, 3) for row in computed.rows]
    assert found == rows(job)[start:stop]


def test_a_failing_store_stops_the_run(job: Job) -> None:
    def full(index: int, parts: list[Computed]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        local.run(job, [0, 1, 2, 3], full, Watch())
