"""Runs that come from elsewhere are data: odd values and damage are no traceback."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.comparison.differences import axis_of, differences_of
from exporter.comparison.predictions import class_name
from exporter.store import open_run
from exporter.writers.reading import seconds_of


def test_values_of_any_kind_are_compared(checkpoints: list[Path]) -> None:
    plan = open_run(checkpoints[0]).plan
    odd = replace(plan, settings={**plan.settings, "seed": [1, {}]})
    assert axis_of([plan, odd]) == "seed"
    (difference,) = differences_of([plan, odd], [plan, odd], "seed", 0)
    assert difference.values == (str(plan.settings.get("seed")), "[1, {}]")
    assert class_name(plan, -9) == "-9"
    assert class_name(plan, 0) == plan.model.classes[0]


def test_a_time_that_is_none_is_the_first(checkpoints: list[Path]) -> None:
    assert seconds_of("yesterday") == 0
    assert seconds_of("1970-01-02") == 86400 == seconds_of("1970-01-02T01:00:00+01:00")


def test_a_flipped_byte_is_not_compared(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoints[1], run)
    shard = next((run / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    out = tmp_path / "CMP"
    assert main(["compare", str(checkpoints[0]), str(run), "--out", str(out)]) == 2
    assert f"shards/{shard.name}" in capsys.readouterr().err
    assert not out.exists()
