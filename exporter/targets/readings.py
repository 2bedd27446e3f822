"""Readings: what each kind of output says, in the terms in which targets are asked.

A kind of output is one function and one decorator: it takes the output and gives a `Reading`: how
its classes (or boxes) rank, the scalar of each, and what a row shows as predictions. What `Target`
then chooses (the predicted one, the label, a contrast) is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from exporter.errors import TargetError
from exporter.guard import AGAIN, user_code
from exporter.records import Target

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor]]
"""From labels (N,) and k: indices (N, k), scores (N, k) float32, loss (N,)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One batch's output, ready to be asked; nothing in it has waited for the device.

    Attributes:
        ranks: (N, K) without a graph: what ``predicted`` and ``top-k`` choose by.
        scores: from indices (N, T) to the scalars that are explained (N, T), with their graph.
        predict: what a row shows (see `Predict`); an index of -1 is no prediction.
        finite: bool (N,), whether the output holds numbers only.
        named: what a map's target is called: ``class``, ``box``, ``mask`` or ``value``.
        outputs: values per row of the output, or None where the output does not say it.
        find: from classes (N, T) to indices of ``ranks``, where these are no classes (boxes).
        present: bool (N, K), where not every image has all K.
        region: of a segmentation, from indices (N, T) to the positions that count, bool
            (N, T, H, W).
        note: what the user should know of how the output was read, or ``""``.
        shown: what the scores of ``predict`` are: ``probability``, ``share`` or ``value``.
        predicted: likewise, from indices (N, T) to where they are predicted, bool (N, T, H, W).
        boxes: float32 (N, K, 4), of a detector: left, top, right, bottom in pixels of the input,
            not a number where an image has fewer.
        follow: of boxes that keep a number of their own, from k variants of some images (see
            `Scorer.again`), the indices that were chosen of these, and which images they are, to
            the scalars (k·N, T).
    """

    ranks: Tensor
    scores: Callable[[Tensor], Tensor]
    predict: Predict
    finite: Tensor
    named: str = "class"
    outputs: int | None = None
    find: Callable[[Tensor], Tensor] | None = None
    present: Tensor | None = None
    region: Callable[[Tensor], Tensor] | None = None
    note: str = ""
    shown: str = "probability"
    predicted: Callable[[Tensor], Tensor] | None = None
    boxes: Tensor | None = None
    follow: Callable[[Any, Tensor, slice], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What a reading is asked with, besides the output.

    Attributes:
        target: what is explained.
        reference: (D,), the embedding that ``similar`` and ``text`` compare with.
        function: the user's own target.
        background: number of the class that a segmentation has where there is nothing, or None.
        masks: uint8 (N, h, w): 1 inside the given mask, 0 outside; 255 where there is none.
        region: bool (N, T, H, W), the regions of a segmentation where they are known already; the
            outputs may be k variants of these N images.
        shares: whether the output holds probabilities already, rather than logits.
    """

    target: Target
    reference: Tensor | None = None
    function: Callable[[Any], Any] | None = None
    background: int | None = None
    masks: Tensor | None = None
    region: Tensor | None = None
    shares: bool = False


Read = Callable[[Any, Ask], Reading]

READINGS: dict[str, Read] = {}
"""Every kind of output by name."""


def reading(name: str) -> Callable[[Read], Read]:
    """Register a kind of output; used as a decorator, it returns the function unchanged."""

    def register(read: Read) -> Read:
        READINGS[name] = read
        return read

    return register


@reading("logits")
def read_logits(values: Tensor, ask: Ask) -> Reading:
    """Read (N, K) as the logits of K classes, one of which is right.

    The scalar of a class is its logit; after ``prob:`` its softmax probability. Probabilities are
    taken as they are.
    """
    rows = rows_of(values)
    explained = rows.softmax(1) if ask.target.probability and not ask.shares else rows
    logits = _logs(rows) if ask.shares else rows
    return _of_rows(rows, explained, predict=lambda labels, k: _classified(logits, labels, k))


@reading("binary")
def read_binary(values: Tensor, ask: Ask) -> Reading:
    """Read (N,) or (N, 1) as the logit z of class 1 against class 0.

    The scalar of class 1 is z, that of class 0 is -z; after ``prob:`` the sigmoid of it. Of a
    probability p they are p and 1 - p.
    """
    rows = rows_of(values)
    if rows.shape[1] != 1:
        raise TargetError(
            f"the target 'binary' is for one logit and the model gives {rows.shape[1]} values; use "
            "predicted (one of them is right) or multilabel (each is right or wrong)"
        )
    if ask.shares:
        pair = torch.cat((1 - rows, rows), 1)
        return _of_rows(pair, pair, predict=lambda labels, k: _classified(_logs(pair), labels, k))
    both = torch.cat((torch.zeros_like(rows), rows), 1)

    def scores(indices: Tensor) -> Tensor:
        signed = rows * (2 * indices - 1).to(rows.dtype)
        return signed.sigmoid() if ask.target.probability else signed

    # The softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)).
    return _of_rows(both, scores, predict=lambda labels, k: _classified(both, labels, k))


