"""Grad-CAM refined: of several layers, of a difference of classes, corrected to the second order.

A and g = ∂S/∂A are (N, C, h, w).
"""

from __future__ import annotations

import torch
from torch import Tensor

from exporter.capture import TwiceDifferentiable, derived_once, unscaled_in
from exporter.errors import BackwardError, MapError, NoGradientError
from exporter.maps.context import PassContext, gradient_of
from exporter.maps.gradient_weighted import gradcam_maps, gradcampp
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method
from exporter.maps.terms import Terms

_NEEDS = "shapleycam needs second derivatives, and a step of the model has none"
_INSTEAD = "choose gradcam, which needs the first ones only"


@method(
    "refinecam",
    title="RefineCAM",
    shows="What every explained layer lights up at once: the fine detail of early layers, where"
    " late ones confirm it.",
    formula="M(x,y) = Π_l up-sampled min-max(max(M_l, 0)), M_l the Grad-CAM++ of layer l",
    paper="Domeniconi, Stramiglio, Lombardi, Salti: How to Evaluate and Refine your CAM, arXiv"
    " 2026; product and base method as in pytorch-grad-cam (RefineCAM)",
    url="https://arxiv.org/abs/2605.14641",
    cost="one backward pass, shared; then next to nothing",
    caveats="One layer whose map is wrong or zero spoils the product; with one explained layer it"
    " is Grad-CAM++. Like Grad-CAM++, it depends on the scale of the logits.",
    needs=Needs(gradients=True),
    kind="weights",
    fuse="product",
)
def refinecam(terms: Terms) -> Tensor:
    """Return Grad-CAM++'s channel weights (N, C), whose maps are then multiplied over the layers.

    Each layer's map Σ_c w_c A_c passes a ReLU, is scaled to [0, 1] per image (min-max) and then
    up-sampled bilinearly to the largest layer's size; the product over the layers is the map, kept
    under the layer ``fused``. No epsilon beyond Grad-CAM++'s definition. Source: Domeniconi et al.
    2026 and their code, which scales each layer at its own size and then up-samples it to the
    image's; pytorch-grad-cam's RefineCAM scales it once more there.
    """
    return gradcampp(terms)


@method(
    "finercam",
    title="Finer-CAM",
    shows="Where those channels are active that raise the target above the classes most similar"
    " to it.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w_c = 1/(H·W) · Σ_xy ∂(y_t − γ · mean_d y_d)/∂A_c,"
    " d the classes whose logits are nearest to the target's; then ReLU",
    paper="Zhang, Gu, Chowdhury, Mai, Carlyn, Berger-Wolf, Su, Chao: Finer-CAM: Spotting the"
    " Difference Reveals Finer Details for Visual Explanation, CVPR 2025",
    url="https://arxiv.org/abs/2501.11309",
    cost="what follows the layer runs again: one forward pass, and one backward pass per target",
    caveats="It explains a difference: what the target shares with the similar classes is"
    " removed, and if that is everything, so is the map. Which classes are similar follows from"
    " the logits; a person may not confuse them.",
    relu=True,
    needs=Needs(passes=Passes(backwards=1, after_layer=True)),
    kind="pass",
)
def finercam(context: PassContext, classes: int = 3, strength: float = 1.0) -> Tensor:
    """Return the Grad-CAM of the target less the classes next to it, (N, T, h, w).

    w_c is the spatial mean of ∂D/∂A_c with D = y_t − γ · mean_d y_d, and d the classes, t left out,
    whose logits are nearest to the target's: smallest |y_d − y_t|. The paper explains y_t − γ y_d
    and, for several d, the mean of the maps before the ReLU, which is the same. pytorch-grad-cam
    weighs the neighbours by their probabilities and differentiates these too; with one class the
    two agree. No epsilon. Definition ends in a ReLU. Source: Zhang et al. 2025.

    Args:
        context: with activations A and class targets.
        classes: how many neighbours; fewer where there are not so many.
        strength: γ.

    Raises:
        MapError: if the targets are no classes, or there is only one.
    """
    activations = context.layer_output()
    start = activations.detach().requires_grad_()
    with torch.enable_grad():
        logits = context.logits(context.run_from(start))
        if context.targets is None or logits.shape[1] < 2:
            raise MapError(
                "finercam compares a class with others, and the target is not one of several"
                " classes; choose class targets, or another map"
            )
        others = min(classes, logits.shape[1] - 1)
        rows = []
        for target in context.targets.unbind(1):
            own = logits.gather(1, target.unsqueeze(1))
            distance = (logits.detach() - own.detach()).abs()
            distance = distance.scatter(1, target.unsqueeze(1), torch.inf)
            near = distance.topk(others, dim=1, largest=False).indices
            away = logits.gather(1, near).mean(1) * strength
            rows.append(gradient_of((own.squeeze(1) - away).sum(), start, keep=True))
    return gradcam_maps(activations, rows)


@method(
    "shapleycam",
    title="ShapleyCAM",
    shows="Where those channels are active that raise the target, with the curvature of the score"
    " taken into account.",
    formula="M(x,y) = Σ_c w_c · A_c(x,y), w_c = 1/(H·W) · Σ_xy (g − ½ · ℋA)_c, g = ∂S/∂A,"
    " ℋ = ∂²S/∂A²; then ReLU",
    paper="Cai: CAMs as Shapley Value-based Explainers, The Visual Computer 2025",
    url="https://arxiv.org/abs/2501.06261",
    cost="what follows the layer runs again: one forward pass, and two backward passes per target",
    caveats="Where what follows the layer is piecewise linear (ReLU networks with logits as the"
    " target) the second derivative is zero and this is Grad-CAM. The target is the one asked"
    " for; the paper also proposes its own, of logit and probability together.",
    relu=True,
    needs=Needs(passes=Passes(backwards=2, after_layer=True)),
    kind="pass",
)
def shapleycam(context: PassContext) -> Tensor:
    """Return the Grad-CAM of the gradient less half of Hessian times activation, (N, T, h, w).

    w_c is the spatial mean of g_c − ½ (ℋA)_c: the Shapley value of the activations to the second
    order, as the paper derives it. The product of Hessian and activation is the derivative of
    g · A with A held constant in it; no Hessian is formed. No epsilon. Definition ends in a ReLU.
    Source: Cai 2025, and ShapleyCAM of pytorch-grad-cam.

    Raises:
        MapError: if a step of the model can be differentiated only once.
    """
    activations = context.layer_output()
    start = activations.detach().requires_grad_()
    rows = []
    with torch.enable_grad(), TwiceDifferentiable(), unscaled_in(context.module):
        scores = context.score(context.run_from(start))
        for score in scores.unbind(1):
            with derived_once([score]) as functions:
                gradient = gradient_of(score.sum(), start, create=True)
            if functions:
                raise MapError(
                    f"{_NEEDS}: no second derivative goes through the function"
                    f" {', '.join(sorted(functions))}; {_INSTEAD}"
                )
            along = (gradient * start.detach()).sum()
            try:
                curved = _second(along, start)
            except BackwardError as error:
                raise MapError(f"{_NEEDS}: {error}; {_INSTEAD}") from None
            rows.append((gradient - curved / 2).detach())
    return gradcam_maps(activations, rows)


def _second(along: Tensor, start: Tensor) -> Tensor:
    """Return ∂along/∂start; zeros where it does not depend on it, as in a ReLU network."""
    try:
        return gradient_of(along, start, keep=True)
    except NoGradientError:
        return torch.zeros_like(start)
