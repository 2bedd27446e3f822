"""What a run settles by trying before its first batch: number format, batch size, compiling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import exporter
from exporter import memory
from exporter.capture import compiled
from exporter.engines import tuning
from exporter.errors import ConfigError, ModelError, RunError
from exporter.models import placement
from exporter.records import Plan
from exporter.store import Run, plan_differences
from exporter.watch import Watch
from tests.small import small

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(autouse=True)
def by_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in formats that this processor has no instructions for, too."""
    monkeypatch.setattr(placement, "has_format", lambda *_: True)


def export(out: Path, model: nn.Module | None = None, **settings: Any) -> Run:
    wanted: dict[str, Any] = {"limit": 6, "batch_size": 4, "writers": (), "layers": ("1", "3")}
    return exporter.export(
        model or small(), PHOTOS, out=out, preprocessing={"size": 32}, **wanted | settings
    )


@pytest.mark.slow
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
        "float32 they are; give precision='bf16' or float32"
    )


class Limited(nn.Sequential):
    """A model on a device that holds eight images at a time."""

    limit = 8

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        outputs: torch.Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
        return outputs


def sizes_of(model: nn.Module) -> list[int]:
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    return sizes


def settled(run: Run) -> tuple[object, str]:
    return run.plan.settings["batch_size"], run.plan.notes[-1]


@pytest.mark.slow
def test_batches_double_to_what_fits_and_the_plan_remembers(tmp_path: Path) -> None:
    model = Limited(*small())
    sizes = sizes_of(model)
    run = export(tmp_path / "run", model, limit=13, batch_size="auto")
    assert settled(run) == (
        8,
        "the batch size 8 was found by trying: 16 do not fit into the memory of 'cpu'",
    )
    assert sizes[-2:] == [8, 5]
    (tmp_path / "run/run.json").unlink()
    (tmp_path / "run/shards/00000.parquet").unlink()
    sizes.clear()
    model.limit = 64
    again = export(tmp_path / "run", model, limit=13, batch_size="auto", resume=True)
    assert settled(again) == settled(run)  # though more would fit now


@pytest.mark.slow
def test_no_batch_is_larger_than_a_shard_or_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = export(tmp_path / "shard", batch_size="auto", shard_size=4)
    assert settled(run) == (4, "the batch size 4 was found by trying: no shard has more")
    monkeypatch.setattr(tuning, "_MOST_ON_CPU", 2)
    run = export(tmp_path / "most", batch_size="auto")
    assert settled(run) == (2, "the batch size 2 was found by trying: more were not tried")


@pytest.mark.slow
def test_on_a_cpu_half_of_the_free_memory_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small()
    sizes = sizes_of(model)
    # A process of 1 GB, that every image adds 100 MB to; 1.6 GB are free.
    monkeypatch.setattr(tuning, "free_memory", lambda: 1_600_000_000)
    monkeypatch.setattr(
        tuning, "peak_memory", lambda: 10**9 + 10**8 * (max(sizes[3:]) if sizes[3:] else 0)
    )
    run = export(tmp_path / "run", model, limit=13, batch_size="auto")
    assert settled(run) == (
        8,
        "the batch size 8 was found by trying: 16 would take more than half of the 1.6 GB that are "
        "free",
    )
    monkeypatch.setattr(tuning, "free_memory", lambda: None)
    run = export(tmp_path / "untold", batch_size="auto")
    assert settled(run)[0] == 1


def test_workers_take_the_batch_size_of_the_plan(tmp_path: Path) -> None:
    out = tmp_path / "run"
    planned = exporter.plan(
        "tests.small:small", PHOTOS, out=out, limit=4, writers=(), layers=("1",),
        preprocessing={"size": 32}, batch_size="auto",
    )  # fmt: skip
    assert planned.plan.settings["batch_size"] == 4
    assert json.loads((out / "recipe.json").read_text())["settings"]["batch_size"] == 4
    exporter.work(out)
    assert exporter.finish(out).complete


