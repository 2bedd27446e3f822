"""Read one plane of scores per image: segmentation by classes, or by masks of a sigmoid each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporter.errors import TargetError
from exporter.targets.readings import Ask, Reading, ranked, reading


@reading("segment")
def read_planes(values: Tensor, ask: Ask) -> Reading:
    """Read (N, K, H, W) as the logits of K classes at every position; K = 1 is one mask's logit.

    The scalar of a class is the mean of its logit (after ``prob:`` of its probability) over a
    region: the positions predicted as that class, after ``mask:`` those in the image's given mask,
    after ``plane:`` all of them. Over an empty region it is 0, and so are its maps. A class is
    predicted where its logit is the largest; where K = 1, or after ``multilabel:``, where it is
    above 0 (a probability above one half). Classes rank by the area of their region, the background
    last; predictions show the share of the plane.

    Raises:
        TargetError: if the output is not a plane of scores.
    """
    if values.ndim != 4:
        raise TargetError(
            f"the output has the shape {tuple(values.shape)} and masks need (images, classes, "
            "height, width); choose another part of it with --output"
        )
    target = ask.target
    images, classes, height, width = values.shape
    alone = classes == 1 or target.reading == "multilabel"
    known = values.detach() - (0.5 if alone and ask.shares else 0)
    winner = None if alone else known.argmax(1)
    masked = target.reading == "mask" and ask.region is None
    given = _given(ask, height, width) if masked else None

    def predicted(indices: Tensor) -> Tensor:
        """Say where classes are predicted, (N, T, H, W)."""
        if winner is None:
            return known.gather(1, _at(indices, height, width)) > 0
        return winner.unsqueeze(1) == indices[:, :, None, None]

    def region(indices: Tensor) -> Tensor:
        """Say which spatial positions count, (N, T, H, W)."""
        if ask.region is not None:
            return ask.region.repeat(images // len(ask.region), 1, 1, 1)
        if target.reading == "plane":
            return torch.full((images, 1, height, width), True, device=values.device)
        own = predicted(indices)
        return own if given is None else torch.where(given > 1, own, given == 1)

    def scores(indices: Tensor) -> Tensor:
        planes = values
        if target.probability and not ask.shares:
            planes = values.sigmoid() if alone else values.softmax(1)
        here = region(indices).to(values.dtype)
        total = (planes.gather(1, _at(indices, height, width)) * here).sum((2, 3))
        return total / here.sum((2, 3)).clamp(min=1)

    ranks = _areas(known, winner, None if given is None else given != 0)
    if ask.background is not None and not alone and ask.background < classes:
        # Below any class that has a single pixel, above those that have none.
        weights = torch.arange(classes, device=values.device) == ask.background
        ranks = torch.where(weights, ranks * 1e-9, ranks)

    def predict(_labels: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        return ranked(_areas(known, winner, None), k)

    where = {
        "mask": "inside the given mask (where there is none, inside the predicted region)",
        "plane": "over the whole plane",
    }.get(target.reading, "over the region predicted as it")
    return Reading(
        ranks=ranks,
        scores=scores,
        predict=predict,
        finite=torch.isfinite(values).flatten(1).all(1),
        named="mask" if classes == 1 else "class",
        outputs=classes,
        shown="share",
        region=region,
        predicted=predicted,
        note=(
            f"the output is a plane of {height}×{width} with {classes} "
            f"{'mask' if classes == 1 else 'classes'}: the mean "
            f"{'probability' if target.probability or ask.shares else 'logit'} {where} is "
            "explained, and predictions are shares of the area"
        ),
    )


def _areas(values: Tensor, winner: Tensor | None, inside: Tensor | None) -> Tensor:
    """Return the share of the plane, or of its inside, that each class has, (N, K).

    Args:
        values: (N, K, H, W).
        winner: the class at each position, (N, H, W); None where a class is what is above 0.
        inside: (N, 1, H, W), which positions count; None for all.
    """
    if winner is None:
        held = (values > 0) if inside is None else (values > 0) & inside
        return held.to(torch.float32).mean((2, 3))
    counted = torch.ones_like(values[:, 0], dtype=torch.float32)
    if inside is not None:
        counted = counted * inside[:, 0]
    counts = torch.zeros(values.shape[:2], dtype=torch.float32, device=values.device)
    counts = counts.scatter_add(1, winner.flatten(1), counted.flatten(1))
    return counts / winner[0].numel()


def _at(indices: Tensor, height: int, width: int) -> Tensor:
    return indices[:, :, None, None].expand(-1, -1, height, width)


def _given(ask: Ask, height: int, width: int) -> Tensor:
    """Return the given masks at the size of the output, uint8 (N, 1, H, W)."""
    if ask.masks is None:
        raise TargetError(
            "the target 'mask' needs a mask for each image; give a list of images with a column "
            "mask"
        )
    masks = ask.masks.unsqueeze(1).to(torch.float32)
    return functional.interpolate(masks, (height, width), mode="nearest").to(torch.uint8)
