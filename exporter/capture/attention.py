"""Attention weights of a transformer: fused attention is written out for one pass.

Fused attention never forms the weights. For the length of one forward a torch function mode, which
is the calling thread's own, computes them one by one instead; the model is not touched, so there is
nothing to switch back.

The module is longer than 300 lines: every way in which attention is written is met in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from exporter.capture.hooks import hooked
from exporter.capture.modes import multi_head_with
from exporter.capture.precision import FLOAT32, Precision, precision_of
from exporter.containers import rebuild
from exporter.errors import LayerError
from exporter.guard import backward, with_graph

_ROWS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_SOFTMAX = (torch.softmax, Tensor.softmax, F.softmax)


@dataclass(frozen=True)
class SelfAttention:
    """Where a model attends.

    Attributes:
        blocks: the block of the row of blocks that each self-attention lies in, as they run.
        elements: attention weights of one image, all blocks together.
        taken: numbers of these self-attentions among all that run; others are another tower's.
    """

    blocks: tuple[str, ...]
    elements: int
    taken: tuple[int, ...]


@dataclass(frozen=True)
class AttentionPass:
    """One forward of a transformer, with the weights of every self-attention in its graph.

    Attributes:
        weights: by block, (N, heads, L, L): row i says what token i takes from every token.
        scores: each target's score at the model's output, T tensors (N,).
        step_scores: by block, the same scores if the blocks after it were left out, T tensors (N,)
            each; the last one is ``scores``.
        precision: the format that the model ran in.
    """

    weights: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    step_scores: tuple[tuple[Tensor, ...], ...]
    precision: Precision = FLOAT32

    def gradients(self, target: int) -> tuple[Tensor, ...]:
        """Return the gradient of one target's score with respect to every module's weights."""
        return self._gradients(self.scores[target], self.weights)

    def step_gradient(self, target: int, step: int) -> Tensor:
        """Return the gradient of a block's own score with respect to that block's own weights."""
        return self._gradients(self.step_scores[step][target], (self.weights[step],))[0]

    def _gradients(self, score: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if not score.requires_grad:
            raise LayerError(
                "no gradient of what is explained reaches the attention weights: the model "
                "detaches it or runs under torch.no_grad; choose rollout, or a map of activations"
            )
        with backward():
            gradients = torch.autograd.grad(
                score.sum(), weights, retain_graph=True, allow_unused=True
            )
        pairs = zip(gradients, weights, strict=True)
        every = (torch.zeros_like(at) if g is None else g for g, at in pairs)
        return tuple(self.precision.unscaled(gradient) for gradient in every)


def attention_pass(
    model: nn.Module, inputs: Tensor, score: Callable[[Any], Tensor], attention: SelfAttention
) -> AttentionPass:
    """Run a transformer once with its attention weights kept.

    For the scores block by block, what the last block returns is replaced by what every block
    returned, one after the other along the batch: the norm, the pooling and the head that follow
    run once, over all of them.

    Args:
        model: a guest already: in eval mode, frozen (see `guest`), autograd recording.
        inputs: (N, C, H, W) on its device.
        score: given the model's output for N images, the targets' scores (N, T).
        attention: from `find_attention`.

    Returns:
        The pass; its graph lives as long as it does.

    Raises:
        LayerError: if a block does not pass on one row of tokens per image.
    """
    modules = dict(model.named_modules())
    blocks = [modules[name] for name in attention.blocks]
    outputs: list[Tensor] = []
    number = len(inputs)

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        taken = False

        def change(_path: str, tensor: Tensor) -> Tensor:
            nonlocal taken
            if taken or tensor.ndim != 3 or len(tensor) != number:
                return tensor
            taken = True
            outputs.append(tensor)
            return torch.cat(outputs) if len(outputs) == len(blocks) else tensor

        return rebuild(output, change)

    with (
        hooked((block, keep) for block in blocks),
        _Explicit(graph=True, taken=attention.taken) as mode,
        torch.enable_grad(),
    ):
        output = model(inputs)
    weights = mode.kept
    if len(outputs) != len(blocks) or len(weights) != len(blocks):
        raise LayerError(
            "the model's blocks do not pass on one row of tokens per image each, so attention maps"
            " do not fit it; choose a map of activations or gradients"
        )
    steps = tuple(
        score(
            _rows(output, slice(index * number, (index + 1) * number), len(blocks) * number)
        ).unbind(1)
        for index in range(len(blocks))
    )
    return AttentionPass(tuple(weights), steps[-1], steps, precision_of(model))


def _rows(output: Any, some: slice, images: int) -> Any:
    """Return what an output says of some of the images; a detector's has an entry for each."""
    listed = isinstance(output, (list, tuple)) and len(output) == images
    if listed and not any(isinstance(each, Tensor) for each in output):
        return output[some]
    return rebuild(output, lambda _path, tensor: tensor[some] if tensor.ndim else tensor)


