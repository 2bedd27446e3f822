"""Vision transformers run by hand, block by block from their parameters, and maps of attention.

Only norms, linear layers and the exponential are called, so nothing is shared with what is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.parity.taking import Array, Shown, array


class ByHand(NamedTuple):
    """One image through a transformer.

    Attributes:
        weights: attention of every block, (1, heads, L, L), with its graph.
        scores: the target's score were that block the last one, with its graph.
        prefix: tokens before those of the patches.
    """

    weights: Sequence[Tensor]
    scores: Sequence[Tensor]
    prefix: int


def by_hand(model: Any, family: str, image: Tensor, target: int) -> ByHand:
    """Run a ViT from its parameters.

    Args:
        model: a ``torchvision`` VisionTransformer, or a ``timm`` one.
        family: which.
        image: (1, C, H, W).
        target: the class.
    """
    if family == "torchvision":
        tokens = model._process_input(image)
        tokens = torch.cat([model.class_token, tokens], 1) + model.encoder.pos_embedding
        parts = [
            (b.ln_1, _torchvision(b.self_attention), b.ln_2, b.mlp)
            for b in list(model.encoder.layers)
        ]
        prefix = 1
    else:
        tokens = model._pos_embed(model.patch_embed(image))
        parts = [(b.norm1, _timm(b.attn), b.norm2, b.mlp) for b in model.blocks]
        prefix = model.num_prefix_tokens
    weights, scores = [], []
    for before, attend, after, mlp in parts:
        made, weight = attend(before(tokens))
        weights.append(weight)
        tokens = tokens + made
        tokens = tokens + mlp(after(tokens))
        scores.append(_head(model, family, tokens)[0, target])
    return ByHand(weights, scores, prefix)


def _head(model: Any, family: str, tokens: Tensor) -> Tensor:
    """Return the logits (1, K) that the model reads off the tokens (1, L, C)."""
    logits: Tensor
    if family == "torchvision":
        logits = model.heads(model.encoder.ln(tokens)[:, 0])
    elif hasattr(model, "head_dist"):
        tokens = model.norm(tokens)
        logits = (model.head(tokens[:, 0]) + model.head_dist(tokens[:, 1])) / 2
    else:
        tokens = model.norm(tokens)
        pooled = tokens[:, 0]
        if model.global_pool == "avg":
            pooled = model.fc_norm(tokens[:, model.num_prefix_tokens :].mean(1))
        logits = model.head(pooled)
    return logits


def _torchvision(inner: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def attend(x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = functional.linear(x, inner.in_proj_weight, inner.in_proj_bias).chunk(3, -1)
        return _mixed(q, k, v, inner.num_heads, inner.out_proj)

    return attend


def _timm(inner: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def attend(x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = inner.qkv(x).chunk(3, -1)
        return _mixed(q, k, v, inner.num_heads, inner.proj)

    return attend


def _mixed(q: Tensor, k: Tensor, v: Tensor, number: int, out: nn.Module) -> tuple[Tensor, Tensor]:
    heads = [one.reshape(*one.shape[:2], number, -1).transpose(1, 2) for one in (q, k, v)]
    likeness = torch.einsum("nhie,nhje->nhij", heads[0], heads[1]) / heads[0].shape[-1] ** 0.5
    weight = torch.exp(likeness) / torch.exp(likeness).sum(-1, keepdim=True)
    return out(torch.einsum("nhij,nhje->nihe", weight, heads[2]).flatten(2)), weight


def attention(run: ByHand) -> Array:
    """Caron et al. 2021, section 4.2.2, the mean of the heads."""
    return _row(array(run.weights[-1][0]).mean(0), run.prefix)


def rollout(run: ByHand) -> Array:
    """Abnar and Zuidema 2020, section 3."""
    rolled = np.eye(run.weights[0].shape[-1])
    for weight in run.weights:
        rolled = (array(weight[0]).mean(0) + np.eye(len(rolled))) / 2 @ rolled
    return _row(rolled, run.prefix)


def legrad(run: ByHand) -> Array:
    """Bousselham et al. 2024, equations 5 to 8, before the last scaling."""
    steps = []
    for score, weight in zip(run.scores, run.weights, strict=True):
        (steep,) = torch.autograd.grad(score, weight, retain_graph=True)
        steps.append(_plane(np.maximum(array(steep[0]), 0).mean((0, 1)), run.prefix))
    return np.asarray(np.mean(steps, axis=0))


def chefer(run: ByHand) -> Array:
    """Chefer et al. 2021, equations 5 and 6."""
    steep = torch.autograd.grad(run.scores[-1], list(run.weights), retain_graph=True)
    relevance = np.eye(run.weights[0].shape[-1])
    for weight, one in zip(run.weights, steep, strict=True):
        kept = np.maximum(array(weight[0]) * array(one[0]), 0).mean(0)
        relevance = relevance + kept @ relevance
    # Without a class token the identity would add the same to every patch.
    return _row(relevance if run.prefix else relevance - np.eye(len(relevance)), run.prefix)


def _row(matrix: Array, prefix: int) -> Array:
    """Return the class token's row over the patches; without one the mean of all rows."""
    return _plane(matrix[0] if prefix else matrix.mean(0), prefix)


def _plane(tokens: Array, prefix: int) -> Array:
    side = round((len(tokens) - prefix) ** 0.5)
    return np.asarray(tokens[prefix:].reshape(side, side))


MAPS: Mapping[str, Callable[[ByHand], Array]] = {
    "attention": attention,
    "rollout": rollout,
    "legrad": legrad,
    "chefer": chefer,
}


def attention_map(shown: Shown, name: str) -> Array:
    """Return the map (h, w) of an attention method, float64."""
    image = shown.image.detach().clone().requires_grad_()
    family = shown.subject.attention
    return MAPS[name](by_hand(shown.model, family, image, shown.target))