@reading("multilabel")
def read_multilabel(values: Tensor, ask: Ask) -> Reading:
    """Read (N, K) as the logits of K classes, each of which is right or wrong by itself.

    The scalar of a class is its logit; after ``prob:`` its sigmoid, which predictions show too.
    Probabilities are taken as they are.
    """
    rows = rows_of(values)
    explained = rows.sigmoid() if ask.target.probability and not ask.shares else rows
    shown = rows.to(torch.float32)
    return _of_rows(
        rows,
        explained,
        predict=lambda _labels, k: ranked(shown if ask.shares else shown.sigmoid(), k),
        note=(
            f"multi-label: the score of a class is its own {'value' if ask.shares else 'sigmoid'}, "
            "and there is no accuracy"
        ),
    )


@reading("value")
def read_value(values: Tensor, ask: Ask) -> Reading:
    """Read (N,), (N, 1), or one column of (N, K) after ``value:column``, as a quantity."""
    rows = rows_of(values)
    column = ask.target.index if ask.target.kind == "value" else None
    if column is not None:
        if column >= rows.shape[1]:
            raise TargetError(
                f"the model has no value {column}; it gives {rows.shape[1]}, from 0 to "
                f"{rows.shape[1] - 1}"
            )
        rows = rows[:, column : column + 1]
    elif rows.shape[1] != 1:
        raise TargetError(
            f"the target 'value' is for one output and the model gives {rows.shape[1]}; "
            "use value:0 for one of them, or predicted, label, top-K or a class index"
        )
    if ask.target.probability:
        raise TargetError(
            "the model gives one value, which has no probability; use prob: with binary:, or value"
        )
    note = ""
    if ask.target.kind != "value" and ask.shares:
        note = (
            "the model gives one probability per image, which is explained as it is; "
            "--target binary reads it as that of two classes"
        )
    elif ask.target.kind != "value":
        note = (
            "the model gives one value per image, which is explained as it is; "
            "--target binary reads it as the logit of two classes"
        )
    return quantity(rows, note)


@reading("similar")
def read_similar(values: Tensor, ask: Ask) -> Reading:
    """Read (N, D) as embeddings: the scalar is the cosine of the angle to the reference's."""
    if ask.reference is None:
        raise TargetError(f"the target '{ask.target.kind}' needs what it compares with")
    if values.ndim != 2 or values.shape[1] != ask.reference.numel():
        raise TargetError(
            f"the output has the shape {tuple(values.shape)} and "
            f"'{ask.target.kind}' compares one embedding "
            f"per image, (images, {ask.reference.numel()}); choose another part with --output"
        )
    reference = ask.reference.reshape(1, -1).to(values.dtype)
    return quantity(functional.cosine_similarity(values, reference, dim=1).unsqueeze(1), "")


@reading("function")
def read_function(output: Any, ask: Ask) -> Reading:
    """Hand the output to the user's function, which gives a scalar per image, (N,) or (N, 1)."""
    if ask.function is None:
        raise TargetError("the target needs a function; write module:function")
    who = f"the target function {ask.target.source!r}"
    with user_code(who, error=TargetError, advice=AGAIN):
        values = ask.function(output)
    fits = isinstance(values, Tensor) and values.is_floating_point()
    if not fits or (values.ndim != 1 and values.shape[1:] != (1,)):
        what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TargetError(
            f"the target function {ask.target.source!r} returned {what}; return a floating-point "
            "tensor (images,), one scalar per image"
        )
    return quantity(rows_of(values), "")


def quantity(rows: Tensor, note: str) -> Reading:
    """Return the reading of one value per image, (N, 1)."""
    return _of_rows(
        rows,
        rows,
        predict=lambda _labels, k: ranked(rows.to(torch.float32), k),
        named="value",
        note=note,
        shown="value",
    )


def _of_rows(rows: Tensor, explained: Tensor | Callable[[Tensor], Tensor], **said: Any) -> Reading:
    """Return the reading of rows (N, K), whose scalars are columns of (N, K) or a function."""
    return Reading(
        ranks=rows.detach(),
        scores=explained if callable(explained) else partial(explained.gather, 1),
        finite=torch.isfinite(rows).all(1),
        outputs=rows.shape[1],
        **said,
    )


def rows_of(output: Tensor) -> Tensor:
    """Return the explained output as rows (N, K); one value per image is K = 1.

    Raises:
        TargetError: if an image's output is not a row of values.
    """
    if output.ndim == 1:
        return output.unsqueeze(1)
    if output.ndim != 2:
        raise TargetError(
            f"the model's output has the shape {tuple(output.shape)}, where a row of values per"
            " image, (N, K), is explained; name another with --output, or give a function as the"
            " target (module:function)"
        )
    return output


def _logs(rows: Tensor) -> Tensor:
    """Return the logarithms of probabilities: the logits of which they are the softmax."""
    values = rows.to(torch.float32)
    return values.clamp_min(torch.finfo(values.dtype).tiny).log()


def ranked(shares: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k largest of (N, K), which says nothing of a loss (see `Predict`)."""
    top = shares.topk(min(k, shares.shape[1]), dim=1)
    return top.indices, top.values, shares.new_full((len(shares),), torch.nan)


def _classified(rows: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the most probable classes and the cross-entropy of the label."""
    values = rows.to(torch.float32)
    classes = values.shape[1]
    top = values.topk(min(k, classes), dim=1)
    log_shares = values.log_softmax(1)
    known = (labels >= 0) & (labels < classes)
    right = log_shares.gather(1, labels.clamp(0, classes - 1).unsqueeze(1)).squeeze(1)
    scores = log_shares.gather(1, top.indices).exp()
    loss = torch.where(known, -right, torch.full_like(right, torch.nan))
    return top.indices, scores, loss
