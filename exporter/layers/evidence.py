"""Whether an output is a plane: what shows it where neither its type nor the user does.

A number of tokens fits a square by chance (138 of the numbers from 1 to 300 do, with up to eight
tokens before it), and a plane's channels may have the input's proportions. So a shape is a plane
only with evidence: a convolution, a batch normalisation or a pooling takes or gives that shape; or
the output follows a patch that is moved over the image; or layers of the same type and shape do.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from exporter.capture import guest
from exporter.errors import LayerError, kind_of
from exporter.guard import FAILURES, told
from exporter.layers.calls import Call, watching_calls
from exporter.layers.layout import Layout, in_proportion, layout_of, of_four, type_tells
from exporter.layers.orders import other_orders, turns

_PLACES = ((1, 0), (6, 2), (3, 4), (0, 1), (5, 7))
"""Rows and columns of an eighth of the image each, where the patch is laid; they tell every order
of `other_orders` from row by row in grids of 4 × 4 to 32 × 32."""
_CLEARLY = 0.8
"""How near another reading of the same output may come before neither is taken."""
_WITHIN = 0.5
"""Share of what changes with the patch that lies in a plane, not in a row of it left beside."""
_SAME = 0.01
"""How far an image may be from itself, against how far the patch moves it."""
_FEW = 16
"""Cells of a grid that is not known, below which it has to be all tokens."""
_MARGIN = 0.25
"""How far the change has to be concentrated, from evenly spread (0) to the patch alone (1)."""
Changes = Mapping[str, Tensor]
"""How far each position of an output changed, (places, …), by how it is read."""


def shown_by_types(
    layouts: Mapping[str, Layout], calls: Sequence[Call], size: tuple[int, int]
) -> dict[str, Layout]:
    """Settle the layouts that the modules which take or give the same shape tell.

    Args:
        layouts: by name, of outputs whose shape alone suggests how they lie.
        calls: every call of the trial.
        size: (height, width) of the model's input.
    """
    told: dict[tuple[int, ...], dict[Literal["nchw", "nhwc"], Call]] = {}
    for call in calls:
        for shape in (call.taken, call.shapes.get("")):
            if shape is not None and (kind := type_tells(call.module, shape)):
                told.setdefault(shape[1:], {}).setdefault(kind, call)
    settled = {}
    for name, layout in layouts.items():
        kinds = told.get(layout.shape, {})
        if len(kinds) != 1:
            continue
        for kind, call in kinds.items():
            where = {"nchw": "first", "nhwc": "last"}[kind]
            why = f"channels {where}, as {call.name}, {kind_of(call.module)}, has them"
            laid = of_four(kind, (1, *layout.shape), why)
            # What has its channels last says nothing of the other two axes.
            if kind == "nchw" or in_proportion(laid.height, laid.width, size):
                settled[name] = laid
    return settled


def shown_by_moves(
    module: nn.Module,
    example: Tensor,
    layouts: Mapping[str, Layout],
    known: Mapping[str, Layout],
    held: Container[str] = (),
    *,
    frequencies: bool = False,
) -> dict[str, Layout]:
    """Settle the layouts of outputs that follow a patch moved over the image.

    Tokens are held against every grid of a known plane, with any number of tokens before and after
    it, and against those that have the image's proportions; and against other orders of them.

    Args:
        module: the model, a guest.
        example: (N, C, H, W), of which the first image is taken.
        layouts: by name, of outputs whose shape alone suggests how they lie.
        known: layouts of planes that are known.
        held: names of known ones that are doubted where they follow turned or mirrored instead.
        frequencies: whether these are doubted where they do not follow, too.

    Raises:
        LayerError: if the model fails on an image with a patch, whatever it raises.
    """
    doubtful = {name: layout for name, layout in known.items() if name in held}
    changes = _changes(module, example[:1], {**layouts, **doubtful})
    size = (int(example.shape[-2]), int(example.shape[-1]))
    grids = {(plane.height, plane.width) for plane in known.values() if plane.kind == "nchw"}
    settled: dict[str, Layout] = {}
    for name, moved in changes.items():
        changed = {kind: _own(values) for kind, values in moved.items()}
        if name in doubtful:
            layout = doubtful[name]
            if why := _doubt(changed[layout.kind], size, frequencies):
                settled[name] = replace(layout, shown=False, evidence=why)
            continue
        shares = {
            layout: (_follows(values, size), values)
            for layout, values in _readings(layouts[name], changed, grids, size)
        }
        ranked = sorted(shares, key=lambda layout: shares[layout][0], reverse=True)
        best, second = (*(shares[layout][0] for layout in ranked[:2]), 0.0, 0.0)[:2]
        if best > 0 and second < _CLEARLY * best:
            others = other_orders(shares[ranked[0]][1]) if ranked[0].kind == "tokens" else ()
            if all(_follows(each, size) < _CLEARLY * best for each in others):
                settled[name] = ranked[0]
    return settled


def _doubt(values: Tensor, size: tuple[int, int], frequencies: bool) -> str:
    follows = _follows(values, size)
    if follows < _CLEARLY * max(_follows(each, size) for each in turns(values)):
        return "it follows a moved patch only where its plane is turned or mirrored"
    if frequencies and not follows:
        return "it does not follow a moved patch, and the model computes frequencies on the way"
    return ""


def _changes(
    module: nn.Module, image: Tensor, layouts: Mapping[str, Layout]
) -> dict[str, dict[str, Tensor]]:
    """Run an image with a patch at each place, and say how far each position of outputs changed.

    All go through the model together, with the image twice. Where it differs from itself, by chance
    or because of its batch, and where a batch fails, they are run one after the other.
    """
    images = torch.cat((image, image, *(_patched(image, place) for place in _PLACES)))
    changes: dict[str, dict[str, Tensor]] | None = None
    with suppress(LayerError):
        changes = _moved(module, (images,), layouts)
    if changes is None or _differs(changes):
        changes = _moved(module, torch.split(images, 1), layouts)
    return {
        name: {kind: values[2:] for kind, values in each.items()} for name, each in changes.items()
    }


def _differs(changes: Mapping[str, Changes]) -> bool:
    """Say whether the second image, which is the first, moved."""
    kinds = (values for each in changes.values() for values in each.values())
    return any(bool(values[1].max() > _SAME * values[2:].max()) for values in kinds)


def _moved(
    module: nn.Module, batches: Sequence[Tensor], layouts: Mapping[str, Layout]
) -> dict[str, dict[str, Tensor]]:
    """Say how far each position of outputs lies from that of the first image, (images, …)."""
    plain: dict[str, Tensor] = {}
    changes: dict[str, dict[str, list[Tensor]]] = {}

    def look(call: Call, part: str, tensor: Tensor) -> Tensor:
        name = str(call.part(part))
        layout = layouts.get(name)
        if layout is None or not layout.fits(tensor, len(batches[0])) or tensor.is_quantized:
            return tensor
        values = tensor.detach().movedim(layout.axis, 0).float()
        # A copy: what follows may write to it.
        moved = values - plain.setdefault(name, values[:1].clone())
        axes = {"tokens": 2} if layout.kind == "tokens" else {"nchw": 1, "nhwc": 3}
        for kind, axis in axes.items():
            changes.setdefault(name, {}).setdefault(kind, []).append(moved.norm(dim=axis).cpu())
        return tensor

    try:
        for batch in batches:
            # A guest each, so that all draw the same random numbers.
            with guest(module), torch.no_grad(), watching_calls(module, look):
                module(batch)
    except FAILURES as error:  # the model may fail on other images, or memory may be short
        raise LayerError(f"with a patch on its image the model failed: {told(error)}") from error
    return {
        name: {kind: torch.cat(values) for kind, values in kinds.items()}
        for name, kinds in changes.items()
        if all(len(values) == len(batches) for values in kinds.values())
    }


def _patched(image: Tensor, place: tuple[int, int]) -> Tensor:
    """Return an image with a texture in the middle of one eighth of its rows and columns."""
    rows, columns = (
        slice(*_edges(at, side)) for at, side in zip(place, image.shape[-2:], strict=True)
    )
    laid = image.clone()
    patch = laid[..., rows, columns]
    steps = torch.arange(patch[0].numel(), device=image.device).view(patch.shape[1:])
    spread = image.float().std(correction=0).clamp(min=1.0).to(image.dtype)
    laid[..., rows, columns] = patch + 2 * spread * torch.cos(steps * 2.4).to(image.dtype)
    return laid


def _readings(
    layout: Layout,
    changed: Changes,
    grids: Iterable[tuple[int, int]],
    size: tuple[int, int],
) -> list[tuple[Layout, Tensor]]:
    """List how an output could lie, each with the changes as (places, rows, columns)."""
    if layout.kind != "tokens":
        words = {"nchw": "last", "nhwc": "first"}
        listed = []
        kinds: tuple[Literal["nchw", "nhwc"], ...] = ("nchw", "nhwc")
        for kind in kinds:
            laid = of_four(kind, (1, *layout.shape), "")
            if not in_proportion(laid.height, laid.width, size):
                continue  # windows, heads and tokens
            why = f"its {words[kind]} two axes, {laid.height}×{laid.width}, follow a moved patch"
            listed.append((replace(laid, evidence=why), changed[kind]))
        return listed
    tokens = layout.shape[0]
    readings: list[tuple[Layout, Tensor]] = []
    proportional = {
        (read.height, read.width)
        for cut in range(min(9, tokens))
        if (read := layout_of((1, tokens - cut, 1), size)) and read.prefix == 0
    }
    own = changed["tokens"]
    for height, width in {*grids, *proportional}:
        area = height * width
        if area < 2 or not area <= tokens < 2 * area:
            continue
        # Five places say too little of a few cells to tell which of the tokens they are.
        if area < _FEW and area < tokens and (height, width) not in grids:
            continue
        for prefix in range(tokens - area + 1):
            laid = replace(layout, height=height, width=width, prefix=prefix, shown=True)
            spare = [f"{prefix} before"] * (prefix > 0)
            spare += [f"{tokens - area - prefix} after"] * (prefix + area < tokens)
            besides = f" ({' and '.join(spare)} of their own)" if spare else ""
            second = ", images on the second axis" * (layout.axis == 1)
            why = f"{tokens} tokens{besides} follow a moved patch as {height}×{width}{second}"
            inside = own[:, prefix : prefix + area]
            if bool((inside.sum(1) < _WITHIN * own.sum(1)).any()):
                continue
            readings.append((replace(laid, evidence=why), inside.reshape(-1, height, width)))
    return readings


def _follows(changes: Tensor, size: tuple[int, int]) -> float:
    """Return the share of (places, rows, columns) that lies at the patch; 0 if it follows none."""
    total = changes.sum((1, 2))
    if not bool(torch.isfinite(total).all()):
        return 0.0
    good, shares = 0, 0.0
    for place, change, whole in zip(_PLACES, changes, total, strict=True):
        if whole <= 0:
            continue
        rows, columns = (
            _inside(at, cells, side)
            for at, cells, side in zip(place, changes.shape[1:], size, strict=True)
        )
        shown = True
        for inside, profile in ((rows, change.sum(1)), (columns, change.sum(0))):
            even, best = float(inside.mean()), float(inside.max())
            share = float((inside * profile).sum() / whole)
            shown &= share >= even + _MARGIN * (best - even)
        good += shown
        shares += float((rows[:, None] * columns * change).sum() / whole)
    return shares if good == len(_PLACES) else 0.0


def _own(changes: Tensor) -> Tensor:
    """Return what changes less what does wherever the patch lies, such as a class token."""
    return (changes - changes.median(0).values).clamp(min=0).cpu().double()


def _edges(at: int, side: int) -> tuple[int, int]:
    """Return where the patch begins and ends; patch embeddings may overlap where an eighth does."""
    return math.floor((at + 0.25) * side / 8), math.ceil((at + 0.75) * side / 8)


def _inside(at: int, cells: int, side: int) -> Tensor:
    """Return how far each of ``cells`` along a side of the image lies in the patch, (cells,)."""
    low, high = _edges(at, side)
    edges = torch.arange(cells + 1, dtype=torch.float64) * side / cells
    covered = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
    return covered.clamp(min=0) / (side / cells)
