"""One forward, and one backward per target, for every layer at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture.guest import guest
from exporter.capture.hooks import Recording, record_layers
from exporter.containers import rebuild

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
    the device.

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
        for name in recording.changed:
            recording.forget(name)
            missing[name] = "it is written to in place after its module returned it"
        named = [n for n in recording.tensors if not graph.isdisjoint(recording.asked[n])]
        reached = _gradients(recording, named, score(output), missing) if named else {}
    return Captured(
        output=rebuild(output, lambda _path, tensor: tensor.detach()),
        activations={name: tensor.detach() for name, tensor in recording.tensors.items()},
        gradients=reached,
        missing=missing,
        asked=recording.asked,
    )


def _absent(recording: Recording) -> dict[str, str]:
    answered = {name for asked in recording.asked.values() for name in asked}
    missing = {}
    for text, name in recording.wanted.items():
        if text in answered:
            continue
        calls = recording.calls(name.module)
        if calls == 0:
            missing[text] = "its module is never called (its work may be fused into another's)"
        elif calls < name.call:
            missing[text] = f"its module is called {calls} times only"
        elif name.path:
            missing[text] = f"what it returns has no floating-point tensor at {name.path}"
        else:
            missing[text] = "it returns no floating-point tensor"
    return missing


def _gradients(
    recording: Recording,
    names: Sequence[str],
    scores: Tensor | Sequence[Tensor],
    missing: dict[str, str],
) -> dict[str, Tensor]:
    """Differentiate each target's summed score with respect to every kept tensor."""
    tensors = [recording.tensors[name] for name in names]
    # A layer that ran under inference mode, inside the model, can carry no gradient.
    free = [number for number, tensor in enumerate(tensors) if tensor.requires_grad]
    targets = list(scores.unbind(1)) if isinstance(scores, Tensor) else list(scores)
    rows: list[list[Tensor | None]] = []
    for count, target in enumerate(targets, start=1):
        row: list[Tensor | None] = [None] * len(names)
        rows.append(row)
        if not (target.requires_grad and free):
            continue
        recording.replay()
        wanted = [tensors[number] for number in free]
        row_free = torch.autograd.grad(
            target.sum(), wanted, retain_graph=count < len(targets), allow_unused=True
        )
        for number, gradient in zip(free, row_free, strict=True):
            row[number] = gradient
    gradients: dict[str, Tensor] = {}
    for name, tensor, *column in zip(names, tensors, *rows, strict=True):
        reached = [gradient for gradient in column if gradient is not None]
        if not reached:
            missing[name] = "no gradient reaches it: the explained output does not depend on it"
        elif len(column) == 1:
            gradients[name] = reached[0].unsqueeze(0)
        else:
            # A target that does not depend on the layer, beside one that does: gradient zero.
            gradients[name] = torch.stack(
                [torch.zeros_like(tensor) if g is None else g for g in column]
            )
    return gradients
