"""The layers explained by default: the last of each spatial resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from exporter.errors import NoLayerError, TargetError
from exporter.layers.trial import Plane, Trial
from exporter.targets import is_detections, locate_output

MOST_STAGES = 4
_SAME_STAGE = 0.75
"""A layer whose area is at least this share of a stage's belongs to it: unpadded convolutions
shave a pixel off without starting a stage."""
_DETECTOR_HEADS = frozenset({"rpn", "roi_heads", "head", "fpn", "extra"})
_IDLE = (
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.modules.padding._ConstantPadNd,
    nn.modules.padding._ReflectionPadNd,
    nn.modules.padding._ReplicationPadNd,
)
"""Modules that compute nothing."""
_PATCHES = ("patch_embed", "conv_proj", "patch_embedding", "patch_embeddings")


def choose_stages(trial: Trial) -> tuple[tuple[str, ...], str]:
    """Choose the layers to explain where none is named.

    For planes: the last layer of each spatial resolution, the four deepest. It is the outermost one
    (``layer3`` rather than ``layer3.5.relu``), because a container returns after what it holds.
    Left out are pooling, dropout, auxiliary heads, patch embeddings, heads that already give
    scores, weights of an attention, and the inside of a block that changes the resolution. Of a
    detector only layers that every box depends on are taken: not its heads, nor the levels of a
    pyramid.

    For tokens: up to four of the blocks, evenly spaced; a model that reads its class token alone
    ends before its last block, whose patch tokens have no gradient.

    Returns:
        Names in execution order, and the reason in one line.

    Raises:
        NoLayerError: if no layer has a plane of more than one pixel.
    """
    candidates = tuple(trial.planes.values())
    shown = [c for c in candidates if c.area > 1 and c.layout.shown]
    usable = _trunk([c for c in shown if _usable(c, trial)], trial)
    if (reached := trial.reached) is not None:
        usable = _unless_none_is_left(usable, lambda c: str(c.name) in reached)
    planes = [c for c in usable if c.layout.kind != "tokens"]
    tokens = [c for c in usable if c.layout.kind == "tokens"]
    planes = [c for c in planes if not _between_tokens(c, tokens)]
    stem = not planes or (bool(tokens) and planes[-1].position < tokens[0].position)
    areas = {c.area for c in tokens}
    if planes or tokens:
        if tokens and len(areas) == 1 and (stem or {c.area for c in planes} == areas):
            names, reason = _spaced_blocks(tokens, trial)
        else:
            names, reason = _last_of_each(tokens if stem else usable, shown, trial)
        return names, reason + _unshown(candidates, trial)
    name = type(trial.module).__name__
    if any(c.area > 1 and c.layout.kind == "tokens" for c in candidates):
        raise NoLayerError(
            f"the model {name} has no spatial layer for auto: it gives tokens, and nothing shows "
            "that they are a grid (they do not follow a patch that is moved over the image); name "
            "a layer, or give --reshape, a function from a layer's output to (N, C, H, W)"
        )
    if unshown := [c.layout.evidence for c in candidates if c.area > 1 and not c.layout.shown]:
        raise NoLayerError(
            f"the model {name} has no spatial layer for auto: {unshown[-1]}, and nothing shows "
            "where its planes lie in the image (they do not follow a patch that is moved over it); "
            "name a layer, or give --reshape, a function from a layer's output to (N, C, H, W)"
        )
    raise NoLayerError(
        f"the model {name} has no spatial layer: none gives a plane of more than one pixel for "
        "each image, so there is nothing to lay on an image"
    )


def _unshown(candidates: Sequence[Plane], trial: Trial) -> str:
    """Say which blocks' tokens nothing shows to be a grid, where those of blocks alike are one."""

    def kind(candidate: Plane) -> type[nn.Module]:
        return type(trial.calls[candidate.position].module)

    tokens = [c for c in candidates if c.layout.kind == "tokens" and c.area > 1]
    blocks = [c for c in tokens if not _is_leaf(trial.calls[c.position].module)]
    alike = {kind(c) for c in blocks if c.layout.shown}
    known = {c.layout.shape[0] for c in tokens if c.layout.shown}
    known |= {c.area for c in candidates if c.layout.shown}
    counts = dict.fromkeys(c.layout.shape[0] for c in blocks if kind(c) in alike)
    unshown = " and ".join(f"{count:,}" for count in counts if count not in known)
    if not unshown:
        return ""
    return f"; left out: layers of {unshown} tokens, which nothing shows to be a grid"


