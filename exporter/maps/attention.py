"""Methods of a transformer's attention: one map per image, from the weights of every block.

Weights A_l and their gradients are (N, heads, L, L).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from exporter.errors import MapError
from exporter.maps.context import PassContext
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method
from exporter.maps.terms import needed


@method(
    "attention",
    title="Attention of the class token",
    shows="Which patches the class token looks at in the last block, whatever the target.",
    formula="M = mean_h A_L[class token, patches], or A_L^h of one head h",
    paper="Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin: Emerging Properties in"
    " Self-Supervised Vision Transformers, ICCV 2021",
    url="https://arxiv.org/abs/2104.14294",
    cost="one forward pass without fused attention, no backward pass",
    caveats="It does not depend on the target, and reads one block: what patches hold by then"
    " may come from elsewhere. Heads differ; their mean can hide what one of them looks at.",
    needs=Needs(activations=False, attention=True, passes=Passes()),
    kind="pass",
    aliases=("dino",),
)
def attention(context: PassContext, head: int | Literal["mean"] = "mean") -> Tensor:
    """Return the class token's row of the last block's attention over the patches, (N, 1, H, W).

    The rows are the model's own softmax, of one ``head`` (the first is 0) or the mean of all;
    without a class token, the mean of all rows. The same for every target. No ReLU, no epsilon; the
    paper's threshold at 60 % of the mass is left to whoever draws it. Source: Caron et al. 2021,
    section 4.2.2, figures 1 and 3.

    Raises:
        MapError: if there is no such head.
    """
    attended = needed(context.attended, "the attention", "attention")
    weights = attended.attention.weights[-1].detach()
    heads = weights.shape[1]
    if head == "mean":
        return attended.read_out(weights.mean(1)).unsqueeze(1)
    if not 0 <= head < heads:
        raise MapError(
            f"the map 'attention' has no head {head}: the model's last block has {heads}, from 0 "
            f"to {heads - 1}"
        )
    return attended.read_out(weights[:, head]).unsqueeze(1)


@method(
    "rollout",
    title="Attention rollout",
    shows="Which patches the class token's contents come from, following attention from block"
    " to block, whatever the target.",
    formula="M = row of the class token in Ã_L ··· Ã_2 · Ã_1, Ã_l = ½ (mean_h A_l + I)",
    paper="Abnar, Zuidema: Quantifying Attention Flow in Transformers, ACL 2020",
    url="https://arxiv.org/abs/2005.00928",
    cost="one forward pass without fused attention, no backward pass",
    caveats="It does not depend on the target, and takes attention for contribution: values,"
    " MLPs and the signs of both are left out.",
    needs=Needs(activations=False, attention=True, passes=Passes()),
    kind="pass",
)
def rollout(context: PassContext) -> Tensor:
    """Return the product of every block's attention, half of it the skip, (N, 1, H, W).

    Ã_l = ½ mean over heads of A_l + ½ I, whose rows sum to 1; the map is the class token's row of
    Ã_L ··· Ã_1 over the patches (the mean of all rows where there is no class token), the same for
    every target. No ReLU, no epsilon. Source: Abnar and Zuidema 2020, section 3.
    """
    attended = needed(context.attended, "the attention", "attention")
    rolled: Tensor | None = None
    for weights in attended.attention.weights:
        mixed = weights.detach().mean(1) / 2
        mixed.diagonal(dim1=1, dim2=2).add_(0.5)
        rolled = mixed if rolled is None else torch.bmm(mixed, rolled)
    assert rolled is not None, "a pass has at least one block"
    return attended.read_out(rolled).unsqueeze(1)


@method(
    "legrad",
    title="LeGrad",
    shows="Which patches, if more attention went to them, would raise the target, block by block.",
    formula="M = 1/B · Σ_l mean over heads and rows of max(∂S_l/∂A_l, 0), S_l the target's"
    " score were l the last block",
    paper="Bousselham, Boggust, Chaybouti, Strobelt, Kuehne: LeGrad: An Explainability Method"
    " for Vision Transformers via Feature Formation Sensitivity, ICCV 2025",
    url="https://arxiv.org/abs/2404.03214",
    cost="one forward pass without fused attention; one backward pass per block and target, from"
    " that block on",
    caveats="The head is applied to blocks that it was not trained on; at early ones its score may"
    " mean little. Never negative: what speaks against the target is left out.",
    needs=Needs(
        activations=False,
        attention=True,
        passes=Passes(backwards="per block"),
    ),
    kind="pass",
)
def legrad(context: PassContext) -> Tensor:
    """Return the positive gradients of each block's own score at its attention, (N, T, H, W).

    S_l is the target's score when the final norm, pooling and head read what block l returns. Its
    gradient with respect to A_l, negative entries dropped, is averaged over heads and rows (the
    tokens that look), which leaves a value for every token looked at; the maps of the blocks are
    averaged. The paper then scales to [0, 1], which is left to whoever draws it. No epsilon.
    Source: Bousselham et al. 2025, equations 5 to 8.
    """
    attended = needed(context.attended, "the attention", "attention")
    targets = []
    steps = len(attended.attention.weights)
    for target in range(len(attended.attention.scores)):
        rows = [
            attended.attention.step_gradient(target, step).clamp_min(0).mean((1, 2))
            for step in range(steps)
        ]
        targets.append(attended.patches(torch.stack(rows).mean(0)))
    return torch.stack(targets, 1)


@method(
    "chefer",
    title="Attention relevance (Chefer)",
    shows="Which patches the class token's decision rests on, following attention that raises"
    " the target from block to block.",
    formula="M = row of the class token in R_L, R_l = R_{l−1} + Ā_l · R_{l−1}, R_0 = I, Ā_l ="
    " mean_h max(∂S/∂A_l ⊙ A_l, 0)",
    paper="Chefer, Gur, Wolf: Generic Attention-model Explainability for Interpreting Bi-Modal"
    " and Encoder-Decoder Transformers, ICCV 2021",
    url="https://arxiv.org/abs/2103.15679",
    cost="one forward pass without fused attention and one backward pass per target",
    caveats="Only attention that raises the target is followed; MLPs and values are left out."
    " The products of small gradients of many blocks vanish beside the first one, so the map"
    " depends on the scale of the logits.",
    needs=Needs(activations=False, attention=True, passes=Passes(backwards=1)),
    kind="pass",
    aliases=("generic-attention", "attention-relevance"),
)
def chefer(context: PassContext) -> Tensor:
    """Return the relevance that gradient-weighted attention passes on, (N, T, H, W).

    Ā_l = mean over heads of max(∂S/∂A_l ⊙ A_l, 0) and R ← R + Ā_l R from R = I, block by block; the
    map is the class token's row of R over the patches (the mean of all rows where there is no class
    token, less the identity's part, which would add the same to every patch). No epsilon. As R
    is not normalised the map depends on the scale of the logits where several blocks multiply.
    Source: Chefer et al. 2021, equations 5 and 6.
    """
    attended = needed(context.attended, "the attention", "attention")
    targets = []
    for target in range(len(attended.attention.scores)):
        gradients = attended.attention.gradients(target)
        relevance: Tensor | None = None  # R less the identity
        for weights, gradient in zip(attended.attention.weights, gradients, strict=True):
            kept = (gradient * weights.detach()).clamp_min(0).mean(1)
            relevance = kept if relevance is None else relevance + kept + torch.bmm(kept, relevance)
        assert relevance is not None, "a pass has at least one block"
        targets.append(attended.read_out(relevance))
    return torch.stack(targets, 1)
