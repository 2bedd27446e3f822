"""What a run settles by trying before its first batch: the number format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import exporter
from exporter.errors import ModelError, RunError
from exporter.models import placement
from exporter.records import Plan
from exporter.store import Run, plan_differences
from tests.small import small

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


@pytest.fixture(autouse=True)
def by_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in formats that this processor has no instructions for, too."""
    monkeypatch.setattr(placement, "has_format", lambda *_: True)


def export(out: Path, model: nn.Module | None = None, **settings: Any) -> Run:
    wanted: dict[str, Any] = {"limit": 6, "batch_size": 4, "writers": (), "layers": ("1", "3")}
    return exporter.export(
        model or small(), PHOTOS, out=out, preprocessing={"size": 32}, **wanted | settings
    )


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_run_in_16_bits_says_what_that_changes(name: str, tmp_path: Path) -> None:
    exact, lowered = export(tmp_path / "exact"), export(tmp_path / name, precision=name)
    assert exact.plan.precision is None
    assert exact.plan.computed_on == exact.plan.execution
    record = lowered.plan.precision
    assert record is not None
    assert (record.name, record.images) == (name, 4)
    assert record.scale == (1 if name == "bf16" else 2.0**12)
    assert record.sentence in lowered.plan.notes
    assert lowered.plan.computed_on["precision"] == name
    assert lowered.plan.computed_on["against float32"] == record.change
    # What the record says is what the stored rows show.
    changes: dict[str, float] = {}
    pairs = zip(exact.rows(), lowered.rows(), strict=True)
    for before, after in list(pairs)[:4]:
        for old, new in zip(before.maps, after.maps, strict=True):
            change = float(abs(old.array() - new.array()).mean() / (old.hi - old.lo))
            where = f"{old.method} at {old.layer}"
            changes[where] = max(change, changes.get(where, 0.0))
    assert 0 < record.median <= record.largest < 0.02
    assert record.where in changes
    if name == "bf16":  # the stored rows of float16 are scaled a little less
        assert record.largest == pytest.approx(max(changes.values()), rel=1e-6)


def test_another_precision_is_not_gone_on_with(tmp_path: Path) -> None:
    export(tmp_path / "run", precision="bf16")
    with pytest.raises(RunError, match="precision was 'bf16' and is now 'float32'"):
        export(tmp_path / "run", resume=True)


def test_runs_older_than_the_setting_ran_in_float32(tmp_path: Path) -> None:
    new = export(tmp_path / "run").plan
    settings = {name: value for name, value in new.settings.items() if name != "precision"}
    old = Plan(**{f: getattr(new, f) for f in Plan.__slots__} | {"settings": settings})
    assert plan_differences(old, new) == []
    lowered = Plan(
        **{f: getattr(new, f) for f in Plan.__slots__}
        | {"settings": {**settings, "precision": "bf16"}}
    )
    assert plan_differences(old, lowered) == ["precision was 'float32' and is now 'bf16'"]


def test_workers_take_the_scale_of_the_plan(tmp_path: Path) -> None:
    out = tmp_path / "run"
    planned = exporter.plan(
        "tests.small:small", PHOTOS, out=out, limit=4, writers=(), layers=("1",),
        preprocessing={"size": 32}, precision="fp16",
    )  # fmt: skip
    plan = json.loads((out / "plan.json").read_text())
    assert plan["precision"]["scale"] == 2.0**12
    exporter.work(out)
    assert exporter.finish(out).plan.precision == planned.plan.precision


class Large(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * 1e6


def test_a_model_that_overflows_float16_is_refused(tmp_path: Path) -> None:
    model = small()
    model.insert(1, Large())
    with pytest.raises(ModelError) as no:
        export(tmp_path / "run", model, precision="fp16", layers=("0",))
    assert str(no.value) == (
        "in fp16 the model's output or its maps are not numbers for the first images, and in "
        "float32 they are; give --precision bf16 or float32"
    )