class _Explicit(TorchFunctionMode):
    """Computes attention step by step in this thread, and keeps the weights of self-attention.

    Covers ``F.scaled_dot_product_attention``, ``nn.MultiheadAttention`` with its fast path, and
    attention that is written out, by its softmax over (…, L, L). With a graph, the kept weights,
    (…, heads, L, L) each, take part in it, and it begins at the first of them. Only those whose
    numbers are ``taken`` are kept, where it says any.
    """

    def __init__(
        self, *, graph: bool, running: Sequence[str] = (), taken: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.names: list[str] = []
        self.seen: list[bool] = []
        self._running = running
        self._graph = graph
        self._taken = taken
        self._multi_head = multi_head_with(self._attend)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **named)
        if func is F.multi_head_attention_forward:
            return self._multi_head_attention(args, named)
        output = func(*args, **named)
        if func in _SOFTMAX and isinstance(output, Tensor) and output.ndim == 4:
            dim = named.get("dim", args[1] if len(args) > 1 else None)
            return self._keep(output) if dim in (-1, 3) else output
        return output

    def _multi_head_attention(self, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        asked = named.get("need_weights", True)
        before = len(self.kept)
        attended, _ = self._multi_head(*args, **{**named, "need_weights": False})
        if not asked or len(self.kept) == before:
            return attended, None
        weights = self.kept[-1]
        return attended, weights.mean(1) if named.get("average_attn_weights", True) else weights

    def _attend(  # noqa: PLR0917  (the order is the fused function's)
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attend as the fused function is documented to; without dropout, the model being eval."""
        del dropout_p
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        logits = (query * factor) @ key.mT
        if is_causal:
            ahead = torch.ones_like(logits[..., :, :], dtype=torch.bool).triu(1)
            logits = logits.masked_fill(ahead, -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            logits = logits + attn_mask
        return self._keep(logits.softmax(-1)) @ value

    def _keep(self, weights: Tensor) -> Tensor:
        if weights.shape[-1] != weights.shape[-2] or weights.shape[-1] < 4:
            return weights  # attention to other tokens: a pooling head's, a decoder's
        self.names.extend(self._running[-1:])
        self.seen.append(weights.requires_grad)
        if self._taken is not None and len(self.seen) - 1 not in self._taken:
            return weights
        held = weights.detach()
        if self._graph:
            held = weights = weights if weights.requires_grad else held.requires_grad_()
        self.kept.append(held)
        return weights


def find_attention(model: nn.Module, inputs: Tensor) -> SelfAttention:
    """Find where a model attends among what it makes of an image, by running it on one.

    Args:
        model: a guest already, so that a graph begins at the image alone.
        inputs: (N, C, H, W), of which the first image is taken.

    Raises:
        LayerError: if the model has no self-attention, or attends in windows, in grids of several
            sizes, or outside of a row of blocks.
    """
    mode = with_graph(partial(_attending, model, inputs[:1]))
    if not mode.kept:
        raise LayerError(
            "the model has no self-attention, which attention maps are made of; choose another map"
        )
    # Where a graph shows that none depends on the image, all of them may.
    taken = tuple(n for n, sees in enumerate(mode.seen) if sees or not any(mode.seen))
    kept = [mode.kept[n] for n in taken]
    if {weights.shape[0] for weights in kept} != {1} or len({w.shape[-2:] for w in kept}) > 1:
        raise LayerError(
            "the model attends within windows or at several resolutions, or mixes the image's "
            "tokens with others (a text's, a decoder's), where attention maps are defined for one "
            "row of tokens per image; choose a map of activations or gradients"
        )
    blocks = _blocks(model, [mode.names[number] for number in taken])
    return SelfAttention(blocks, sum(weights.numel() for weights in kept), taken)


def _attending(model: nn.Module, image: Tensor, graph: bool) -> _Explicit:
    """Run an image and keep every self-attention; with a graph, which of them depend on it."""
    running: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    before = [(module, enter(name)) for name, module in model.named_modules()]
    after = ((module, leave) for module in model.modules())
    mode = _Explicit(graph=False, running=running)
    with hooked(after, before), torch.set_grad_enabled(graph), mode:
        model(image.clone().requires_grad_(graph))
    return mode


def _blocks(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Return the member of the row of blocks that each attention lies in."""
    modules = dict(model.named_modules())
    paths = [name.split(".") for name in names]
    for depth in range(1, min(len(path) for path in paths)):
        rows = {".".join(path[:depth]) for path in paths}
        blocks = tuple(".".join(path[: depth + 1]) for path in paths)
        row = modules.get(rows.pop())
        if not rows and isinstance(row, _ROWS) and len(set(blocks)) == len(names):
            return blocks
    each = dict.fromkeys(_row_of(path, modules) for path in paths)
    if "" not in each and len(each) > 1:
        raise LayerError(
            f"the model attends in {len(each)} rows of blocks ({', '.join(each)}), and attention "
            "maps follow one; explain a model of one of them, or choose a map of activations or "
            "gradients"
        )
    raise LayerError(
        f"the model's attention ({', '.join(names[:3])} …) does not lie in one row of blocks, one"
        " each, so attention maps do not fit it; choose a map of activations or gradients"
    )


def _row_of(path: Sequence[str], modules: Mapping[str, nn.Module]) -> str:
    """Return the outermost row of blocks that an attention lies in, or ``""``."""
    above = (".".join(path[:depth]) for depth in range(1, len(path)))
    return next((name for name in above if isinstance(modules.get(name), _ROWS)), "")
