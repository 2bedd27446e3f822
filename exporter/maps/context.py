"""What a method with passes of its own is given: the model, the inputs, and ways to run it.

Such a method is `compute(context) -> Tensor`. A pixel method gives (N, T, C, H, W) at the input's
resolution, every other (N, T, h, w) at ``context.layer``. Everything that knows hooks comes in from
outside (`exporter.explain.passes` builds the context), so that a method stays a function over
tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import AttentionPass, relu_rule
from exporter.errors import NoGradientError
from exporter.guard import backward
from exporter.maps.terms import needed

ROWS = 32
"""Inputs that go through the model together where variants of the images are stacked: so many, or
one variant of every image where the batch is larger."""


@dataclass(frozen=True)
class Attended:
    """Some images' attention, with what it takes to read a map out of it.

    Attributes:
        attention: the weights, and their gradients on demand.
        height: rows of patches.
        width: columns of patches.
        prefix: tokens before the patches (class, registers, distillation); others may follow them.
    """

    attention: AttentionPass
    height: int
    width: int
    prefix: int

    def read_out(self, relevance: Tensor) -> Tensor:
        """Return the patches' part (N, H, W) of a matrix (N, L, L) of what tokens owe to tokens.

        The row of the class token, the first before the patches or else the first after them; where
        there is none, the mean of the patches' rows, which is what average pooling reads.
        """
        end = self.prefix + self.height * self.width
        if self.prefix:
            row = relevance[:, 0]
        else:
            row = relevance[:, end] if relevance.shape[1] > end else relevance.mean(1)
        return self.patches(row)

    def patches(self, tokens: Tensor) -> Tensor:
        """Return the patches' part (N, H, W) of one value per token (N, L)."""
        end = self.prefix + self.height * self.width
        return tokens[:, self.prefix : end].reshape(len(tokens), self.height, self.width)


