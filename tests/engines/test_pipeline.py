"""The pipeline around a simulated device, which ends no batch before the one after it is launched.

What the host may do is counted: waits, buffers, and which thread does what. The order of the
device's own work is logged, stream by stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from exporter.config import build_config
from exporter.engines import Computed, Job, Recipe, local
from exporter.explain import transfer, work
from exporter.explain.transfer import Lanes
from exporter.planning import bind
from exporter.watch import Watch
from tests.small import small

BATCHES = 12
PATIENCE = 5.0
"""Seconds after which a wait is taken for a deadlock."""


@dataclass
class Stream:
    """A queue of the device: what was put into it, in order."""

    name: str
    log: list[str] = field(default_factory=list)

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"after {other.name}")


@dataclass
class Device:
    """The calls of `exporter.explain.transfer.Cuda`, counted.

    Attributes:
        ahead: how many batches have to be launched beyond one before it ends.
    """

    ahead: int = 1
    launched: int = 0
    allocated: int = 0
    copied_out: int = 0
    waits: list[tuple[int, int, str]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    turn: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._current = self.main = Stream("main")

    def stream(self) -> Stream:
        self.streams.append(Stream(("inward", "outward")[len(self.streams)]))
        return self.streams[-1]

    def current(self) -> Stream:
        return self._current

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self._current = self._current, stream
        stream.log.append("copy")
        yield
        self._current = before

    def hold(self, _tensor: Tensor, stream: Stream) -> None:
        self.held.append(stream.name)

    def pinned(self, size: int) -> Tensor:
        with self.turn:
            self.allocated += 1
        return torch.full((size,), 255, dtype=torch.uint8)

    def launch(self) -> None:
        with self.turn:
            self.launched += 1
            self.turn.notify_all()

    def event(self, stream: Stream) -> Event:
        if stream.name == "outward":
            self.copied_out += 1
        return Event(self, self.copied_out, stream.name == "outward")


@dataclass
class Event:
    """The end of a batch's copy, in or out."""

    device: Device
    batch: int
    outward: bool

    @property
    def due(self) -> int:
        """How many batches have to be launched before it happens."""
        return min(self.batch + self.device.ahead * self.outward, BATCHES)

    def query(self) -> bool:
        return self.device.launched >= self.due

    def synchronize(self) -> None:
        device = self.device
        with device.turn:
            assert device.turn.wait_for(self.query, PATIENCE), "the host waits for what it delays"
            thread = threading.current_thread().name
            device.waits.append((self.batch, device.launched, thread))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """Yield a job of twelve batches of two images, in three shards, decoded by two threads."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(2 * BATCHES):
        cv2.imwrite(str(tmp_path / f"photos/{index:02}.jpg"), noise.integers(0, 255, (40, 40, 3)))
    config = build_config(
        model="small", images=str(tmp_path / "photos"), out=tmp_path / "run", layers=("1", "3"),
        maps=("gradcam", "layercam"), batch_size=2, shard_size=8, workers=2,
        preprocessing={"size": 32},
    )  # fmt: skip
    with bind(Recipe(config, module=small())) as planned:
        yield planned


def computed(job: Job, *, overlapped: bool) -> list[Computed]:
    taken: list[Computed] = []
    batches = [batch for shard in range(len(job.plan.shards)) for batch in job.cut(shard)]
    run = local._overlapped if overlapped else local._in_turn
    with local._Storing(lambda _index, parts: taken.extend(parts), Watch()) as storing:
        run(job, batches, storing, job.explainer(job.module))
    return taken


def simulated(job: Job, device: Device, monkeypatch: pytest.MonkeyPatch) -> list[Computed]:
    launch = vars(local)["launch"]

    def counted(*given: Any) -> Any:
        pending = launch(*given)
        device.launch()
        return pending

    monkeypatch.setattr(local, "launch", counted)
    return computed(replace(job, transfer=Lanes(device)), overlapped=True)


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_host_waits_once_per_batch_and_never_for_the_one_launched_last(
    job: Job, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(ahead)
    simulated(job, device, monkeypatch)
    assert sorted(batch for batch, _, _ in device.waits) == list(range(1, BATCHES + 1))
    for batch, launched, thread in device.waits:
        assert launched >= min(batch + ahead, BATCHES)
        # No more are in flight than may be, whatever the host is busy with.
        assert launched <= batch + local._IN_FLIGHT + 1
        assert thread in {f"rows_{number}" for number in range(local._ROWS)}


def test_rows_of_batches_in_flight_are_those_of_batches_in_turn(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [row for part in computed(job, overlapped=False) for row in part.rows]
    parts = simulated(job, Device(2), monkeypatch)
    assert [row for part in parts for row in part.rows] == expected


def test_pinned_buffers_are_used_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(2)
    simulated(job, device, monkeypatch)
    # Batches that are decoded (four ahead, two being decoded), launched and read, each with a
    # buffer for its images and one for its labels, or for what it gives.
    assert device.allocated <= 2 * (4 + 2) + local._IN_FLIGHT + 2 < 3 * BATCHES


def test_copies_run_beside_the_kernels_and_in_their_order(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device()
    simulated(job, device, monkeypatch)
    inward, outward = device.streams
    # Images and labels go in while the kernels of the batch before run; nothing holds them up.
    assert inward.log == ["copy"] * 2 * BATCHES
    assert device.main.log == ["after inward"] * 2 * BATCHES
    assert outward.log == ["after main", "copy"] * BATCHES
    assert device.held == ["main", "main", "outward"] * BATCHES


def test_the_thread_that_launches_does_no_work_of_the_host(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[str]] = {}

    def noting(module: Any, name: str) -> None:
        original = getattr(module, name)

        def noted(*given: Any, **named: Any) -> Any:
            thread = threading.current_thread().name.rstrip("0123456789")
            threads.setdefault(name, set()).add(thread)
            return original(*given, **named)

        monkeypatch.setattr(module, name, noted)

    noting(import_module("exporter.explain.rows"), "encode_jpeg")
    noting(work, "_read")
    noting(Lanes, "stage")
    noting(local._Storing, "_write")
    noting(local, "launch")
    simulated(job, Device(), monkeypatch)
    assert threads == {
        "_read": {"decode_"},
        "stage": {"decode_"},
        "launch": {"MainThread"},
        "encode_jpeg": {"rows_"},
        "_write": {"store_"},
    }


def test_a_buffer_is_not_written_to_while_it_is_copied() -> None:
    device = Device()
    lanes = Lanes(device)
    first = lanes.stage([np.arange(3, dtype=np.uint8)])
    there = lanes.to_device(first, torch.device("cpu"))
    device.copied_out = 1  # the copy in of a batch that is not launched yet
    lanes.release(first)
    second = lanes.stage([np.zeros(3, np.uint8)])
    assert device.allocated == 2
    device.launch()
    third = lanes.stage([np.ones(3, np.uint8)])
    assert device.allocated == 2
    assert third.data_ptr() == first.data_ptr() != second.data_ptr()
    assert there.tolist() == [[0, 1, 2]]


def test_only_a_card_has_lanes() -> None:
    assert type(transfer.transfer_for(torch.device("cpu"))) is transfer.Transfer
    assert type(transfer.transfer_for(torch.device("mps"))) is transfer.Transfer
