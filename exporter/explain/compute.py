"""Maps for people who have a model and a batch of inputs in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import capture
from exporter.config import DEFAULT_MAPS
from exporter.errors import LayerError, TargetError
from exporter.explain.layers import (
    View,
    choose_or_offer,
    classifiers_at,
    fitting_methods,
    maps_at_layers,
)
from exporter.explain.passes import Runner
from exporter.explain.planner import plan_passes
from exporter.layers import Reshape
from exporter.maps import ATTENTION, Method, get_methods
from exporter.targets import Scorer, is_detections, locate_output, parse_target, rows_of, watching

Explained = int | Callable[[Any], Tensor]
"""One target of one image: a class index, or a function of what the model gives for that image (a
row of values, a plane of scores, a detector's boxes) to a scalar."""


def compute_maps(
    model: nn.Module,
    inputs: Tensor,
    *,
    maps: Sequence[str] = DEFAULT_MAPS,
    layers: Sequence[str] = ("auto",),
    targets: Sequence[Explained | Sequence[Explained]] | Tensor | str | None = None,
    rectify: bool = False,
    output: str | None = None,
    reshape: Reshape | None = None,
    seed: int = 0,
    fuse: str | None = None,
) -> Mapping[tuple[str, str], Tensor]:
    """Compute raw, signed class-activation maps of a batch.

    All methods and layers share one forward, and one backward a target. The model may be training,
    frozen, on any device and called under ``torch.no_grad()``; it is left exactly as it was, and
    its parameters' ``.grad`` is not touched.

    Args:
        model: takes the inputs alone.
        inputs: (N, C, H, W); moved to the model's device and floating-point type where they differ.
        maps: names of methods (``exporter maps`` lists them).
        layers: names (``layer4``, ``relu#2``, ``block[0]``), globs, ``@Type``, or ``auto``.
        targets: one entry an image: a class index, or a function from that image's row of outputs
            (K,) to a scalar; or, for T targets an image, a list of T of them. One text for all
            images is read as the command line's (docs/models.md): ``top-3``, ``prob:281``,
            ``predicted-second``, ``box:0``. None explains the predicted class; of a segmentation
            the largest region, of a detector the surest box.
        rectify: apply the ReLU to the methods whose definition ends in one.
        output: path of the explained tensor inside the model's output, such as ``logits`` or ``0``.
        reshape: from a layer's output, or its gradient, to (N, C, H, W), for a layout that its
            shape does not tell. None, or where it fails on a layer, reads the shape.
        seed: of methods that draw random numbers, such as ``smoothgrad``.
        fuse: ``mean``, ``max`` or ``product``: each method's maps of the layers, scaled to [0, 1],
            are also put together into one, under the layer ``fused``.

    Returns:
        By (method, layer), layers in the order in which they run: float32 (float64 from a float64
        model) of shape (N, H, W), or (N, T, H, W) where targets are lists, at the layer's own
        resolution, on the model's device. Nothing is normalised. ``cam`` is there only for the
        layers that it fits. A pixel method has the layer ``""`` and gives (N, C, H, W), or
        (N, T, C, H, W), at the input's resolution; C is 1 where it does not tell channels apart.
        An attention method has the layer ``attention``, ``refinecam`` the layer ``fused``.

    Raises:
        TargetError: if inputs are no (N, C, H, W), or a target does not fit them or the output.
        LayerError: if a layer is unknown, never runs, or has no gradient or no grid of places.
        MapError: if a method is unknown, or fits none of the layers, or the model is quantised
            and no method of activations is asked for (others are left out).
        ModelError: if the model cannot carry gradients.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
        >>> found = compute_maps(
        ...     model, torch.rand(2, 3, 4, 4), maps=["gradcam"], layers=["1"], targets=[7, 2]
        ... )
        >>> {key: tuple(value.shape) for key, value in found.items()}
        {('gradcam', '1'): (2, 2, 2)}
    """
    methods = get_methods((maps,) if isinstance(maps, str) else maps)
    images = _fitting(model, inputs)
    methods, _ = fitting_methods(model, methods)
    wanted_layers = (layers,) if isinstance(layers, str) else tuple(layers)
    names: tuple[str, ...] = ()
    if any(method.reads_layers for method in methods):
        names = _named(model, images, wanted_layers, methods, output=output, reshape=reshape)
    scorer = Scorer(parse_target(targets if isinstance(targets, str) else "predicted", ()), output)
    wanted, several = _one_an_image(targets, len(images))
    classifiers = classifiers_at(methods, model, names, images[:1], scorer=scorer)
    count = len(wanted[0]) if wanted else scorer.target.k
    several = several or count > 1
    planned = plan_passes(methods, names, targets=count)[0]
    unknown = torch.full((len(images),), -1, device=images.device)
    with watching(model):
        captured = capture(
            model,
            images,
            names,
            lambda found: (
                _scores(found, output, wanted) if wanted else scorer(found, unknown).scores
            ),
            gradients=bool(planned.backwards),
        )
    with torch.inference_mode(False), torch.no_grad():
        first = None if wanted else scorer(captured.output, unknown)
        classes = _classes_of(captured.output, output, wanted) if first is None else first.targets
        if classifiers and classes is None:
            raise TargetError(
                "cam explains a class; give class indices, not functions, as its targets"
            )
    passes = Runner(model, methods, seed=seed, reshape=reshape)(
        images,
        captured,
        names,
        lambda found, part: (
            _repeated(found, output, wanted or [], classes, part)
            if first is None
            else scorer.again(found, first, part)
        ),
        targets=classes,
        count=count,
        reader=lambda found: rows_of(locate_output(found, output)[0]),
    )
    with torch.inference_mode(False), torch.no_grad():
        made, missing = maps_at_layers(
            methods,
            captured,
            names,
            view=View.of(images, reshape),
            classifiers=classifiers,
            targets=classes,
            count=count,
            passes=passes,
            fusion=fuse or "",
        )
        for layer in names if any(method.at_layers for method in methods) else ():
            # Of a layer that returns a container, one element that can be explained is enough.
            if any(layer in captured.asked.get(name, ()) and name not in missing for name in made):
                continue
            for name, why in missing.items():
                if name == layer or name.startswith(f"{layer}["):
                    raise LayerError(f"the layer {layer!r} cannot be explained: {why}")
        for name, why in missing.items():
            if name.endswith(f" at {ATTENTION}"):
                raise LayerError(f"{name.split()[0]} cannot be computed: {why}")
        everywhere = [*made.items()]
        everywhere.append(("", {name: whole.unbind(1) for name, whole in passes.pixels.items()}))
        return {
            (method.name, layer): _finished(
                found[method.name], several, rectify and method.record.relu
            )
            for layer, found in everywhere
            for method in methods
            if method.name in found
        }


def _finished(found: Sequence[Tensor], several: bool, rectify: bool) -> Tensor:
    made = torch.stack(tuple(found), dim=1) if several else found[0]
    return made.relu() if rectify else made


def _fitting(model: nn.Module, inputs: Tensor) -> Tensor:
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or len(inputs) == 0:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TargetError(
            f"the inputs are {shape}; give a tensor (N, C, H, W) of at least one image"
        )
    first = next((one for one in model.parameters() if one.is_floating_point()), None)
    return inputs if first is None else inputs.to(first.device, first.dtype)


def _named(
    model: nn.Module,
    images: Tensor,
    layers: tuple[str, ...],
    methods: Sequence[Method],
    *,
    output: str | None,
    reshape: Reshape | None,
) -> tuple[str, ...]:
    modules = dict(model.named_modules())
    # Plain names need no trial forward; everything else is looked up by trying the model.
    if all(name.split("[")[0].split("#")[0] in modules and name for name in layers) and layers:
        return layers
    return choose_or_offer(model, images[:1], layers, methods, output=output, reshape=reshape).names


def _one_an_image(
    targets: Sequence[Explained | Sequence[Explained]] | Tensor | str | None, images: int
) -> tuple[list[list[Explained]] | None, bool]:
    """Return T targets an image (None: the same text for all), and whether T was asked for."""
    if targets is None or isinstance(targets, str):
        return None, False
    entries: list[Any]
    if isinstance(targets, Tensor):
        entries = targets.tolist() if targets.ndim else [targets.item()]
    elif isinstance(targets, int) or not isinstance(targets, Sequence):
        raise TargetError(
            f"targets is {targets!r}; give a list with one entry an image, {images} in all"
        )
    else:
        entries = list(targets)
    if len(entries) != images:
        raise TargetError(
            f"targets has {len(entries)} entries for {images} images; give one an image"
        )
    several = isinstance(entries[0], Sequence) and not isinstance(entries[0], str)
    rows = [
        list(entry) if several and isinstance(entry, Sequence) else [entry] for entry in entries
    ]
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise TargetError(
            f"targets gives {', '.join(str(len(row)) for row in rows)} targets to its images;"
            " give every image the same number, at least one"
        )
    for one in (one for row in rows for one in row):
        if isinstance(one, bool) or not (isinstance(one, int) or callable(one)):
            raise TargetError(
                f"the target {one!r} is neither a class index nor a function of an output row"
            )
    return rows, several


def _scores(found: Any, output: str | None, wanted: list[list[Explained]]) -> Tensor:
    """Return every image's targets as scalars, (N, T)."""
    whole = output is None and is_detections(found)
    each = found if whole else locate_output(found, output)[0]
    if not whole and _all_classes(wanted):
        rows = rows_of(each)
        return rows.gather(1, _indices(rows, wanted))
    if isinstance(each, Tensor) and each.ndim == 1:
        each = each.unsqueeze(1)
    return torch.stack(
        [
            torch.stack([_score(one, row) for one in ones])
            for row, ones in zip(each, wanted, strict=True)
        ]
    )


def _all_classes(wanted: list[list[Explained]]) -> bool:
    return all(isinstance(one, int) for row in wanted for one in row)


def _classes_of(
    found: Any, output: str | None, wanted: list[list[Explained]] | None
) -> Tensor | None:
    """Return class indices (N, T), None where some target is a function."""
    if wanted is None or not _all_classes(wanted):
        return None
    return _indices(rows_of(locate_output(found, output)[0]), wanted)


def _repeated(
    found: Any,
    output: str | None,
    wanted: list[list[Explained]],
    classes: Tensor | None,
    images: slice,
) -> Tensor:
    """Return the targets' scores (k·N, T) of k variants of some images."""
    if classes is not None:
        rows = rows_of(locate_output(found, output)[0])
        here = classes[images]
        return rows.gather(1, here.repeat(len(rows) // len(here), 1))
    some = wanted[images]
    count = len(found if is_detections(found) else locate_output(found, output)[0])
    return _scores(found, output, some * (count // len(some)))


def _score(target: Explained, row: Any) -> Tensor:
    if isinstance(target, int):
        if not isinstance(row, Tensor) or row.ndim != 1:
            raise TargetError(
                "class indices need a row of values an image; give a function of what the model "
                "gives for an image, or a text such as 'class:3' or 'box:0'"
            )
        return row[_checked(target, row.shape[0])]
    score = target(row)
    if not isinstance(score, Tensor) or score.numel() != 1:
        what = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise TargetError(f"a target function returned {what}; return a tensor of one value")
    return score.reshape(())


def _indices(rows: Tensor, wanted: list[list[Explained]]) -> Tensor:
    """Return class indices (N, T) on the device of the output."""
    checked = []
    for row in wanted:
        for one in row:
            if isinstance(one, int):
                checked.append(_checked(one, rows.shape[1]))
    return torch.tensor(checked, device=rows.device).reshape(len(wanted), -1)


def _checked(target: int, classes: int) -> int:
    if not 0 <= target < classes:
        raise TargetError(
            f"the target {target} is out of range; the output has {classes} values,"
            f" 0 to {classes - 1}"
        )
    return target
