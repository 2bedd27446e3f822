"""Targets given image by image: class indices, and functions of what the model gives for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from exporter.errors import TargetError, counted
from exporter.targets import Scored, Scorer, check_rows, is_detections, locate_output, rows_of
from exporter.targets.readings import Reading, ranked

Explained = int | Callable[[Any], Tensor]
"""One target of one image: a class index, or a function of what the model gives for that image (a
row of values, a plane of scores, a detector's boxes) to a scalar."""


@dataclass(frozen=True, slots=True)
class PerImageScorer(Scorer):
    """Scores a batch whose images each have targets of their own.

    Attributes:
        wanted: T targets for each image.
    """

    wanted: tuple[tuple[Explained, ...], ...] = ()

    @property
    def is_logit(self) -> bool:
        """Whether every target is a class."""
        return all(isinstance(target, int) for row in self.wanted for target in row)

    def __call__(self, output: Any, labels: Tensor, masks: Tensor | None = None) -> Scored:
        """Score the batch (see `Scorer`)."""
        del masks
        check_rows(len(self._each(output)), len(labels), self.output)
        scores = self._scores(output, self.wanted)
        targets = _classes(self.wanted, labels.device)
        reading = Reading(
            ranks=scores.detach(),
            scores=lambda indices: scores.gather(1, indices),
            predict=lambda _labels, k: ranked(scores.float(), k),
            finite=torch.isfinite(scores).all(1),
            named="class" if self.is_logit else "value",
        )
        return Scored(targets, torch.full_like(targets, -1), scores, reading)

    def of_images(self, images: slice) -> PerImageScorer:
        """Return the scorer of some of the images."""
        return replace(self, wanted=self.wanted[images])

    def again(
        self, output: Any, first: Scored, images: slice, masks: Tensor | None = None
    ) -> Tensor:
        """Score variants of some images (see `Scorer`)."""
        del masks
        if self.is_logit:
            rows = rows_of(locate_output(output, self.output)[0])
            targets = first.targets[images]
            return rows.gather(1, targets.repeat(len(rows) // len(targets), 1))
        wanted = self.wanted[images]
        return self._scores(output, wanted * (len(self._each(output)) // len(wanted)))

    def _each(self, output: Any) -> Any:
        """Return what the model gives, image by image."""
        return output if self._is_list(output) else locate_output(output, self.output)[0]

    def _is_list(self, output: Any) -> bool:
        return self.output is None and is_detections(output)

    def _scores(self, output: Any, wanted: Sequence[Sequence[Explained]]) -> Tensor:
        each = self._each(output)
        if not self._is_list(output) and self.is_logit:
            rows = rows_of(each)
            for target in (target for row in wanted for target in row if isinstance(target, int)):
                _checked(target, rows.shape[1])
            return rows.gather(1, _classes(wanted, rows.device))
        if isinstance(each, Tensor) and each.ndim == 1:
            each = each.unsqueeze(1)
        return torch.stack(
            [
                torch.stack([_score(target, row) for target in targets])
                for row, targets in zip(each, wanted, strict=True)
            ]
        )


def per_image(
    targets: Sequence[Explained | Sequence[Explained]] | Tensor, images: int
) -> tuple[tuple[tuple[Explained, ...], ...], bool]:
    """Check targets given image by image.

    Args:
        targets: an entry for each image, or a list of T of them.
        images: how many there are.

    Returns:
        T targets for each image, and whether they were given as lists.

    Raises:
        TargetError: if they do not fit the images, or are no targets.
    """
    entries: list[Any]
    if isinstance(targets, Tensor):
        entries = targets.tolist() if targets.ndim else [targets.item()]
    elif isinstance(targets, int) or not isinstance(targets, Sequence):
        raise TargetError(
            f"targets is {targets!r}; give a list with one entry per image, {images} in all"
        )
    else:
        entries = list(targets)
    if len(entries) != images:
        raise TargetError(
            f"targets has {len(entries)} {'entry' if len(entries) == 1 else 'entries'} for "
            f"{counted(images, 'image')}; give one per image"
        )
    several = isinstance(entries[0], Sequence) and not isinstance(entries[0], str)
    rows = [
        tuple(entry) if several and isinstance(entry, Sequence) else (entry,) for entry in entries
    ]
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise TargetError(
            f"targets gives {', '.join(str(len(row)) for row in rows)} targets to its images;"
            " give every image the same number, at least one"
        )
    for target in (target for row in rows for target in row):
        if isinstance(target, bool) or not (isinstance(target, int) or callable(target)):
            raise TargetError(
                f"the target {target!r} is neither a class index nor a function of an output row"
            )
    return tuple(rows), several


def _classes(wanted: Sequence[Sequence[Explained]], device: torch.device) -> Tensor:
    """Return class indices (N, T), -1 for functions."""
    rows = [[target if isinstance(target, int) else -1 for target in row] for row in wanted]
    return torch.tensor(rows, device=device)


def _score(target: Explained, row: Any) -> Tensor:
    if isinstance(target, int):
        if not isinstance(row, Tensor) or row.ndim != 1:
            raise TargetError(
                "class indices need a row of values per image; give a function of what the model "
                "gives for an image, or a text such as 'class:3' or 'box:0'"
            )
        return row[_checked(target, row.shape[0])]
    score = target(row)
    if not isinstance(score, Tensor) or score.numel() != 1:
        what = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise TargetError(f"a target function returned {what}; return a tensor of one value")
    return score.reshape(())


def _checked(target: int, classes: int) -> int:
    if not 0 <= target < classes:
        raise TargetError(
            f"the target {target} is out of range; the output has {classes} values,"
            f" 0 to {classes - 1}"
        )
    return target
