"""Runs to compare, made through the real store and without torch."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exporter.comparison import Comparison, compare
from exporter.records import LayoutRecord, Plan, Prediction, Row
from exporter.render import encode_png, kernel_sheet
from exporter.store import KernelSheet, create_run
from exporter.summaries import Scope, channel_table, shard_parts
from tests.packing import pack_map

Build = Callable[..., Path]

NAMES = ["<b>image</b> 00", *(f"image {n:02d}" for n in range(1, 12))]


@pytest.fixture(scope="session")
def build(sampling: ModuleType) -> Build:
    """Make a run whose predictions, maps, responses and kernels drift with ``step``."""

    def made(
        path: Path,
        *,
        step: int = 0,
        checkpoint: str | None = None,
        names: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        weights: str = "",
        settings: Mapping[str, Any] | None = None,
        finish: bool = True,
        explained: Sequence[str] = (),
        **plan_of: Any,
    ) -> Path:
        images = [
            sampling.SampleImage(f"{name}.jpg", sampling.CLASSES[n % 4], boxes=((50, 0, 300, 290),))
            for n, name in enumerate(names or NAMES)
        ]
        plan: Plan = sampling.sample_plan(
            images, **({"methods": ("gradcam", "eigencam")} | plan_of)
        )
        model = replace(
            plan.model,
            checkpoint=checkpoint,
            weights=weights or f"weights {step}",
            classes=tuple(classes or plan.model.classes),
        )
        sides = {
            layer.name: layer.output[1] for layer in plan.layers if len(layer.output or ()) == 3
        }
        plan = replace(
            plan,
            model=model,
            explained=tuple(explained) or plan.explained,
            settings=dict(plan.settings) | dict(settings or {}) | {"maximise": []},
            layouts={
                name: LayoutRecord("nchw", 8, sides[name], sides[name], 0, "said")
                for name in plan.explained
                if name in sides
            },
            created=f"2026-01-01T00:00:{step:02d}+00:00",
        )
        with create_run(path, plan) as folder:
            folder.write_kernels([kernels(step)])
            scope = Scope.of(plan)
            for index in range(len(plan.shards) if finish else 1):
                rows = [
                    drifted(row, plan, step) for row in sampling.sample_rows(plan, images, index)
                ]
                batches = [
                    replace(batch, mean=batch.mean + np.float32(0.1 * step) * batch.mean[:, ::-1])
                    for batch in sampling.sample_batches(plan, images, index)
                ]
                parts = {"": channel_table(batches), **shard_parts(rows, batches, scope)}
                folder.write_shard(index, rows, parts)
            if finish:
                sampling.finish_run(folder, 1.0)
        return path

    return made


def kernels(step: int) -> KernelSheet:
    """Return 12 kernels, turned by a known angle: their cosine with step 0 is cos(step / 10)."""
    generator = np.random.default_rng(3)
    first, other = generator.normal(size=(2, 12, 36))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    other -= (other * first).sum(axis=1, keepdims=True) * first
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    turned = np.cos(step / 10) * first + np.sin(step / 10) * other
    values = turned.reshape(12, 4, 3, 3).astype(np.float32)
    drawn, shown = kernel_sheet(values)
    return KernelSheet("layer3", "Conv2d", values, encode_png(drawn), shown)


def drifted(row: Row, plan: Plan, step: int) -> Row:
    """Change what is predicted of some images, and move the maps."""
    if not row.predictions:
        return row
    turn = int(hashlib.sha256(row.id.encode()).hexdigest(), 16)
    classes = plan.model.classes
    right = turn % 7 < 2 + step
    label = classes.index(row.label) if row.label in classes else 0
    index = label if right else (label + 1 + turn % 3) % len(classes)
    score = 0.3 + 0.5 * ((turn // 7) % 100) / 100 + 0.01 * step * (turn % 4)
    maps = tuple(
        pack_map(
            (1 - step / 10) * stored.array() + step / 10 * np.roll(stored.array(), step, axis=1),
            stored.method,
            stored.layer,
            f"class:{index}",
        )
        for stored in row.maps
    )
    return replace(
        row,
        predictions=(Prediction(index, classes[index], float(np.float32(score))),),
        label_index=label,
        correct=right,
        maps=maps,
    )


@pytest.fixture(scope="session")
def checkpoints(build: Build, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints of one model; the second of the folders is the last step."""
    place = tmp_path_factory.mktemp("checkpoints") / "with spaces & ünï"
    place.mkdir()
    return [
        build(place / name, step=step, checkpoint=f"epoch-{step}.pt")
        for name, step in (("a", 1), ("b", 5), ("c", 3))
    ]


@pytest.fixture(scope="session")
def comparison(checkpoints: list[Path]) -> Comparison:
    """Their comparison, with its report."""
    out = checkpoints[0].parent / "CMP"
    return compare(*checkpoints, out=out, writers=("tensorboard", "html"))


@pytest.fixture
def copied(comparison: Comparison, checkpoints: list[Path], tmp_path: Path) -> Path:
    """The comparison beside its runs, to be changed."""
    for path in checkpoints:
        shutil.copytree(path, tmp_path / path.name)
    shutil.copytree(comparison.path, tmp_path / "CMP")
    return tmp_path / "CMP"