@dataclass(frozen=True)
class PassContext:
    """One batch, for a method that runs the model itself.

    Images do not see one another. Where variants of the images are stacked, row r belongs to image
    r modulo N: k variants of N images are ``variants.flatten(0, 1)`` of (k, N, …).

    Attributes:
        module: in eval mode, parameters frozen, grad recording on; restored afterwards by others.
        inputs: (N, C, H, W), without a graph.
        targets: class indices, int64 (N, T); None where the targets are functions of the output.
        count: T, targets per image.
        scorer: called as ``scorer(output, images)``: see `score`.
        rest: called as ``rest(activation, images)``: see `run_from`.
        generator: seeded anew for every method and batch, on the inputs' device; None on ``meta``.
        layer: the layer; for a pixel method that needs activations the last one explained that has
            them; otherwise ``""``.
        activations: (N, C, h, w) of that layer from the shared pass, if the method needs them.
        gradients: (T, N, C, h, w), likewise.
        images: which images of the batch these are.
        memo: what methods of the same batch share; see `shared`.
        reader: called as ``reader(output)``: see `logits`.
        attended: the attention of every block, for a method that needs it.
        rows: as `ROWS`, where memory is too short for so many.

    Examples:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
        >>> context = PassContext(
        ...     model, torch.ones(1, 1, 2, 2), targets=torch.tensor([[2]]), count=1,
        ...     scorer=lambda output, images: output[:, 2:], rest=lambda activation, images: None,
        ... )
        >>> context.input_gradients().flatten().equal(model[1].weight[2])
        True
    """

    module: nn.Module
    inputs: Tensor
    targets: Tensor | None
    count: int
    scorer: Callable[[Any, slice], Tensor]
    rest: Callable[[Tensor, slice], Any]
    generator: torch.Generator | None = None
    layer: str = ""
    activations: Tensor | None = None
    gradients: Tensor | None = None
    images: slice = field(default_factory=lambda: slice(0, None))
    memo: dict[str, Tensor] = field(default_factory=dict)
    reader: Callable[[Any], Tensor] | None = None
    attended: Attended | None = None
    rows: int | None = None

    def logits(self, output: Any) -> Tensor:
        """Return the explained rows (k·N, K) of a model output."""
        assert self.reader is not None, "whoever builds a context for layers gives it a reader"
        return self.reader(output)

    def score(self, output: Any) -> Tensor:
        """Return the targets' scores (k·N, T) of a model output of k variants of the images."""
        return self.scorer(output, self.images)

    def run_from(self, activation: Tensor) -> Any:
        """Run what follows ``layer``, given (k·N, C, h, w) in the place of its output.

        What comes before the layer is not run again where nothing else leads around it.

        Returns:
            The model's output, as `score` reads it.
        """
        return self.rest(activation, self.images)

    def values(self, inputs: Tensor) -> Tensor:
        """Return the scores (k·N, T) of k variants (k·N, C, H, W) of the images, without a graph.

        At most `ROWS` rows, or N where that is more, go through the model together.
        """
        with torch.no_grad():
            scores = [
                self.score(self.module(inputs[part.start : part.stop]))
                for part in self.portions(len(inputs) // len(self.inputs), len(self.inputs))
            ]
        return torch.cat(scores)

    def input_gradients(self, inputs: Tensor | None = None, rule: str = "") -> Tensor:
        """Return the gradient of every target with respect to the inputs.

        Args:
            inputs: (k·N, C, H, W); None for the images themselves: one such pass is then shared by
                all methods of the batch.
            rule: backward rule of the ReLUs, ``""`` for their derivative.

        Returns:
            (k·N, T, C, H, W), without a graph.

        Raises:
            NoGradientError: if none reaches the inputs.
        """
        if inputs is None:
            key = f"gradient {rule}"
            if key not in self.memo:
                self.memo[key] = self.input_gradients(self.inputs, rule)
            return self.memo[key]
        start = inputs.detach().requires_grad_()
        with self.rule(rule):
            scores = self.summed_scores(start)
            rows = [gradient_of(score, start, keep=score is not scores[-1]) for score in scores]
        return torch.stack(rows, 1)

    def summed_scores(self, start: Tensor) -> tuple[Tensor, ...]:
        """Return each target's score, summed over all images of (k·N, C, H, W), with its graph."""
        with torch.enable_grad():
            return self.score(self.module(start)).sum(0).unbind()

    def layer_output(self) -> Tensor:
        """Return the activations (N, C, h, w).

        Raises:
            MapError: if the method's needs do not say them.
        """
        return needed(self.activations, "the activations", "activations")

    def rule(self, name: str) -> AbstractContextManager[None]:
        """Return the context of a ReLU rule, or of none for ``""``."""
        return relu_rule(name) if name else nullcontext()

    def portions(self, variants: int, rows: int = 1) -> Iterator[slice]:
        """Cut a number of variants of every image into pieces that go through the model together.

        Args:
            variants: how many there are of each image.
            rows: what the slices count: 1 for variants, N for rows of stacked variants.
        """
        together = max(1, (self.rows or ROWS) // max(1, len(self.inputs)))
        for start in range(0, variants, together):
            stop = min(start + together, variants)
            yield slice(start * rows, stop * rows)

    def part(self, start: int, stop: int) -> PassContext:
        """Return the context of some images of the batch."""
        here = slice(start, stop)
        first = self.images.start or 0
        return replace(
            self,
            inputs=self.inputs[here],
            targets=None if self.targets is None else self.targets[here],
            activations=None if self.activations is None else self.activations[here],
            gradients=None if self.gradients is None else self.gradients[:, here],
            images=slice(first + start, first + min(stop, len(self.inputs))),
            memo={},
        )


def gradient_of(
    score: Tensor, start: Tensor, *, keep: bool = False, create: bool = False
) -> Tensor:
    """Return ∂score/∂start.

    Args:
        score: a scalar.
        start: a leaf.
        keep: whether the graph is needed again.
        create: whether the gradient is differentiated in its turn; keeps the graph too.

    Raises:
        NoGradientError: if there is none: zeros would look like a map.
        BackwardError: if the backward fails.
    """
    gradient = None
    if score.requires_grad:
        with backward():
            (gradient,) = torch.autograd.grad(
                score, start, retain_graph=keep or create, create_graph=create, allow_unused=True
            )
    if gradient is None:
        raise NoGradientError(
            "no gradient of what is explained reaches the input or the layer: the model detaches "
            "it, runs under torch.no_grad, or does not depend on it; choose a method of activations"
        )
    return gradient
