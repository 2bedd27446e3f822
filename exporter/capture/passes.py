"""One forward, and one backward per target, for every layer at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.guest import guest
from exporter.capture.hooks import Recording, record_layers
from exporter.capture.precision import precision_of
from exporter.containers import rebuild
from exporter.errors import BackwardError
from exporter.guard import backward

Score = Callable[[Any], "Tensor | Sequence[Tensor]"]


@dataclass(frozen=True)
class Captured:
    """What one pass gives; every tensor is detached and stays on the model's device.

    Attributes:
        output: what the model returned, in its own structure.
        activations: by layer, in the order in which the layers ran; (N, …) as they returned it.
        gradients: by layer, (T, N, …): of each target's score with respect to the activation.
        missing: by the name asked for, why a layer's activation or gradient is not there.
        asked: by kept name, the requests that it answers: ``block[0]`` answers ``block`` too.
    """

    output: Any
    activations: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    missing: Mapping[str, str]
    asked: Mapping[str, tuple[str, ...]]


def capture(
    model: nn.Module,
    inputs: Tensor,
    layers: Sequence[str],
    score: Score,
    *,
    gradients: bool | Collection[str] = True,
) -> Captured:
    """Run a model once and keep what its layers returned, with the gradients of its scores.

    The model is left as it was (see `guest`). No graph is recorded before the shallowest layer
    whose gradient is asked for; without gradients none is recorded at all. Nothing here waits for
    the device, but the end of a first pass (see `guest`).

    Args:
        model: any module that takes one tensor.
        inputs: (N, …) on the model's device; detached, and cloned if made under inference mode.
        layers: names: ``layer4``, ``relu#2`` for the second call of a module, ``block[0]`` or
            ``block[key]`` for an element of what it returns. A layer that returns a container gives
            each floating-point tensor in it under such a name.
        score: given the model's output (with its graph), returns what is explained: (N, T), or a
            sequence of T tensors; each target's scores are summed over the images, which is right
            where images do not see one another. Not called without gradients.
        gradients: whether gradients are wanted, or for which of ``layers``.

    Returns:
        Activations, gradients, the output, and what is missing and why.

    Raises:
        LayerError: if a name in ``layers`` is no layer of the model.
        ModelError: if the model cannot carry gradients (see `guest`).

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(8, 3))
        >>> inputs = torch.ones(5, 1, 4, 4)
        >>> got = capture(model, inputs, ["0", "1"], lambda output: output[:, :1])
        >>> {name: tuple(g.shape) for name, g in got.gradients.items()}
        {'0': (1, 5, 2, 2, 2), '1': (1, 5, 2, 2, 2)}
    """
    graph = frozenset(layers if gradients is True else gradients or ())
    with guest(model), record_layers(model, layers, graph) as recording:
        given = inputs.clone() if inputs.is_inference() else inputs.detach()
        with torch.set_grad_enabled(bool(graph)):
            output = model(given)
        missing = _absent(recording)
        for name in recording.forget_changed():
            missing[name] = "it is written to in place after its module returned it"
        named = [n for n in recording.tensors if not graph.isdisjoint(recording.asked[n])]
        reached = differentiate(recording, named, score(output), missing) if named else {}
        unscaled = precision_of(model).unscaled
    return Captured(
        output=rebuild(output, lambda _path, tensor: plain(tensor)),
        activations={name: plain(tensor) for name, tensor in recording.tensors.items()},
        gradients={name: unscaled(gradient) for name, gradient in reached.items()},
        missing=missing,
        asked=recording.asked,
    )


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor without its graph; one made under inference mode is copied out of it."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _absent(recording: Recording) -> dict[str, str]:
    answered = {name for asked in recording.asked.values() for name in asked}
    missing = {}
    for text, name in recording.wanted.items():
        if text in answered:
            continue
        calls = recording.calls[name.module]
        if calls == 0:
            missing[text] = "its module is never called (its work may be fused into another's)"
        elif calls < name.call:
            missing[text] = f"its module is called {calls} times only"
        elif name.path:
            missing[text] = f"what it returns has no floating-point tensor at {name.path}"
        else:
            missing[text] = "it returns no floating-point tensor"
    return missing


def differentiate(
    recording: Recording,
    names: Sequence[str],
    scores: Tensor | Sequence[Tensor],
    missing: dict[str, str],
) -> dict[str, Tensor]:
    """Differentiate each target's summed score with respect to every kept tensor.

    Returns:
        By name, (T, …) of the tensor's shape.
    """
    tensors = [recording.tensors[name] for name in names]
    # A layer that ran under inference mode, inside the model, can carry no gradient.
    free = [number for number, tensor in enumerate(tensors) if tensor.requires_grad]
    targets = list(scores.unbind(1)) if isinstance(scores, Tensor) else list(scores)
    rows: list[dict[int, Tensor | None]] = []
    for count, target in enumerate(targets, start=1):
        row: Sequence[Tensor | None] = ()
        if target.requires_grad and free:
            recording.replay()
            try:
                with backward():
                    row = torch.autograd.grad(
                        target.sum(),
                        [tensors[number] for number in free],
                        retain_graph=count < len(targets),
                        allow_unused=True,
                    )
            except BackwardError as error:
                missing |= dict.fromkeys(names, f"no gradient reaches it: {error}")
                return {}
        rows.append(dict(zip(free, row, strict=False)))
    gradients: dict[str, Tensor] = {}
    for number, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        column = [row.get(number) for row in rows]
        if all(gradient is None for gradient in column):
            missing[name] = f"no gradient reaches it: {_why_not(name, recording, targets)}"
        else:
            # A target that does not depend on the layer, beside one that does: gradient zero.
            reached = [torch.zeros_like(tensor) if g is None else g for g in column]
            gradients[name] = reached[0][None] if len(reached) == 1 else torch.stack(reached)
    return gradients


def _why_not(name: str, recording: Recording, targets: Sequence[Tensor]) -> str:
    if name in recording.silenced or recording.tensors[name].is_inference():
        return (
            "the model runs it under torch.no_grad, inference_mode or a reentrant checkpoint "
            "(which use_reentrant=False mends)"
        )
    if not any(target.requires_grad for target in targets):
        return "the explained output carries none (it is detached, or made under torch.no_grad)"
    return "the explained output does not depend on it, or is detached from it"
