"""From a spec to a model: which one, with which weights, classes and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from exporter.capture import refuse_unfit, unwrapped
from exporter.config import PreprocessingConfig
from exporter.errors import ModelError, kind_of
from exporter.models.checkpoints import (
    digest,
    fit_keys,
    head_size,
    load_state,
    read_checkpoint,
    state_digest,
)
from exporter.models.classes import check_classes, read_classes
from exporter.models.factories import from_factory
from exporter.models.libraries import from_demo, from_timm_name, from_torchvision_name
from exporter.models.preprocessing import default_for, override
from exporter.models.source import NONE, Source, seeded
from exporter.records import ModelRecord

_UNCHANGED = PreprocessingConfig()


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model and what a run says of it.

    Attributes:
        module: the model.
        record: what a run says of it; ``output`` and ``outputs`` are open until ``with_output``.
        notes: what the user should know of it.
    """

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
    state = None if checkpoint is None else read_checkpoint(checkpoint)
    with seeded(seed):
        module = source.build(weights == NONE or state is not None, None)
        own_classes = source.classes(module)
        if state is not None and checkpoint is not None:
            fitted = fit_keys(state, module)
            size = head_size(fitted, module) if source.resizable else None
            if size is not None:
                module, own_classes = source.build(True, size), ()
            load_state(module, fitted, checkpoint)
    built, module = module, unwrapped(module)
    refuse_unfit(module)
    said = NONE if weights == NONE else source.weights
    if checkpoint is not None:
        said = f"checkpoint {digest(checkpoint)}"
    elif source.own:
        said = f"{said} {state_digest(module)}"
    record = ModelRecord(
        name=source.name,
        spec=spec,
        weights=said,
        checkpoint=None if checkpoint is None else checkpoint.name,
        classes=own_classes if named is None else named,
        preprocessing=override(source.preprocessing(module), preprocessing),
        parameters=_count(module),
    )
    return ResolvedModel(module.eval(), record, _notes(built, module))


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
        name: how to call it; the class name where None.
        preprocessing: overrides of what the model says (timm's ``pretrained_cfg``) or the default.
        classes: class names by index.

    Raises:
        ModelError: if it is not a ``torch.nn.Module``, or does not fit (see
            `exporter.capture.refuse_unfit`).
        ConfigError: if the overrides contradict one another.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"the model is {kind_of(module)}; give a torch.nn.Module or a spec")
    given, module = module, unwrapped(module)
    refuse_unfit(module)
    weights = f"as handed over {state_digest(module)}"
    preset = default_for(module)
    kind = type(module).__name__
    record = ModelRecord(
        name=name or kind,
        spec=f"python:{kind}",
        weights=weights,
        checkpoint=None,
        classes=tuple(classes or ()),
        preprocessing=override(preset, preprocessing),
        parameters=_count(module),
    )
    return ResolvedModel(module, record, _notes(given, module))


def with_output(
    record: ModelRecord, path: str, outputs: int, scores: str = "probability"
) -> ModelRecord:
    """Complete a record, once a trial forward has shown the model's output.

    Args:
        record: as ``resolve`` gave it.
        path: where the explained tensor is, as ``locate_output`` found it.
        outputs: number of values per row of it.
        scores: what a prediction's score is.

    Raises:
        ModelError: if there are class names, and not one for each value.
    """
    check_classes(record.classes, outputs)
    return replace(record, output=path, outputs=outputs, scores=scores)


def find_source(spec: str, weights: str) -> Source:
    """Find where a spec's model comes from, without building it.

    Raises:
        ModelError: if the spec is malformed, or there is no such model or weights.
    """
    kind, colon, rest = spec.partition(":")
    if not spec.strip() or (colon and (not rest or not kind)):
        raise ModelError(
            f"the model {spec!r} is incomplete; write torchvision:NAME, timm:NAME, "
            "package.module:factory, path/file.py:factory or demo"
        )
    if spec == "demo":
        return from_demo(weights)
    if kind == "torchvision" and colon:
        return from_torchvision_name(rest, weights)
    if kind == "timm" and colon:
        return from_timm_name(rest, weights)
    if colon:
        return from_factory(spec, weights)
    if spec.endswith(".py"):
        raise ModelError(f"the model {spec!r} names no factory; write {spec}:FACTORY")
    return from_torchvision_name(spec, weights)


def _notes(wrapper: nn.Module, module: nn.Module) -> tuple[str, ...]:
    if module is wrapper:
        return ()
    return (f"what runs is the {type(module).__name__} inside the {type(wrapper).__name__}",)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
