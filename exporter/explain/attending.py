"""Attention methods over a batch: some images at a time, so that the weights stay within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from exporter.capture import SelfAttention, attention_pass, find_attention
from exporter.errors import LayerError
from exporter.layers.layout import layout_of
from exporter.maps import Attended, Method, PassContext

ELEMENTS = 1 << 26
"""Attention weights of a pass, all blocks together: 256 MiB of float32; gradients take as much."""


class AttentionRunner:
    """Runs attention methods batch after batch; it remembers where the model attends."""

    def __init__(self, module: nn.Module, methods: Sequence[Method]) -> None:
        """Take the model and the methods that need attention weights."""
        self._module = module
        self._methods = tuple(methods)
        self._attention: SelfAttention | None = None
        self._why_not = ""

    def __call__(self, context: PassContext) -> tuple[dict[str, tuple[Tensor, ...]], str]:
        """Run every method on one batch.

        Returns:
            By method a map (N, H, W) per target; or nothing, and why the model has none.

        Raises:
            LayerError: if this batch has none, where earlier ones had.
        """
        if not self._methods or self._why_not:
            return {}, self._why_not
        if self._attention is not None:
            return self._run(context, self._attention), ""
        try:
            attention = find_attention(self._module, context.inputs)
            maps = self._run(context, attention)
        except LayerError as error:
            self._why_not = str(error)
            return {}, self._why_not
        self._attention = attention
        return maps, ""

    def _run(self, context: PassContext, attention: SelfAttention) -> dict[str, tuple[Tensor, ...]]:
        images = len(context.inputs)
        together = max(1, ELEMENTS // attention.elements)
        parts: dict[str, list[Tensor]] = {method.name: [] for method in self._methods}
        for start in range(0, images, together):
            part = context.part(start, min(start + together, images))
            attended = self._attended(part, attention)
            for method in self._methods:
                maps = method(replace(part, attended=attended))
                parts[method.name].append(maps.detach().expand(-1, context.count, -1, -1))
        return {name: torch.cat(maps).unbind(1) for name, maps in parts.items()}

    def _attended(self, context: PassContext, attention: SelfAttention) -> Attended:
        passed = attention_pass(self._module, context.inputs, context.score, attention)
        number, _, height, width = context.inputs.shape
        tokens = passed.weights[0].shape[-1]
        layout = layout_of((number, tokens, 1), (height, width))
        if layout is None or len(passed.weights[0]) != number:
            raise LayerError(
                f"the model attends among {tokens} tokens, which are not a grid of patches with"
                " tokens before it; choose a map of activations or gradients"
            )
        return Attended(passed, layout.height, layout.width, layout.prefix)
