"""Run folders of any size for the report's benchmark, written through the real store.

A row is computed once for each of the bundled photographs: the JPEG bytes, 20 maps of 5 methods at
4 layers of 56, 28, 14 and 7 cells per side, and the strongest 8 channels of each layer. Every image
of the set reuses the bytes of one of them; its id, path, label, predictions, loss and verdict are
its own. What the set shows (channels, classes, confused pairs, agreement, strips) is summed up by
the real summaries, for 1,000 classes, and the model has as many modules and channels as
MobileNetV3-Small. So files and pages are as large as a real run's, and a large set takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.demo import photographs
from exporter.images import decode
from exporter.records import (
    ChannelBatch,
    ImageEntry,
    LayerRecord,
    MethodRecord,
    ModelRecord,
    Plan,
    Prediction,
    Preprocessing,
    Row,
)
from exporter.render import encode_jpeg, encode_png, kernel_sheet
from exporter.store import KernelSheet, create_run
from exporter.summaries import (
    Scope,
    channel_table,
    merge_channels,
    merge_set,
    shard_parts,
)
from tests.packing import pack_activation, pack_map

Layers = Mapping[str, tuple[int, int]]

METHODS = ("gradcam", "gradcam++", "xgradcam", "layercam", "hirescam")
LAYERS = {
    "features.1": (16, 56),
    "features.3": (24, 28),
    "features.8": (48, 14),
    "features.12": (576, 7),
}
"""Channels and cells per side of each explained layer, as in MobileNetV3-Small at 224 pixels."""

SMALL = {"features.1": (16, 7)}
"""The layer of runs whose maps and photographs are as small as can be."""

MODULES = 156
"""Modules of the table of layers."""
CLASSES = 1000
SHARD = 256
VIEW, SMALL_VIEW = 224, 16


def write_run(
    path: Path,
    count: int,
    seed: int = 0,
    *,
    methods: Sequence[str] = METHODS,
    strongest: int = 8,
    small: bool = False,
) -> None:
    """Write a complete run of so many images.

    Args:
        path: the run folder; must not be there.
        count: images.
        seed: of the maps; runs of several seeds have the same images.
        methods: of the maps.
        strongest: channels of each layer that are kept per image.
        small: whether maps and photographs are as small as can be: what then grows with the set is
            what is known of every image.
    """
    layers, view = (SMALL, SMALL_VIEW) if small else (LAYERS, VIEW)
    plan = _plan(count, seed, methods, layers, view)
    random = np.random.default_rng(seed)
    scope = Scope.of(plan)
    prototypes = _prototypes(plan, random, methods, strongest, layers)
    with create_run(path, plan) as folder:
        folder.write_kernels([_kernels(random)])
        for index, (start, stop) in enumerate(plan.shards):
            entries = plan.images[start:stop]
            channels = _batches(entries, random, layers)
            rows = [
                _row(plan, entry, prototypes[(start + at) % len(prototypes)], start + at, seed)
                for at, entry in enumerate(entries)
            ]
            parts = {"": channel_table(channels), **shard_parts(rows, channels, scope)}
            folder.write_shard(index, rows, parts)
        merged = merge_set(folder.summaries, scope)
        channels = merge_channels(folder.summaries())
        folder.finish(1.0, merged.tables, merged.summary, channels)


def _plan(count: int, seed: int, methods: Sequence[str], of: Layers, view: int) -> Plan:
    classes = tuple(f"class {number:03d}" for number in range(CLASSES))
    keys = [hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest() for n in range(count)]
    return Plan(
        schema=1,
        settings={"model": "torchvision:mobilenet_v3_small", "maps": list(methods), "seed": seed},
        model=ModelRecord(
            name="mobilenet_v3_small",
            spec="torchvision:mobilenet_v3_small",
            weights="none",
            checkpoint=None,
            classes=classes,
            preprocessing=Preprocessing(size=(view, view), resize=256, source="the benchmark"),
            parameters=2_542_856,
            outputs=len(classes),
        ),
        layers=_modules(of),
        explained=tuple(of),
        layer_reason="four stages",
        recorded=tuple(of),
        methods=tuple(
            MethodRecord(
                name=name,
                title=name,
                shows="A synthetic map.",
                formula="",
                paper="",
                url="",
                cost="none",
                caveats="",
                relu=True,
            )
            for name in methods
        ),
        target="predicted",
        image_set="the benchmark's images",
        images=tuple(
            ImageEntry(
                key,
                key,
                f"folder {n // 1000:03d}/photograph {n:06d}.jpg",
                classes[n % len(classes)],
                None,
                None,
                None,
            )
            for n, key in enumerate(keys)
        ),
        shards=tuple((start, min(start + SHARD, count)) for start in range(0, count, SHARD)),
        label_match="labels are the names of classes",
        label_index={name: index for index, name in enumerate(classes)},
        execution={"device": "cpu", "dtype": "float32"},
        versions={"exporter": "benchmark"},
        command="python -m benchmarks.report",
        created="2026-01-01T00:00:00+00:00",
    )


def _modules(of: Layers) -> tuple[LayerRecord, ...]:
    """Return the table of layers: the explained ones, each followed by as many of its parts."""
    parts = MODULES // len(of) - 1
    return tuple(
        record
        for name, (channels, side) in of.items()
        for record in (
            LayerRecord(name, "Block", (channels, side, side), 0, 0, True),
            *(
                LayerRecord(f"{name}.{at}", "Conv2d", (channels, side, side), 1000, 1, True)
                for at in range(parts)
            ),
        )
    )


def _kernels(random: np.random.Generator) -> KernelSheet:
    values = random.normal(size=(16, 3, 3, 3)).astype(np.float32)
    picture, shown = kernel_sheet(values)
    return KernelSheet("features.1.0", "Conv2d", values, encode_png(picture), shown)


def _prototypes(
    plan: Plan,
    random: np.random.Generator,
    methods: Sequence[str],
    strongest: int,
    of: Layers,
) -> list[Row]:
    rows = []
    for file in sorted(photographs().glob("*.jpg")):
        pixels = decode(file.read_bytes())
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        cut = np.ascontiguousarray(pixels[top : top + side, left : left + side])
        view = cv2.resize(cut, plan.model.preprocessing.size, interpolation=cv2.INTER_AREA)
        entry = plan.images[0]
        rows.append(
            Row(
                id=entry.id,
                key=entry.key,
                path=entry.path,
                width=width,
                height=height,
                crop=(left, top, left + side, top + side),
                image=encode_jpeg(np.asarray(view, np.uint8), 85),
                maps=tuple(
                    pack_map(_smooth(random, side), method, layer, "class:0")
                    for method in methods
                    for layer, (_, side) in of.items()
                ),
                activations=tuple(
                    pack_activation(
                        np.stack([_smooth(random, side) for _ in range(channels)]),
                        layer,
                        strongest,
                    )
                    for layer, (channels, side) in of.items()
                    if strongest
                ),
            )
        )
    return rows


def _smooth(random: np.random.Generator, side: int) -> NDArray[np.float32]:
    coarse = random.normal(size=(7, 7)).astype(np.float32)
    grown = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    noise = random.normal(scale=0.05, size=(side, side))
    return np.asarray(grown + noise, np.float32)


def _row(plan: Plan, entry: ImageEntry, prototype: Row, number: int, seed: int) -> Row:
    label = number % len(plan.model.classes)
    turn = number + number // len(plan.model.classes) + 2 * seed
    right = turn % 10 < 7
    first = label if right else (label + 1 + turn // 10 % 5) % len(plan.model.classes)
    score = 0.3 + 0.7 * (number * 7919 % 9973) / 9973
    others = [(first + step) % len(plan.model.classes) for step in range(1, 5)]
    predictions = (
        Prediction(first, plan.model.classes[first], score),
        *(Prediction(n, plan.model.classes[n], (1 - score) / 5) for n in others),
    )
    return replace(
        prototype,
        id=entry.id,
        key=entry.key,
        path=entry.path,
        label=entry.label,
        label_index=label,
        predictions=predictions,
        loss=float(-np.log(score if right else (1 - score) / 5)),
        correct=right,
    )


def _batches(
    entries: Sequence[ImageEntry], random: np.random.Generator, of: Layers
) -> list[ChannelBatch]:
    count = len(entries)
    found = []
    for layer, (channels, side) in of.items():
        mean = random.random((count, channels), dtype=np.float32)
        found.append(
            ChannelBatch(
                layer=layer,
                ids=tuple(entry.id for entry in entries),
                mean=mean,
                maximum=mean * 3,
                zeros=random.random((count, channels), dtype=np.float32),
                place=random.integers(0, side * side, (count, channels)).astype(np.int32),
                height=side,
                width=side,
            )
        )
    return found
