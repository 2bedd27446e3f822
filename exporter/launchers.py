"""Which of several processes this one is, as whatever started them says in the environment.

No other module reads such variables. torchrun's come first (other launchers set them too), then
those of srun and of SLURM's job arrays.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from exporter.errors import ConfigError, one_line

_CONNECTED: list[Any] = []
"""Stores that stay open: where no agent holds one, that of rank 0 serves the others."""

CARDS = "CUDA_VISIBLE_DEVICES"

_HELLO = timedelta(minutes=5)
"""How long processes that were started together wait for one another to start."""


@dataclass(frozen=True)
class Rank:
    """One of several processes that make one run.

    Attributes:
        number: from 0, which plans and finishes.
        count: how many there are.
        local: its number among those of the machine, which chooses its card.
        restarted: whether the launcher has started it before, so that it goes on.
        launch: tells this launch from earlier ones; ``""`` where the processes have to agree on it.
    """

    number: int
    count: int
    local: int = 0
    restarted: bool = False
    launch: str = ""


def read_rank(given: Mapping[str, str] | None = None) -> Rank | None:
    """Read the environment; None for a process that was started alone.

    Raises:
        ConfigError: if a variable is no number, or the numbers contradict one another.
    """
    variables = os.environ if given is None else given
    rank = _of_torchrun(variables) or _of_slurm(variables)
    if rank is not None and not 0 <= rank.number < rank.count:
        raise ConfigError(
            f"the environment says that this is process {rank.number} of {rank.count}, counted "
            "from 0; give exporter work the part by --shards i/n"
        )
    return rank


def _of_torchrun(variables: Mapping[str, str]) -> Rank | None:
    if not {"RANK", "WORLD_SIZE"} <= variables.keys():
        return None
    return Rank(
        _number(variables, "RANK"),
        _number(variables, "WORLD_SIZE"),
        _number(variables, "LOCAL_RANK", 0),
        restarted=_number(variables, "TORCHELASTIC_RESTART_COUNT", 0) > 0,
    )


def _of_slurm(variables: Mapping[str, str]) -> Rank | None:
    """Return the task's number in the job step, counted through the jobs of an array."""
    number, count, local = 0, 1, 0
    step, restarts = "", _number(variables, "SLURM_RESTART_COUNT", 0)
    # A batch script has the number of tasks too, and is none of them.
    if {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS"} <= variables.keys():
        number, count = _number(variables, "SLURM_PROCID"), _number(variables, "SLURM_NTASKS")
        local = _number(variables, "SLURM_LOCALID", 0)
        step = f".{variables['SLURM_STEP_ID']}.{restarts}"
    job = variables.get("SLURM_JOB_ID", "")
    if {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= variables.keys():
        jobs = _number(variables, "SLURM_ARRAY_TASK_COUNT")
        first = _number(variables, "SLURM_ARRAY_TASK_MIN", 0)
        index = _number(variables, "SLURM_ARRAY_TASK_ID") - first
        index //= max(1, _number(variables, "SLURM_ARRAY_TASK_STEP", 1))
        if jobs > 1:  # each job has restarts and steps of its own
            number, count, step = index * count + number, jobs * count, ""
            job = variables.get("SLURM_ARRAY_JOB_ID", job)
    if count == 1 and not restarts:
        return None
    return Rank(number, count, local, restarts > 0, f"slurm {job}{step}")


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ConfigError(
            f"the environment variable {name} is {text!r}, which is no number; unset it, or start "
            "the processes with torchrun or srun"
        ) from None


def agree(rank: Rank) -> str:
    """Return what tells this launch from earlier ones, the same text in each of its processes.

    Raises:
        ConfigError: if the processes do not find one another.
    """
    if rank.launch or rank.count == 1:
        return rank.launch
    from torch.distributed.rendezvous import rendezvous

    key = f"exporter {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        store, _, _ = next(rendezvous("env://", timeout=_HELLO))
        _CONNECTED.append(store)
        if rank.number == 0:
            store.set(key, f"torchrun {uuid.uuid4().hex}")
        return str(store.get(key).decode())
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {rank.number} of {rank.count} (RANK and WORLD_SIZE in the environment) does "
            f"not find the others: {one_line(error)}; start them with torchrun, or give "
            "exporter plan, exporter work --shards i/n and exporter finish"
        ) from None


def take_card(rank: Rank | None) -> None:
    """Let this process see one of the machine's CUDA cards alone; before CUDA is in use.

    Processes that share a machine take its cards in turn. A launcher that shows each process a card
    of its own (SLURM's ``--gpus-per-task``) has done so already.
    """
    if rank is not None and rank.count > 1:
        cards = visible_cards()
        if len(cards) > 1:
            os.environ[CARDS] = cards[rank.local % len(cards)]


def visible_cards() -> list[str]:
    """Return the names of the CUDA cards that this process sees, as the environment takes them."""
    import torch

    count = torch.cuda.device_count()  # it does not begin to use them
    named = [name.strip() for name in os.environ.get(CARDS, "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]
