"""The table of a model's layers, and its counts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from exporter.capture import parse_name, quoted
from exporter.layers.trial import Trial
from exporter.records import LayerRecord, LayoutRecord

_CONTAINERS = re.compile(r"Sequential|ModuleList|ModuleDict|.*Stage|_?DenseBlock|BasicLayer")
_SHORTCUTS = frozenset({"downsample", "shortcut", "skip", "conv_shortcut", "proj_shortcut"})


def layer_table(trial: Trial) -> tuple[LayerRecord, ...]:
    """List every module with what a trial shows of it.

    Returns:
        The modules in the order in which the model holds them; further calls of a module follow it
        as ``name#2``, ``name#3`` … with no parameters of their own.
    """
    shapes: dict[str, tuple[int, ...] | None] = {}
    repeats: dict[str, list[str]] = defaultdict(list)
    for call in trial.calls:
        shape = call.shapes.get("")
        shapes[call.name] = None if not shape else shape[1:]
        if call.layer.call > 1:
            repeats[call.layer.module].append(call.name)
    table: list[LayerRecord] = []
    for name, child in trial.module.named_modules():
        if not name:
            continue
        own = sum(parameter.numel() for parameter in child.parameters(recurse=False))
        for row in (quoted(name), *repeats[name]):
            table.append(
                LayerRecord(
                    name=row,
                    type=type(child).__name__,
                    output=shapes.get(row),
                    parameters=0 if row in repeats[name] else own,
                    depth=name.count("."),
                    fired=row in shapes,
                )
            )
    return tuple(table)


def layout_records(trial: Trial, names: Iterable[str]) -> dict[str, LayoutRecord]:
    """Return how the outputs of layers lie in the plane, and why; those that have a plane."""
    layouts = {name: trial.planes[name].layout for name in names if name in trial.planes}
    return {
        name: LayoutRecord(
            each.kind, each.channels, each.height, each.width, each.prefix, each.evidence
        )
        for name, each in layouts.items()
    }


def count_layers(table: Sequence[LayerRecord]) -> dict[str, Any]:
    """Count what a table of layers holds.

    Returns:
        ``modules`` (repeated calls counted once), ``types`` (number by class name, most first),
        ``convolutions`` (without those of shortcuts), ``downsample`` (convolutions of shortcuts),
        ``linear``, ``blocks`` and ``block_type`` (the repeated building block that holds most
        parameters, not counting those inside another; 0 and ``""`` where nothing repeats),
        ``parameters``, ``never_fired`` (leaf modules the trial did not call).
    """
    rows = [row for row in table if parse_name(row.name).call == 1]
    parents = {row.name.rpartition(".")[0] for row in rows}
    types = Counter(row.type for row in rows)
    convolutions = [row for row in rows if row.type == "Conv2d"]
    shortcuts = [row for row in convolutions if not _SHORTCUTS.isdisjoint(row.name.split("."))]
    block_type, blocks = _blocks(rows, parents)
    return {
        "modules": len(rows),
        "types": dict(types.most_common()),
        "convolutions": len(convolutions) - len(shortcuts),
        "downsample": len(shortcuts),
        "linear": types.get("Linear", 0),
        "blocks": blocks,
        "block_type": block_type,
        "parameters": sum(row.parameters for row in rows),
        "never_fired": sum(not row.fired and row.name not in parents for row in rows),
    }


def _blocks(rows: Sequence[LayerRecord], parents: set[str]) -> tuple[str, int]:
    """Return the outermost repeated composite type with most parameters, and its number."""
    composite = {
        row.name: row.type
        for row in rows
        if row.fired and row.name in parents and not _CONTAINERS.fullmatch(row.type)
    }
    counts = Counter(composite.values())
    repeated = {name: kind for name, kind in composite.items() if counts[kind] > 1}
    outermost: dict[str, str] = {
        name: kind
        for name, kind in repeated.items()
        if not any(above in repeated for above in _above(name))
    }
    weight: Counter[str] = Counter()
    for row in rows:
        for above in (row.name, *_above(row.name)):
            if above in outermost:
                weight[outermost[above]] += row.parameters
    number = Counter(outermost.values())
    candidates = [kind for kind in number if number[kind] > 1]
    if not candidates:
        return "", 0
    best = max(candidates, key=lambda kind: weight[kind])
    return best, number[best]


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
