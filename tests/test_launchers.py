"""What is read of the environment that torchrun and SLURM set."""

from __future__ import annotations

import os

import pytest
import torch

from exporter.errors import ConfigError
from exporter.launchers import Rank, agree, read_rank, take_card, visible_cards

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "0"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
STEP = BATCH | {"SLURM_STEP_ID": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
ARRAY = {
    "SLURM_JOB_ID": "103", "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4",
}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, None),
        (TORCHRUN, Rank(3, 4, 1)),
        (TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "2"}, Rank(3, 4, 1, restarted=True)),
        ({"RANK": "0", "WORLD_SIZE": "2"}, Rank(0, 2)),
        ({"RANK": "0"}, None),
        (STEP | TORCHRUN, Rank(3, 4, 1)),
        (STEP, Rank(5, 8, 1, launch="slurm 7.2.0")),
        (STEP | {"SLURM_RESTART_COUNT": "1"}, Rank(5, 8, 1, True, "slurm 7.2.1")),
        (BATCH, None),
        (BATCH | {"SLURM_RESTART_COUNT": "1"}, Rank(0, 1, 0, True, "slurm 7")),
        (STEP | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        (ARRAY, Rank(2, 4, launch="slurm 100")),
        (ARRAY | BATCH | {"SLURM_JOB_ID": "103"}, Rank(2, 4, launch="slurm 100")),
        (ARRAY | STEP, Rank(21, 32, 1, launch="slurm 100")),
    ],
)
def test_which_process_this_is(variables: dict[str, str], rank: Rank | None) -> None:
    assert read_rank(variables) == rank


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "variable RANK is 'x', which is no number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "process 2 of 2, counted from 0"),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "90"}, "process 43 of 4, counted from 0; .* --shards i/n"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(
    variables: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_rank(variables)


def test_processes_agree_on_their_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    launches = set()
    for restarts in ("0", "0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        first = agree(Rank(0, 2))
        monkeypatch.setenv("RANK", "1")
        assert agree(Rank(1, 2)) == first
        launches.add(first)
    assert len(launches) == 3
    assert agree(Rank(1, 2, launch="slurm 7.2.0")) == "slurm 7.2.0"


def test_processes_that_nothing_leads_together_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"1 of 2 .*MASTER_ADDR expected.*start them with torchr"):
        agree(Rank(1, 2))


@pytest.mark.parametrize(
    ("shown", "count", "local", "seen"),
    [
        (None, 4, 2, "2"),
        (None, 4, 5, "1"),
        ("4,GPU-a, 7", 3, 1, "GPU-a"),
        ("6", 1, 3, "6"),
        (None, 0, 1, None),
    ],
)
def test_each_process_of_a_machine_sees_a_card(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, count: int, local: int, seen: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown or "")  # so that it is put back
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    before = visible_cards()
    take_card(None)
    take_card(Rank(0, 1, local))
    assert visible_cards() == before
    take_card(Rank(local, 8, local))
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
