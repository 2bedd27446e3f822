"""Worker processes beside this one, which take shards from the same queue.

Python runs one thread at a time, so one process feeds a card with a few hundred images per second
(docs/benchmarks.md); several share it. Each is ``exporter work RUN --shards -``: it builds the
model as the recipe says, reads shard numbers, writes those shards into the run folder and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

import torch

from exporter.capture import tf32_environment
from exporter.config import RunConfig
from exporter.engines.job import Job
from exporter.errors import INTERRUPTED, ConfigError, one_line
from exporter.launchers import CARDS, visible_cards
from exporter.watch import Watch

_WORTH_STARTING = 8192
"""Images below which the other processes would begin when this one is nearly done."""

_CORES = 4
"""Cores that keep one process busy."""

READY = "ready"
"""What a process says when it has built the model."""

_PATIENCE = 10.0
"""Seconds that a process has to end in when the run is given up."""


def cards_of(config: RunConfig) -> tuple[int, ...]:
    """Return the numbers of the CUDA cards that share a run; none unless it is asked for.

    Raises:
        ConfigError: if there are no such cards.
    """
    if config.devices is None:
        return ()
    there = len(visible_cards())
    cards = tuple(range(there)) if config.devices == "all" else tuple(dict.fromkeys(config.devices))
    wrong = [card for card in cards if card >= there]
    if wrong or not cards:
        has = f"this machine shows {there} CUDA card{'s' * (there != 1)}"
        raise ConfigError(
            f"there is no card {wrong[0]} for --devices: {has}, counted from 0"
            if wrong
            else f"--devices all is for CUDA cards, and {has}; leave it out"
        )
    return cards


def processes_of(job: Job, missing: Sequence[int]) -> int:
    """Return how many processes compute, this one included.

    Raises:
        ConfigError: if several are asked for, and others cannot do what this one does.
    """
    config = job.recipe.config
    told = tf32_environment(job.device) is not None
    asked, cards = config.processes, len(cards_of(config))
    if cards:
        asked = max(cards, 0 if asked == "auto" else asked)
    if asked != "auto":
        if asked > 1:
            job.recipe.require_portable("a worker process")
            if not told:
                raise ConfigError(
                    "torch is set to allow TF32 in products of matrices and not in convolutions, "
                    "which cannot be passed on to a worker process; allow it in both, or give "
                    "--processes 1"
                )
        return min(asked, len(missing))
    images = sum(stop - start for start, stop in (job.plan.shards[shard] for shard in missing))
    alone = config.compile or job.measures or not (job.recipe.portable and told)
    if job.device.type != "cuda" or alone or images < _WORTH_STARTING:
        return 1
    free, _ = torch.cuda.mem_get_info(job.device)
    held = max(1, torch.cuda.max_memory_reserved(job.device))
    return max(1, min((os.cpu_count() or 1) // _CORES, 1 + free // held, len(missing)))


def command(job: Job) -> list[str]:
    """Return the command of a worker process."""
    run = ("work", str(job.recipe.config.out), "--shards", "-", "--workers", str(job.workers))
    return [sys.executable, "-m", "exporter", *run]


class Beside:
    """Other processes that compute a part of the shards, as a context manager around the rest.

    Whichever process is free takes the next shard. A process that ends early gives back what it had
    not stored. On leaving, all of them have ended.
    """

    def __init__(self, job: Job, missing: Sequence[int], count: int, watch: Watch) -> None:
        self._job = job
        self._left = deque(missing)
        self._watch = watch
        # Beside a card the host's products are small, and threads that wait for the next one spin.
        on_cpu = job.device.type == "cpu"
        self._threads = max(1, torch.get_num_threads() // count) if on_cpu else 1
        shard = max(stop - start for start, stop in job.plan.shards)
        # As many as a pipeline holds: a process that waited for the next one would stand still.
        self._ahead = 2 + (max(4, job.workers) + 3) * job.batch_size // shard
        self._workers: list[tuple[subprocess.Popen[str], threading.Thread]] = []
        self._count = count - 1
        self._cards = cards_of(job.recipe.config)
        self._given_up = False
        self._before = torch.get_num_threads()

    def __enter__(self) -> Beside:
        torch.set_num_threads(self._threads)
        for number in range(1, 1 + self._count):
            try:
                self._start(number)
            except (OSError, RuntimeError) as error:  # the system starts no more of them
                self._watch.say(f"no more worker processes could be started: {one_line(error)}")
                break
        return self

    def __exit__(self, *_: object) -> None:
        for worker, thread in self._workers:
            if thread.is_alive():  # the run was given up; of what is stored nothing is lost
                self._given_up = True  # however a process ends that is told to
                worker.terminate()
        for worker, thread in self._workers:
            thread.join(_PATIENCE)
            if thread.is_alive():
                worker.kill()
                thread.join()
        torch.set_num_threads(self._before)

    def _environment(self, number: int) -> dict[str, str]:
        """Return the environment of a process; this one, number 0, has the first card."""
        environment = {
            **os.environ,
            **(tf32_environment(self._job.device) or {}),
            "OMP_NUM_THREADS": str(self._threads),
        }
        if self._cards:
            environment[CARDS] = visible_cards()[self._cards[number % len(self._cards)]]
        return environment

    def _start(self, number: int) -> None:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the thread that attends)
        worker = subprocess.Popen(
            command(self._job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=self._environment(number),
        )
        thread = threading.Thread(target=self._attend, args=(worker, errors), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            worker.kill()
            raise
        self._workers.append((worker, thread))

    def rounds(self) -> Iterator[Iterator[int]]:
        """Yield the shards that are left for this process, until every shard is stored.

        One round is all there is to do, unless another process ended early.
        """
        while self._left:
            yield iter(self._take, None)
            for _, thread in self._workers:
                thread.join()

    def _take(self) -> int | None:
        try:
            return self._left.popleft()  # a deque's own operations need no lock
        except IndexError:
            return None

    def _attend(self, worker: subprocess.Popen[str], errors: IO[bytes]) -> None:
        """Hand shards to a process until there are none, and take back what it does not store."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        given: set[int] = set()
        # It may end at any time, and what the model's own code prints is no number.
        with errors, suppress(OSError), worker.stdin, worker.stdout:
            with suppress(OSError, ValueError):
                if worker.stdout.readline().strip() == READY:
                    self._hand(worker.stdin, given, self._ahead)
                for line in worker.stdout:
                    given.remove(shard := int(line))
                    start, stop = self._job.plan.shards[shard]
                    self._watch.advance(stop - start)
                    self._hand(worker.stdin, given, 1)
            status = worker.wait()
            self._left.extend(sorted(given))
            if status not in (0, INTERRUPTED) and not self._given_up:
                errors.seek(0)
                told = errors.read().decode(errors="replace").strip().splitlines()
                reason = told[-1].removeprefix("error: ") if told else f"status {status}"
                self._watch.say(
                    f"a worker process ended early ({reason}); others compute its shards"
                )

    def _hand(self, to: IO[str], given: set[int], number: int) -> None:
        with suppress(OSError):  # it has ended; what it has said before is still to be read
            for _ in range(number):
                if to.closed:
                    return
                shard = self._take()
                if shard is None:
                    to.close()  # it ends when it has stored what it was given
                    return
                given.add(shard)
                to.write(f"{shard}\n")
            to.flush()
