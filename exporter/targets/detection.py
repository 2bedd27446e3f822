"""Read a detector's boxes, and what its head gave before suppression where no box survives.

Detectors wait for the device by themselves (they select boxes by their scores), so reading them may
do so too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.capture import hooked
from exporter.errors import TargetError
from exporter.targets.readings import Ask, Reading, reading

BEFORE = "before_suppression"
"""Key under which `watching` adds (scores, classes) to an image that no box survived for."""


def is_detections(output: Any) -> bool:
    """Say whether an output is a list of ``{"boxes", "scores", "labels"}``, one per image.

    A mapping may hold besides, of every query or anchor whether it gives a box or not, the
    probabilities of the classes, ``shares`` (Q, K), and which of them each box is, ``query``.
    """
    return (
        isinstance(output, (list, tuple))
        and len(output) > 0
        and all(
            isinstance(image, Mapping) and {"boxes", "scores"} <= image.keys() for image in output
        )
    )


@reading("boxes")
def read_boxes(output: Sequence[Mapping[str, Any]], ask: Ask) -> Reading:
    """Read a list of detections: the scalar of a box is its score, a probability.

    Boxes are numbered as the model gives them, the surest first. ``predicted`` is box 0, ``top-3``
    the first three, a class its surest box. Where no box survives suppression, the classes' best
    candidates before it take their place (see `watching`), the surest first. A box that an image
    does not have has no map. Boxes with a ``query`` (see `is_detections`) are followed by it.

    Raises:
        TargetError: if the target does not fit boxes.
    """
    target = ask.target
    for part in target.parts or (target,):
        misfit = part.reading or part.probability or part.against
        if misfit or part.compares or part.kind == "value":
            raise TargetError(
                "the model gives boxes, whose score is a probability; use predicted, label, top-K, "
                "a class or box:0 alone"
            )
    images = [_scored(image) for image in output]
    asked = [
        part.index + 1 if part.kind == "box" and part.index is not None else part.k
        for part in target.parts or (target,)
    ]
    most = max(2, *asked, *(len(scores) for scores, _ in images))
    device = images[0][0].device
    values = torch.stack([_padded(scores, most) for scores, _ in images])
    numbers = torch.stack([_padded(kinds, most, -1) for _, kinds in images])
    counts = torch.tensor([len(scores) for scores, _ in images], device=device)
    present = torch.arange(most, device=device) < counts.unsqueeze(1)
    known = values.detach()

    def find(classes: Tensor) -> Tensor:
        """Return the first box of each class, -1 where there is none."""
        same = numbers.unsqueeze(1) == classes.unsqueeze(2)
        first = same.to(torch.uint8).argmax(2)
        return torch.where(same.any(2), first, torch.full_like(first, -1))

    numbered = all({"query", "shares"} <= image.keys() for image in output)

    def follow(variants: Any, chosen: Tensor, which: slice) -> Tensor:
        """Return what the queries of the chosen boxes say of their classes, (k·N, T)."""
        shares = torch.stack([image["shares"] for image in variants])
        queries = torch.stack([_padded(image["query"], most, 0) for image in output])
        at = chosen.clamp(min=0)
        pairs = (each[which].gather(1, at) for each in (queries, numbers))
        row, column = (each.repeat(len(shares) // len(chosen), 1) for each in pairs)
        scores = shares[torch.arange(len(shares), device=device)[:, None], row, column]
        return torch.where(chosen.repeat(len(shares) // len(chosen), 1) < 0, 0.0, scores)

    def predict(_labels: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        shown = min(k, most)
        scores = known[:, :shown].to(torch.float32)
        return numbers[:, :shown], scores, scores.new_full((len(scores),), torch.nan)

    return Reading(
        ranks=torch.where(present, known, torch.full_like(known, -torch.inf)),
        scores=lambda indices: values.gather(1, indices.clamp(min=0)),
        predict=predict,
        finite=torch.isfinite(known).all(1),
        named="box",
        find=find,
        present=present,
        boxes=_boxes(output, most),
        note="the output is boxes: the score of a box is explained, and predictions are boxes"
        + "; where none survives suppression, the best candidate of each class before it"
        * (not numbered),
        follow=follow if numbered else None,
    )


def all_shares(output: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """Return what a detector says of every query of every image; None where it does not."""
    if not all("shares" in image for image in output):
        return None
    return torch.cat([image["shares"].flatten() for image in output])


def _scored(image: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    scores: Tensor = image["scores"]
    kinds: Tensor = image.get("labels", torch.zeros_like(scores, dtype=torch.int64))
    if len(scores) == 0 and BEFORE in image:
        scores, kinds = image[BEFORE]
    return scores, kinds.to(torch.int64)


def _padded(values: Tensor, length: int, filler: int | None = None) -> Tensor:
    missing = length - len(values)
    if filler is None:
        # A zero that hangs on the graph, so that an image without boxes has gradients of zero.
        return torch.cat((values, values[:0].sum().expand(missing)))
    return torch.cat((values, values.new_full((missing,), filler)))


def _boxes(output: Sequence[Mapping[str, Any]], most: int) -> Tensor | None:
    """Return the boxes, not a number where an image has fewer; None where they lack four ends."""
    each = [image["boxes"].detach().to(torch.float32) for image in output]
    if any(len(boxes) > most or boxes.shape[1:] != (4,) for boxes in each):
        return None
    padded = [
        functional.pad(boxes, (0, 0, 0, most - len(boxes)), value=torch.nan) for boxes in each
    ]
    return torch.stack(padded)


@contextmanager
def watching(module: nn.Module) -> Iterator[None]:
    """Keep what a torchvision detector's head gives, for the images that no box survives for.

    Within the block, such an image's mapping has another entry, ``BEFORE``: the best score of each
    class over all anchors or proposals, surest first (C,), and the classes (C,). Every other model
    is left alone. Hooks are removed on leaving.

    Args:
        module: any model; a detector may lie inside it.
    """
    detector = next((part for part in module.modules() if _head_of(part) is not None), None)
    if detector is None:
        yield
        return
    head = _head_of(detector)
    assert head is not None
    raw: list[Any] = []
    proposals: list[list[int]] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        raw.append(output)

    def count(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        proposals.append([len(boxes) for boxes in inputs[1]])

    def add(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        given, raw[:] = raw[-1:], []
        counts, proposals[:] = proposals[-1:], []
        if not is_detections(output) or not given:
            return None
        if all(len(image["scores"]) for image in output):
            return None
        shares = _SHARES[_kind(detector)](given[0], counts[0] if counts else [])
        return [
            image if len(image["scores"]) else {**image, BEFORE: _best(share)}
            for image, share in zip(output, shares, strict=True)
        ]

    rcnn = _kind(detector) == "GeneralizedRCNN"
    before = [(detector.get_submodule("roi_heads"), count)] if rcnn else []
    with hooked([(head, keep), (detector, add)], before):
        yield


def _head_of(module: nn.Module) -> nn.Module | None:
    """Return the module that gives a torchvision detector's scores, None for other models."""
    kind = _kind(module)
    if not kind:
        return None
    name = "roi_heads.box_predictor" if kind == "GeneralizedRCNN" else "head"
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _kind(module: nn.Module) -> str:
    """Return which of torchvision's families a detector belongs to, by the names of its classes."""
    for base in type(module).__mro__:
        if base.__module__.startswith("torchvision.models.detection") and base.__name__ in _SHARES:
            return base.__name__
    return ""


_SHARES: dict[str, Callable[[Any, Sequence[int]], Iterable[Tensor]]] = {
    "GeneralizedRCNN": lambda output, counts: torch.split(output[0].softmax(-1), list(counts)),
    "SSD": lambda output, _: output["cls_logits"].softmax(-1),
    "RetinaNet": lambda output, _: output["cls_logits"].sigmoid(),
    # As the model scores a box: the geometric mean of its class and how central it is.
    "FCOS": lambda output, _: (
        output["cls_logits"].sigmoid() * output["bbox_ctrness"].sigmoid()
    ).sqrt(),
}
"""By family, from its head's output and the proposals per image, each image's scores (R, K)."""


def _best(shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best score of each class over all rows (R, K), surest first, and the classes.

    Class 0 is the background for all of torchvision's detectors' labels.
    """
    if len(shares) == 0:
        return shares.flatten(), torch.zeros(0, dtype=torch.int64, device=shares.device)
    best, order = shares.max(0).values[1:].sort(descending=True)
    return best, order + 1
