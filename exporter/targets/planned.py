"""What a run explains: its target, held against one trial output of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from exporter.doors import load_reference
from exporter.errors import ModelError, TargetError, kind_of
from exporter.models import check_classes, embed_text, refuse_classes
from exporter.records import ModelRecord, Target, parse_target
from exporter.targets.detection import is_detections
from exporter.targets.outputs import locate_output, logits_behind, say_guess
from exporter.targets.probabilities import Given, last_function, read_numbers, shares
from exporter.targets.scorer import Scorer

Load = Callable[[str], tuple[Tensor, str]]
"""From the path of a reference image to the model's input (1, C, H, W) and the file's hash."""

_BACKGROUND = ("__background__", "background")


@dataclass(frozen=True)
class PlannedTarget:
    """A target that fits the model.

    Attributes:
        scorer: turns outputs into what is explained.
        record: the model's record, with the explained output and its number of values.
        notes: what the user should know: which output was guessed, how it is read.
        execution: what a resumed run must have in common (the reference image's hash).
    """

    scorer: Scorer
    record: ModelRecord
    notes: tuple[str, ...] = ()
    execution: dict[str, str] = field(default_factory=dict)


def plan_target(
    text: str,
    module: nn.Module,
    example: Tensor,
    returned: Any,
    record: ModelRecord,
    *,
    output: str | None,
    load: Load,
    masks: bool,
    reading: tuple[str, str] = ("auto", ""),
) -> PlannedTarget:
    """Read a target, and hold it against what the model gave for one image.

    Args:
        text: as the command line writes it (`exporter.records.parse_target`).
        module: the model, as a guest.
        example: one image, (1, C, H, W).
        returned: what the model gave for it in a trial, without a graph.
        record: what is known of the model so far.
        output: path of the explained tensor inside its output; None lets it be found.
        load: reads the reference image of ``similar``.
        masks: whether the image set has masks.
        reading: what the output's numbers are, ``logits``, ``probability``, ``value`` or ``auto``,
            and the last function of the model (see `last_function`).

    Raises:
        TargetError: if the target does not fit the output; it says what would.
        ModelError: if there are class names, and not one for each value.
    """
    asked, ends = reading
    scorer, said = settle_reading(
        text, record.classes, returned, output, reading=asked, ends=lambda: ends
    )
    target, path = scorer.target, scorer.output
    refuse_classes(module, target)
    scorer = replace(
        scorer,
        function=_function(target.source) if target.kind == "function" else None,
        background=next((n for n, c in enumerate(record.classes) if c in _BACKGROUND), None),
    )
    execution = {}
    if target.kind == "similar":
        reference, digest = load(target.source)
        with torch.no_grad():
            embedding = locate_output(module(reference), path)[0]
        scorer = replace(scorer, reference=embedding.detach().flatten())
        execution["reference image"] = digest
    elif target.kind == "text":
        scorer = replace(scorer, reference=embed_text(module, target.source))
    unknown = torch.full((len(example),), -1, device=example.device)
    held = torch.full_like(example[:, 0], 255, dtype=torch.uint8) if scorer.takes_masks else None
    with torch.no_grad():
        read = scorer(returned, unknown, held).reading
    most = max(part.k for part in target.parts or (target,))
    if read.outputs is not None and most > read.outputs:
        raise TargetError(
            f"the target {text!r} asks for {most} classes and the model has {read.outputs}; "
            f"give top-{read.outputs} or fewer"
        )
    if scorer.takes_masks and not masks:
        raise TargetError(
            "the target 'mask' needs masks and the image set has none; give a list of images with "
            "a column mask"
        )
    record = replace(record, classes=_names(target, record.classes))
    # Boxes do not say how many classes there are; the names do, where there are some.
    outputs = len(record.classes) if read.outputs is None else read.outputs
    check_classes(record.classes, outputs)
    return PlannedTarget(
        scorer,
        replace(
            record, output=path or "", outputs=outputs, scores=read.shown, reading=scorer.given
        ),
        (*said, *filter(None, (read.note,))),
        execution,
    )


def settle_reading(
    text: str,
    classes: Sequence[str],
    returned: Any,
    output: str | None,
    *,
    reading: str,
    ends: Callable[[], str] | None = None,
) -> tuple[Scorer, tuple[str, ...]]:
    """Settle which part of an output is explained and what its numbers are, from one output.

    ``ends`` says the last function of the model, and is asked only where the numbers leave it open;
    where it is None, that is read off the output's graph.

    Returns:
        The scorer, without what else the target needs, and what the user should know of it.

    Raises:
        TargetError: if nothing is where ``output`` says, or the numbers are no probabilities.
    """
    target = parse_target(text, classes)
    path, guess = _located(returned, output, whole=target.kind == "function")
    given: Given = "logits"
    said = ""
    if path is not None and not target.compares and target.kind != "function":
        values = locate_output(returned, path)[0][:1]
        given, said = read_numbers(
            values.detach(), reading, ends or (lambda: last_function(values))
        )
        several = values.ndim in (2, 4) and values.shape[1] > 1
        if given == "probability" and several and not shares(values) and _asks_classes(target):
            # Each class is right or wrong by itself.
            target = parse_target(f"multilabel:{text}", classes)
    return Scorer(target, given=given, output=path), tuple(filter(None, (guess, said)))


def _asks_classes(target: Target) -> bool:
    """Say whether a target is one of classes, and does not say how they are read."""
    every = target.parts or (target,)
    return not any(part.reading or part.kind in ("value", "box") for part in every)


def _names(target: Target, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Name what predictions show: the classes, or the one value that takes their place."""
    if target.compares:
        return ("similarity",)
    if target.kind == "function":
        return (target.source.rpartition(":")[2],)
    if target.kind == "value" and target.index is not None:
        named = target.index < len(classes)
        return (classes[target.index] if named else f"value {target.index}",)
    return classes


def _located(returned: Any, output: str | None, *, whole: bool) -> tuple[str | None, str]:
    """Return the path of the explained output, None for all of it, and the guess in a line."""
    if output is None and (whole or is_detections(returned)):
        return None, ""
    values, path = locate_output(returned, output)
    if output is not None:
        return path, ""
    if shares(values) and (logits := logits_behind(returned, path)):
        return logits, (
            f"the output {logits!r} is explained, whose softmax is {path!r}; --output names another"
        )
    return path, say_guess(returned, path)


def _function(spec: str) -> Callable[[Any], Any]:
    try:
        named = load_reference(spec, "function", ModelError)
    except ModelError as error:
        raise TargetError(
            f"the target {spec!r} is neither a class nor a function: {error}"
        ) from None
    if not callable(named):
        raise TargetError(f"the target {spec!r} is {kind_of(named)}; name a function of the output")
    function: Callable[[Any], Any] = named
    return function
