"""From a spec to a model: which one, with which weights, classes and preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporter.capture import refuse_unfit, unwrapped
from exporter.config import PreprocessingConfig
from exporter.errors import ModelError
from exporter.models.adapting import Adapted, adapt
from exporter.models.checkpoints import (
    digest,
    fit_keys,
    head_size,
    load_state,
    read_checkpoint,
    state_digest,
)
from exporter.models.classes import configured_classes, read_classes
from exporter.models.code import code_digest
from exporter.models.libraries import from_demo, from_timm_name, from_torchvision_name
from exporter.models.preprocessing import default_for, override
from exporter.models.source import NONE, Source, from_factory
from exporter.records import ModelRecord, Preprocessing

_UNCHANGED = PreprocessingConfig()


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model and what a run says of it."""

    module: nn.Module
    record: ModelRecord
    notes: tuple[str, ...] = ()


def resolve(
    spec: str,
    *,
    weights: str = "DEFAULT",
    checkpoint: Path | None = None,
    seed: int = 0,
    preprocessing: PreprocessingConfig = _UNCHANGED,
    classes: Path | None = None,
) -> ResolvedModel:
    """Build the model that a spec means, on the CPU and in eval mode.

    Only weights that are asked for are fetched: ``none`` and a checkpoint never reach for the
    network. What is random is drawn from ``seed``; torch's random state is left as it was.

    Args:
        spec: ``torchvision:resnet50`` or ``resnet50``, ``timm:NAME``, ``package.module:factory``,
            ``path/file.py:factory``, or ``demo``.
        weights: ``DEFAULT``, ``none`` or a name. Transforms and class names of the weights also
            hold for ``none`` (those of the default ones) and for a checkpoint.
        checkpoint: a ``.pt``, ``.pth`` or ``.safetensors`` file that holds all of the model's
            tensors; the weights are then not fetched. One with another number of classes gives the
            model that number.
        seed: seed of random weights.
        preprocessing: overrides of what the weights say.
        classes: file of class names.

    Raises:
        ModelError: if the model, its weights, its checkpoint or its class names cannot be loaded.
        ConfigError: if the overrides contradict one another.
    """
    source = find_source(spec, weights)
    named = None if classes is None else read_classes(classes)
    read = None if checkpoint is None else read_checkpoint(checkpoint)
    said, left_out = NONE if weights == NONE else source.weights, ""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = source.build(weights == NONE or read is not None, None)
        own_classes = source.classes(module)
        if read is not None and checkpoint is not None:
            fitted, left_out = fit_keys(read.states, module, checkpoint)
            size = head_size(fitted, module) if source.resizable else None
            if size is not None:
                module, own_classes = source.build(True, size), ()
            load_state(module, fitted, checkpoint)
            said = f"checkpoint {digest(checkpoint)}"
    return _resolved(
        module.eval(),
        source.preprocessing,
        preprocessing,
        own=source.own and checkpoint is None,
        note=left_out,
        weights=said,
        name=source.name,
        spec=spec,
        checkpoint=None if checkpoint is None else checkpoint.name,
        step=read and read.step,
        step_key=read.step_key if read else "",
        classes=own_classes if named is None else named,
        type=type(unwrapped(module)).__name__ if source.own else "",
    )


def adopt(
    module: nn.Module,
    *,
    name: str | None = None,
    preprocessing: PreprocessingConfig = _UNCHANGED,
    classes: Sequence[str] | None = None,
) -> ResolvedModel:
    """Take a model that was handed over in Python, and leave it untouched.

    Args:
        module: the model, in any mode and on any device; of a compiled one or a
            `torch.nn.DataParallel`, the module inside is taken.
        name: how to call it; the class name if None.
        preprocessing: overrides of what the model says (timm's ``pretrained_cfg``) or the default.
        classes: class names by index; None for those of the model's config, if it has any.

    Raises:
        ModelError: if it is not a ``torch.nn.Module``, or does not fit (see
            `exporter.capture.refuse_unfit`).
        ConfigError: if the overrides contradict one another.
    """
    kind = type(unwrapped(module)).__name__
    return _resolved(
        module,
        default_for,
        preprocessing,
        own=True,
        weights="as handed over",
        name=name or kind,
        spec=f"python:{kind}",
        checkpoint=None,
        classes=configured_classes(unwrapped(module)) if classes is None else tuple(classes),
    )


def _resolved(
    built: nn.Module,
    preset: Callable[[nn.Module], Preprocessing],
    overrides: PreprocessingConfig,
    *,
    own: bool,
    weights: str,
    note: str = "",
    **said: Any,
) -> ResolvedModel:
    """Complete the record from the module inside; the user's own is told apart by its numbers."""
    inner = unwrapped(built)
    module = adapt(inner)
    refuse_unfit(module)
    record = ModelRecord(
        weights=f"{weights} {state_digest(module)}" if own else weights,
        preprocessing=override(preset(module), overrides),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        code=code_digest(module),
        **said,
    )
    wrapper, kind = type(built).__name__, type(module).__name__
    inside = "" if inner is built else f"what runs is the {kind} inside the {wrapper}"
    called = f"of the {kind} {module.gives}" if isinstance(module, Adapted) else ""
    return ResolvedModel(module, record, tuple(filter(None, (inside, called, note))))


def find_source(spec: str, weights: str) -> Source:
    """Find where a spec's model comes from, without building it."""
    kind, colon, rest = spec.partition(":")
    if not spec.strip() or (colon and (not rest or not kind)):
        raise ModelError(
            f"the model {spec!r} is incomplete; write torchvision:NAME, timm:NAME, "
            "package.module:factory, path/file.py:factory or demo"
        )
    if spec == "demo":
        return from_demo(weights)
    if kind == "timm" and colon:
        return from_timm_name(rest, weights)
    if kind != "torchvision" and colon:
        return from_factory(spec, weights)
    if spec.endswith(".py"):
        raise ModelError(f"the model {spec!r} names no factory; write {spec}:FACTORY")
    return from_torchvision_name(rest or spec, weights)
