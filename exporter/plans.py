"""The plan of a run, from what was settled."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from exporter.capture import rounds_to_tf32
from exporter.engines import Recipe
from exporter.faithfulness import Metric
from exporter.images import ImageSet
from exporter.models import match_labels
from exporter.paths import command_without_folders, values_without_folders, without_folders
from exporter.records import SCHEMA_VERSION, Plan
from exporter.targets import PlannedTarget, Target

_PACKAGES = (
    "exporter",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "pillow",
)


def make_plan(
    recipe: Recipe,
    image_set: ImageSet,
    target: PlannedTarget,
    *,
    before: tuple[str, ...],
    after: tuple[str, ...],
    **settled: Any,
) -> Plan:
    """Return the plan, with what the recipe, the images and the target say."""
    config, images = recipe.config, image_set.entries
    names = {entry.label for entry in images if entry.label is not None}
    labels = match_labels(names, target.record.classes)
    return Plan(
        schema=SCHEMA_VERSION,
        settings=values_without_folders(config.settings()),
        model=replace(target.record, spec=without_folders(target.record.spec)),
        target=without_folders(config.target),
        image_set=without_folders(image_set.where),
        images=images,
        shards=tuple(
            (start, min(start + config.shard_size, len(images)))
            for start in range(0, len(images), config.shard_size)
        ),
        label_match=labels.reason,
        label_index=labels.index,
        versions=_versions(),
        command=command_without_folders(recipe.command),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=(
            *before,
            *image_set.notes,
            *target.notes,
            *_unlabelled(target.scorer.target, image_set, labels.index),
            *after,
        ),
        **settled,
    )


def execution_of(
    example: torch.Tensor, channels_last: bool, metrics: Sequence[Metric], image_set: ImageSet
) -> dict[str, str]:
    """Return what was chosen by trial that could move a bit."""
    execution = {
        "device": example.device.type,
        "dtype": str(example.dtype).removeprefix("torch."),
        "memory format": "channels last" if channels_last else "contiguous",
    }
    if rounds_to_tf32(example.device):
        execution["products"] = "TF32"
    if image_set.ready:
        execution["items"] = "model-ready tensors"
    if image_set.remote:
        execution["ids"] = "of the listing"
    return execution | ({"metrics": ", ".join(m.name for m in metrics)} if metrics else {})


def _unlabelled(target: Target, image_set: ImageSet, known: Mapping[str, int]) -> tuple[str, ...]:
    """Say of how many images the label is asked for and is not known."""
    if not any(part.kind == "label" for part in (target, *target.parts)):
        return ()
    count = sum(entry.label not in known for entry in image_set.entries)
    if not count:
        return ()
    return (
        f"{count} of {len(image_set.entries)} images have no known label; the predicted class is "
        "explained for them",
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
