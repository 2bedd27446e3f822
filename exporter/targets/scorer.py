"""From a model's output and a target to the scalars that are explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import exporter.targets.segmentation  # noqa: F401 — registers its kind of output
from exporter.errors import TargetError
from exporter.records import Target
from exporter.targets.detection import is_detections
from exporter.targets.outputs import check_rows, locate_output
from exporter.targets.probabilities import Given
from exporter.targets.readings import READINGS, Ask, Reading


class Scored(NamedTuple):
    """What is explained of one batch.

    Attributes:
        targets: int64 (N, T), the class or number of each; -1 where an image has none.
        against: int64 (N, T), of a contrast the class it is against; -1 for other targets.
        scores: (N, T), the scalars, with their graph.
        reading: the output, for predictions.
    """

    targets: Tensor
    against: Tensor
    scores: Tensor
    reading: Reading


@dataclass(frozen=True, slots=True)
class Scorer:
    """Turn outputs into the scalars of one target; the same for every batch of a run.

    Attributes:
        target: what is explained.
        output: path of the explained tensor inside the model's output (see `locate_output`).
        reference: (D,), the embedding of ``similar``'s image or of ``text``.
        function: the user's own target.
        background: number of a segmentation's background, or None.
        given: what the output's numbers are: ``logits``, ``probability`` or ``value``.
    """

    target: Target
    output: str | None = None
    reference: Tensor | None = None
    function: Callable[[Any], Any] | None = None
    background: int | None = None
    given: Given = "logits"

    @property
    def is_logit(self) -> bool:
        """Whether what is explained can be one column of the output, as it is."""
        every = self.target.parts or (self.target,)
        changed = any(
            part.probability or part.against or part.reading == "binary" for part in every
        )
        fits = not self.target.compares and self.target.kind not in ("function", "box")
        return fits and not changed and self.given != "probability"

    @property
    def takes_masks(self) -> bool:
        """Whether each image's given mask is needed."""
        every = (self.target, *self.target.parts)
        return any(part.reading == "mask" for part in every)

    def __call__(self, output: Any, labels: Tensor, masks: Tensor | None = None) -> Scored:
        """Score one batch, without waiting for the device (detectors have waited already).

        Args:
            output: what the model gave.
            labels: int64 (N,) on its device, -1 where unknown.
            masks: given masks, uint8 (N, h, w): 1 inside, 0 outside, 255 where there is none.

        Raises:
            TargetError: if the target does not fit the output; it says what would.
        """
        read = self.read(output, masks)
        if self.target.kind == "function" and len(read.ranks) != len(labels):
            raise TargetError(
                f"the target function {self.target.source!r} returned {len(read.ranks)} values for "
                f"{len(labels)} images; return one scalar per image"
            )
        check_rows(len(read.ranks), len(labels), self.output)
        indices, against, scores = _choose(read, self.target, labels)
        if read.present is not None:
            there = read.present.gather(1, indices.clamp(min=0)) & (indices >= 0)
            indices = torch.where(there, indices, torch.full_like(indices, -1))
            scores = torch.where(there, scores, torch.zeros_like(scores))
        return Scored(indices, against, scores, read)

    def again(
        self, output: Any, first: Scored, images: slice, masks: Tensor | None = None
    ) -> Tensor:
        """Score variants of some images for what was chosen of the images themselves.

        Boxes are numbered by their scores, so those without a number of their own are followed only
        where all of them are what they were: in further passes of the same images.

        Args:
            output: what the model gave for k variants of the images, (k·N, …), row r being a
                variant of image r modulo N.
            first: the images' own scores; targets, and the regions of a segmentation, are theirs.
            images: which images of ``first`` these are.
            masks: given masks of all images of ``first``.

        Returns:
            (k·N, T), with its graph.

        Raises:
            TargetError: if boxes are explained, and these are others.
        """
        if first.reading.follow is not None:
            return first.reading.follow(output, first.targets[images], images)
        if first.reading.present is not None:
            boxes, known, chosen = self.read(output), first.reading.ranks, first.targets[images]
            if not _close(boxes.ranks, known[images]):
                raise TargetError(
                    "the detector finds other boxes in a variant of an image (masked, noisy, or "
                    "with a layer changed), so a box cannot be followed there; use methods that "
                    "run the image as it is, such as gradcam or saliency"
                )
            return torch.where(chosen < 0, 0.0, boxes.scores(chosen.clamp(min=0)))
        scores = self._at(output, first, first.targets, images, masks)
        if not any(part.against for part in (self.target, *self.target.parts)):
            return scores
        other = self._at(output, first, first.against.clamp(min=0), images, masks)
        plain = first.against[images].repeat(len(scores) // len(first.against[images]), 1) < 0
        return torch.where(plain, scores, scores - other)

    def _at(
        self, output: Any, first: Scored, indices: Tensor, images: slice, masks: Tensor | None
    ) -> Tensor:
        region_of = first.reading.region
        here = indices[images]
        region = None if region_of is None else region_of(indices)[images]
        own = None if masks is None else masks[images]
        read = self.read(output, own, region)
        return read.scores(here.repeat(len(read.ranks) // len(here), 1))

    def read(
        self, output: Any, masks: Tensor | None = None, region: Tensor | None = None
    ) -> Reading:
        """Read one batch's output as the target and its shape say.

        Args:
            output: what the model gave.
            masks: given masks, uint8 (N, h, w).
            region: bool (N, T, H, W), regions of a segmentation that are known already.

        Raises:
            TargetError: if the target does not fit the output.
        """
        ask = Ask(
            self.target,
            self.reference,
            self.function,
            self.background,
            masks,
            region,
            shares=self.given == "probability",
        )
        if self.target.kind == "function":
            part = output if self.output is None else locate_output(output, self.output)[0]
            return READINGS["function"](part, ask)
        if not self.output and is_detections(output):
            return READINGS["boxes"](output, ask)
        values = locate_output(output, self.output)[0]
        kind = _kind(values, self.target)
        if self.given == "value" and kind == "logits":
            kind = "value"
        return READINGS[kind](values, ask)


def _close(scores: Tensor, others: Tensor) -> bool:
    """Say whether the boxes of two outputs have the same scores, to rounding."""
    return scores.shape == others.shape and torch.allclose(scores, others, rtol=1e-4, atol=1e-6)


def _kind(values: Tensor, target: Target) -> str:
    """Say how an output is read: as the target asks, otherwise by its shape."""
    if any(part.kind == "box" for part in (target, *target.parts)):
        raise TargetError(
            f"the output has the shape {tuple(values.shape)} and no boxes, which 'box' needs; "
            "use predicted, label, top-K or a class index"
        )
    if target.compares or target.kind == "value":
        return "similar" if target.compares else "value"
    if values.ndim == 4:
        if target.reading == "binary":
            raise TargetError(
                f"the output is a plane, {tuple(values.shape)}; use predicted, mask or plane"
            )
        return "segment"
    if target.reading in ("mask", "plane"):
        raise TargetError(
            f"the target {target.reading!r} is for planes of scores and the output has the shape "
            f"{tuple(values.shape)}; use predicted, label, top-K or a class index"
        )
    if target.reading:
        return target.reading
    return "value" if values.ndim == 1 or values.shape[1:] == (1,) else "logits"


def _choose(read: Reading, target: Target, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a target's indices, those it is against (-1 for none) and scores, (N, T) each."""
    if target.parts:
        parts = [_choose(read, part, labels) for part in target.parts]
        indices, against, scores = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        return indices, against, scores
    if target.compares or target.kind in ("function", "value"):
        indices = torch.zeros_like(read.ranks[:, :1], dtype=torch.int64)
    else:
        indices = _indices(read, target, labels)
    scores = read.scores(indices)
    if target.against is None:
        return indices, torch.full_like(indices, -1), scores
    if read.ranks.shape[1] < 2:
        raise TargetError(
            "a contrast needs two classes and the model gives one value; use value or binary:A-B"
        )
    other = _indices(read, target.against, labels)
    # An image whose label is what was predicted, or is not known: rather than the next in line.
    next_best = read.ranks.scatter(1, indices, -torch.inf).argmax(1, keepdim=True)
    other = torch.where(other == indices, next_best, other)
    return indices, other, scores - read.scores(other)


def _indices(read: Reading, target: Target, labels: Tensor) -> Tensor:
    if read.find is None or target.kind not in ("class", "label"):
        return target_indices(target, read.ranks, labels)
    if target.kind == "class":
        return read.find(torch.full_like(labels, target.index or 0).unsqueeze(1))
    predicted = target_indices(Target("predicted"), read.ranks, labels)
    return torch.where(labels[:, None] < 0, predicted, read.find(labels[:, None]))


def target_indices(target: Target, logits: Tensor, labels: Tensor) -> Tensor:
    """Choose the columns of a plane of values that are explained, without waiting for the device.

    Args:
        target: what is explained; of a contrast, what it is for.
        logits: (N, K), larger is more likely.
        labels: int64 (N,) on the same device, -1 where the image's class is not known.

    Returns:
        int64 (N, T) on that device; T is ``target.k``, and at most K.

    Raises:
        TargetError: if the shape of the logits does not fit the target.
    """
    if logits.dim() != 2:
        raise TargetError(
            f"the output has shape {tuple(logits.shape)} and a target needs (images, values); "
            "choose another part of it with --output"
        )
    if target.parts:
        return torch.cat([target_indices(part, logits, labels) for part in target.parts], dim=1)
    rows, columns = logits.shape
    _check_columns(target, columns)
    if target.kind in ("value", "class", "box"):
        return torch.full((rows, 1), target.index or 0, dtype=torch.int64, device=logits.device)
    ranked = logits.detach()
    if target.kind == "top":
        return ranked.topk(min(target.k, columns), dim=1).indices
    if target.kind == "second":
        return ranked.topk(2, dim=1).indices[:, 1:]
    predicted = ranked.argmax(dim=1, keepdim=True)
    if target.kind == "label":
        return torch.where(labels[:, None] < 0, predicted, labels[:, None])
    return predicted


def _check_columns(target: Target, columns: int) -> None:
    if target.kind == "value" and columns != 1:
        raise TargetError(
            f"the target 'value' is for one output and the model gives {columns}; "
            "use value:0 for one of them, or predicted, label, top-K or a class index"
        )
    if target.kind in ("class", "box") and (target.index is None or target.index >= columns):
        raise TargetError(
            f"the model has no class {target.index}; it gives {columns} values, from 0 to "
            f"{columns - 1}"
        )
    if target.kind == "second" and columns < 2:
        raise TargetError(
            "the target 'second' needs two values and the model gives one; use value or binary"
        )