def _last_of_each(
    planes: Sequence[Plane], every: Sequence[Plane], trial: Trial
) -> tuple[tuple[str, ...], str]:
    outside = _outside_of_heads(planes, trial)
    # Blocks that end in a pooling (a transition) are left only where the stage has something else.
    settled = _settled(every, trial)
    loosely = _settled(planes, trial)
    stages = _stages(_unless_none_is_left(outside, loosely))
    last = sorted(
        (_end_of(_unless_none_is_left(stage, settled), trial) for stage in stages),
        key=lambda candidate: candidate.position,
    )
    chosen = last[-MOST_STAGES:]
    sizes = ", ".join(f"{c.layout.height}×{c.layout.width}" for c in chosen)
    names = tuple(str(candidate.name) for candidate in chosen)
    if len(names) == 1:
        return names, f"auto: the last layer with more than one pixel, {sizes}"
    return names, f"auto: the last layer of each of the {len(names)} deepest resolutions, {sizes}"


def _stages(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Group planes by resolution, in execution order."""
    stages: list[list[Plane]] = []
    for candidate in planes:
        for stage in stages:
            small, large = sorted((candidate.area, stage[0].area))
            if small >= _SAME_STAGE * large:
                stage.append(candidate)
                break
        else:
            stages.append([candidate])
    return stages


def _settled(planes: Sequence[Plane], trial: Trial) -> Callable[[Plane], bool]:
    """Return a test for layers that are not inside a block which changes the resolution.

    The first convolution of a down-sampling block still has the resolution before it, but that
    stage ended with the block before. A container of three resolutions or more is no block.
    """
    stage_of = {c.name: number for number, stage in enumerate(_stages(planes)) for c in stage}
    inside: dict[int, set[int]] = {}
    given: dict[int, set[int]] = {}
    for candidate in planes:
        given.setdefault(candidate.position, set()).add(stage_of[candidate.name])
    blocks: list[tuple[int, int]] = []
    for position, stages in given.items():
        start = trial.calls[position].start
        inside[position] = set().union(*(given.get(p, ()) for p in range(start, position + 1)))
        if stages != inside[position] and len(inside[position]) < 3:
            blocks.append((start, position))

    def settled(candidate: Plane) -> bool:
        own = stage_of.get(candidate.name)
        return not any(
            start <= candidate.position < end and own not in given[end] for start, end in blocks
        )

    return settled


def _outside_of_heads(planes: Sequence[Plane], trial: Trial) -> list[Plane]:
    """Leave out planes of scores, one channel per class, and the rest of their heads."""
    scores = _score_channels(trial)
    if scores is None:
        return list(planes)
    heads = [c.position for c in planes if c.layout.channels == scores]
    starts = [(trial.calls[position].start, position) for position in heads]
    kept = _unless_none_is_left(planes, lambda c: c.layout.channels != scores)
    return _unless_none_is_left(
        kept, lambda c: not any(start <= c.position <= end for start, end in starts)
    )


def _score_channels(trial: Trial) -> int | None:
    """Return the number of classes where no linear layer gives them, but a plane does.

    A convolution that reads as many channels reads features, of which the output is a mean.
    """
    try:
        output, _ = locate_output(trial.output, trial.path)
    except TargetError:
        return None
    if output.dim() < 2:
        return None
    classes = int(output.shape[1])
    modules = [call.module for call in trial.calls]
    linear = any(isinstance(m, nn.Linear) and m.out_features == classes for m in modules)
    read = any(isinstance(m, nn.Conv2d) and m.in_channels == classes for m in modules)
    return None if linear or (read and output.dim() == 2) else classes


def _spaced_blocks(tokens: Sequence[Plane], trial: Trial) -> tuple[tuple[str, ...], str]:
    """Take up to four of the repeated blocks, evenly spaced, the deepest that can be shown last."""
    usable = _blocks_among(tokens, trial)
    if len(usable) == 1:
        layout = usable[0].layout
        reason = f"auto: the last layer that gives tokens, {layout.height}×{layout.width}"
        return (str(usable[0].name),), reason
    kind = type(trial.calls[usable[-1].position].module)
    every = trial.planes.values()
    blocks = [c for c in every if c in usable or _left_out(c, kind, usable, trial)]
    if trial.reached is None and blocks[-1].layout.prefix > 0 and len(blocks) > 1:
        # No backward could tell: where there is a class token, it alone is usually read.
        usable = [c for c in usable if c is not blocks[-1]]
    count = min(MOST_STAGES, len(usable))
    chosen = [usable[round((step + 1) * len(usable) / count) - 1] for step in range(count)]
    layout = chosen[-1].layout
    reason = (
        f"auto: {count} of the {len(blocks)} blocks, evenly spaced, {layout.height}×{layout.width}"
    )
    if blocks[-1] is not usable[-1]:
        reason += " (not the last: its patches do not reach the output)"
    return tuple(str(candidate.name) for candidate in chosen), reason


def _blocks_among(tokens: Sequence[Plane], trial: Trial) -> list[Plane]:
    """Return the repeated blocks that hold most parameters, or the last layer where none repeats.

    Inside a block whose class token alone is read, leaves may still have a gradient at patches.
    """
    kinds: dict[str, list[Plane]] = {}
    for candidate in tokens:
        child = trial.calls[candidate.position].module
        if not _is_leaf(child) and not isinstance(child, nn.Sequential):
            kinds.setdefault(type(child).__name__, []).append(candidate)
    repeated = [blocks for blocks in kinds.values() if len(blocks) > 1]

    def held(blocks: Sequence[Plane]) -> int:
        module = trial.calls[blocks[-1].position].module
        return sum(parameter.numel() for parameter in module.parameters())

    return max(repeated, key=held, default=list(tokens[-1:]))


def _end_of(stage: Sequence[Plane], trial: Trial) -> Plane:
    """Return a stage's last layer; of tokens, its last block."""
    if stage[-1].layout.kind != "tokens":
        return stage[-1]
    return _blocks_among([c for c in stage if c.layout.kind == "tokens"], trial)[-1]


def _left_out(
    candidate: Plane, kind: type[nn.Module], usable: Sequence[Plane], trial: Trial
) -> bool:
    """Say whether a candidate is one of the same blocks, without a gradient at its positions."""
    same = type(trial.calls[candidate.position].module) is kind
    return same and candidate.layout == usable[-1].layout


def _trunk(candidates: Sequence[Plane], trial: Trial) -> list[Plane]:
    """Leave out a detector's layers that see some of its boxes only; others keep all."""
    if trial.reached is not None or not is_detections(trial.output):
        return list(candidates)
    parts = {c.name: set(c.name.module.split(".")) for c in candidates}
    whole = [c for c in candidates if len(trial.calls[c.position].shapes) == 1]
    trunk = [c for c in whole if parts[c.name].isdisjoint(_DETECTOR_HEADS)]
    if any("fpn" in names for names in parts.values()):
        return trunk or list(candidates)
    # Without a top-down path a deeper layer sees the boxes of the coarser levels only.
    levels = [c.area for c in candidates if len(trial.calls[c.position].shapes) > 1]
    finest = max(levels, default=0)
    return [c for c in trunk if c.area >= _SAME_STAGE * finest] or list(candidates)


def _usable(candidate: Plane, trial: Trial) -> bool:
    parts = candidate.name.module.split(".")
    if any(part.startswith("aux") or part.rstrip("0123456789") in _PATCHES for part in parts):
        return False
    call = trial.calls[candidate.position]
    if isinstance(call.module, _IDLE):
        return False
    # A container that ends in a pooling is that pooling; the layer before it holds what was pooled.
    inside = reversed(trial.calls[call.start : candidate.position + 1])
    last = next((inner for inner in inside if _is_leaf(inner.module)), call)
    pooled = "pool" in type(last.module).__name__.lower()
    return not (pooled and last.shapes.get("") in call.shapes.values())


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _between_tokens(candidate: Plane, tokens: Sequence[Plane]) -> bool:
    """Say whether a plane has a row and a column for each token: weights of an attention."""
    height, width = candidate.layout.height, candidate.layout.width
    return height == width and any(
        height in (row.area, row.area + row.layout.prefix) for row in tokens
    )


def _unless_none_is_left(candidates: Sequence[Plane], keep: Callable[[Plane], bool]) -> list[Plane]:
    return [c for c in candidates if keep(c)] or list(candidates)
