"""Methods that weight a channel by what the model says when the channel is shown or taken away."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporter.maps.context import PassContext
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method
from exporter.maps.terms import Terms


@method(
    "scorecam",
    title="Score-CAM",
    shows="Where those channels are active that, as a mask on the image, let the model see the"
    " target.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w = softmax over channels of S(X ⊙ H_c), H_c ="
    " min-max(up-sampled A_c); then ReLU",
    paper="Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu: Score-CAM: Score-Weighted Visual"
    " Explanations for Convolutional Neural Networks, CVPR Workshops 2020",
    url="https://arxiv.org/abs/1910.01279",
    cost="no backward pass; one forward pass of the whole model per channel and image, at most 32"
    " images or one batch at once",
    caveats="The softmax is taken over logits, so the map depends on their scale: nearly the mean"
    " of the channels where logits are small, one channel alone where they are large. Masked"
    " images are unlike any that the model was trained on.",
    relu=True,
    needs=Needs(passes=Passes(forwards="per channel", of="masked images", least={"channels": 1})),
    kind="pass",
)
def scorecam(context: PassContext, channels: int = 0) -> Tensor:
    """Return the channels weighted by the scores of the images seen through them, (N, T, h, w).

    M = Σ_c w_c A_c with w = softmax_c(S(X ⊙ H_c)): S is the target's score itself (the logit, for a
    class; algorithm 1 of the paper takes logits), H_c = (U_c − min U_c) / (max U_c − min U_c), and
    U_c is A_c up-sampled bilinearly (corners not aligned) to the image, as equation 6 has it:
    up-sampled first, normalised then. The black baseline that the paper subtracts is the same for
    every channel and so has no part in the softmax. A channel that is the same everywhere has no
    mask: zeros take its place. No epsilon. Definition ends in a ReLU. Source: Wang et al. 2020.

    Args:
        context: with activations A.
        channels: how many are tried per image, those of the largest mean |A_c|; 0 tries all. The
            others have weight 0 and no part in the softmax.
    """
    activations = context.layer_output()
    chosen = strongest(activations, channels)
    number = len(activations)
    scores = []
    for part in context.portions(chosen.shape[1]):
        masks = image_masks(taken(activations, chosen[:, part]), context.inputs)
        variants = (masks.transpose(0, 1).unsqueeze(2) * context.inputs).flatten(0, 1)
        with torch.no_grad():
            score = context.score(context.module(variants))
        scores.append(score.view(-1, number, score.shape[1]).to(activations.dtype))
    return _weighted(torch.cat(scores).softmax(0), chosen, activations)


@method(
    "ablationcam",
    title="Ablation-CAM",
    shows="Where those channels are active without which the target's score falls.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w_c = (y − y_c) / y, y_c = the score with channel c"
    " set to 0; then ReLU",
    paper="Desai, Ramaswamy: Ablation-CAM: Visual Explanations for Deep Convolutional Network"
    " via Gradient-free Localization, WACV 2020",
    url="https://openaccess.thecvf.com/content_WACV_2020/html/Desai_Ablation-CAM_Visual_"
    "Explanations_for_Deep_Convolutional_Network_via_Gradient-free_Localization_WACV_2020_"
    "paper.html",
    cost="no backward pass; what follows the layer runs once per channel and image, the layers"
    " before it only if a path bypasses it; at most 32 images or one batch at once",
    caveats="The division flips the map's sign where the score is negative; a channel that"
    " another can replace gets no weight. Where activations can be negative, zero is not"
    " the absence of a channel.",
    relu=True,
    needs=Needs(
        passes=Passes(
            forwards="per channel",
            of="the layer without that channel",
            after_layer=True,
            least={"channels": 1},
        )
    ),
    kind="pass",
)
def ablationcam(context: PassContext, channels: int = 0) -> Tensor:
    """Return the channels weighted by the share of the score that goes with each, (N, T, h, w).

    M = Σ_c w_c A_c with w_c = (y − y_c) / y: y is the target's score, y_c the score after channel c
    is set to zero everywhere, whatever its sign. Where y is exactly 0 the plain drop y − y_c is the
    weight. No epsilon. Definition ends in a ReLU. Source: Desai and Ramaswamy 2020, equation 4.

    Args:
        context: with activations A.
        channels: how many are taken away per image, one at a time, those of the largest mean |A_c|;
            0 tries all. The others have weight 0.
    """
    activations = context.layer_output()
    chosen = strongest(activations, channels)
    number, channels = activations.shape[:2]
    numbers = torch.arange(channels, device=activations.device)
    with torch.no_grad():
        whole = context.score(context.run_from(activations)).to(activations.dtype)
        drops = []
        for part in context.portions(chosen.shape[1]):
            gone = chosen[:, part].T.unsqueeze(2) == numbers  # (k, N, C)
            variants = activations.masked_fill(gone[..., None, None], 0).flatten(0, 1)
            score = context.score(context.run_from(variants)).to(activations.dtype)
            drops.append(whole - score.view(-1, number, whole.shape[1]))
    weights = torch.cat(drops) / whole.masked_fill(whole == 0, 1)
    return _weighted(weights, chosen, activations)


def strongest(activations: Tensor, channels: int) -> Tensor:
    """Return the numbers of the channels to be tried, (N, K), in the order of the channels.

    Args:
        activations: A (N, C, H, W).
        channels: how many, those of the largest mean |A_c|; 0 for all.
    """
    number, count = activations.shape[:2]
    wanted = min(channels, count) if channels else count
    if wanted == count:
        return torch.arange(count, device=activations.device).expand(number, -1)
    return activations.abs().mean((2, 3)).topk(wanted, dim=1).indices.sort(1).values


def taken(activations: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen channels (N, k, H, W) of (N, C, H, W), by their numbers (N, k)."""
    index = chosen[..., None, None].expand(-1, -1, *activations.shape[2:])
    return activations.gather(1, index)


def image_masks(channels: Tensor, inputs: Tensor) -> Tensor:
    """Up-sample channels (N, k, h, w) to the inputs' size and scale each to [0, 1].

    Bilinear, corners not aligned; then min-max. A channel that is constant becomes 0.
    """
    grown = functional.interpolate(
        channels, size=inputs.shape[-2:], mode="bilinear", align_corners=False
    )
    lowest = grown.amin((2, 3), keepdim=True)
    span = grown.amax((2, 3), keepdim=True) - lowest
    return ((grown - lowest) / span.masked_fill(span == 0, 1)).to(inputs.dtype)


def _weighted(weights: Tensor, chosen: Tensor, activations: Tensor) -> Tensor:
    """Return Σ_c w_c A_c (N, T, H, W) of weights (K, N, T) of the chosen channels (N, K)."""
    picked = taken(activations, chosen) if chosen.shape[1] < activations.shape[1] else activations
    return Terms(picked).weigh(weights.permute(1, 2, 0))