class Centred(nn.Sequential):
    """A model that holds an image against the others of its batch."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = super().forward(inputs - inputs.mean(0))  # type: ignore[no-untyped-call]
        return outputs


def test_where_the_batch_decides_what_maps_are_its_size_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        export(tmp_path / "run", Centred(*small()), batch_size="auto")
    assert str(refusal.value) == (
        "the model's output for an image depends on the others in its batch, so the batch size "
        "decides what the maps are: give batch_size= a number"
    )


def test_free_memory_is_the_machines_or_the_groups(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    assert memory.free_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n")
    assert memory.free_memory(tmp_path) == 4096
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000\n")
    assert memory.free_memory(tmp_path) == 4096
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("3000\n")
    assert memory.free_memory(tmp_path) == 2000
    assert 10**7 < (memory.peak_memory() or 0) < 10**12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "precision"),
    [("aot_eager", "float32"), ("aot_eager", "bf16"), ("inductor", "float32")],
)
def test_a_compiled_run_has_the_maps_of_a_plain_one(
    backend: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", backend)
    torch._dynamo.reset()
    wanted: dict[str, Any] = {"maps": ("gradcam", "layercam", "eigencam"), "target": "top-2"}
    wanted["precision"] = precision
    plain = export(tmp_path / "plain", **wanted)
    quick = export(tmp_path / "quick", compile=True, **wanted)
    for before, after in zip(plain.rows(), quick.rows(), strict=True):
        assert [p.index for p in before.predictions] == [p.index for p in after.predictions]
        assert len(before.maps) == len(after.maps) == 12
        for old, new in zip(before.maps, after.maps, strict=True):
            assert (old.method, old.layer, old.target) == (new.method, new.layer, new.target)
            allowed = 1e-4 if precision == "float32" else 0.1
            assert abs(old.array() - new.array()).max() <= allowed * (old.hi - old.lo)
    with pytest.raises(RunError, match="compile was False and is now True"):
        export(tmp_path / "plain", compile=True, resume=True, **wanted)


class Branching(nn.Sequential):
    """A model that looks at its numbers to choose its way."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        chosen = inputs if inputs.sum() > -1e9 else -inputs
        outputs: torch.Tensor = super().forward(chosen)  # type: ignore[no-untyped-call]
        return outputs


@pytest.mark.slow
def test_memory_that_runs_out_in_a_compiled_pass_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    captured, calls, said = compiled.CompiledCapture._capture, [], []

    def once_short(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return captured(*given)

    class Said(Watch):
        def say(self, line: str) -> None:
            said.append(line)

    wanted: dict[str, Any] = {"maps": ("gradcam",), "layers": ("3",), "batch_size": 4}
    plain = export(tmp_path / "plain", **wanted)
    monkeypatch.setattr(compiled.CompiledCapture, "_capture", once_short)
    quick = export(tmp_path / "quick", compile=True, watch=Said(), **wanted)
    assert len(calls) == 3
    assert sum("ran without being compiled" in line for line in said) == 1
    for before, after in zip(plain.rows(), quick.rows(), strict=True):
        for old, new in zip(before.maps, after.maps, strict=True):
            assert abs(old.array() - new.array()).max() <= 1e-4 * (old.hi - old.lo)


@pytest.mark.slow
def test_what_cannot_be_compiled_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(model: nn.Module, **settings: Any) -> str:
        with pytest.raises(ConfigError) as refusal:
            export(tmp_path / "run", model, compile=True, **settings)
        return str(refusal.value)

    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    assert refused(small(), maps=("gradcam", "saliency", "guidedbackprop")) == (
        "saliency, guidedbackprop run the model in a way that a compiled model does not support; "
        "leave out these maps, or compile=True"
    )
    assert refused(Centred(*small())).startswith("the model draws random numbers, or its output")
    branching = refused(Branching(*small()))
    assert branching.startswith("the model cannot be compiled: Unsupported: ")
    assert branching.endswith("; leave out compile=True")
    hooked = small()
    hooked.register_forward_hook(lambda _module, _inputs, output: -output)
    assert refused(hooked) == (
        "the compiled model has gradients that differ from the model's own; leave out compile=True"
    )


@pytest.mark.slow
def test_without_a_compiler_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    with pytest.raises(ConfigError, match=r"cannot be compiled: .*; leave out compile=True$"):
        export(tmp_path / "run", compile=True)
