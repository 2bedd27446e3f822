"""Pixel methods of one backward to the input: the gradient itself, and what is made of it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from exporter.maps.context import PassContext
from exporter.maps.gradient_weighted import gradcam_maps
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import method
from exporter.maps.terms import needed

_OWN = Passes(backwards=1, shared=True)
_GUIDED = Passes(backwards=1, relu_rule="guided", shared=True)
_DECONVNET = Passes(backwards=1, relu_rule="deconvnet", shared=True)
_NO_RELU = (
    " The rule changes ReLU and ReLU6 only: with SiLU, GELU or Hardswish this is the plain"
    " gradient."
)


@method(
    "saliency",
    title="Saliency (gradient)",
    shows="How much the target would change if a pixel changed a little.",
    formula="M_c(x,y) = ∂S/∂I_c(x,y), I the normalised input; stored: max_c |M_c|",
    paper="Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks: Visualising Image"
    " Classification Models and Saliency Maps, ICLR workshop 2014",
    url="https://arxiv.org/abs/1312.6034",
    cost="one forward pass and one backward pass per target, shared with Input × gradient",
    caveats="It says where the target is sensitive, not what it is made of; gradients of deep"
    " networks are noisy, and strided layers leave a pattern in them.",
    pixel="max-abs",
    needs=Needs(activations=False, passes=_OWN),
    kind="pass",
    aliases=("gradient", "vanillagradient"),
)
def saliency(context: PassContext) -> Tensor:
    """Return the gradient of each target with respect to the input, (N, T, C, H, W).

    M = ∂S/∂I, signed, one value per channel; no epsilon. `captum.attr.Saliency(abs=False)` is the
    same. Source: Simonyan et al. 2014, section 3.
    """
    return context.input_gradients()


@method(
    "inputxgradient",
    title="Input × gradient",
    shows="What each pixel adds to the target or takes from it, to first order around black"
    " (the mean colour).",
    formula="M_c(x,y) = I_c(x,y) · ∂S/∂I_c(x,y), I the normalised input; stored: Σ_c M_c",
    paper="Shrikumar, Greenside, Shcherbina, Kundaje: Not Just a Black Box: Learning Important"
    " Features Through Propagating Activation Differences, arXiv 2016",
    url="https://arxiv.org/abs/1605.01713",
    cost="one forward pass and one backward pass per target, shared with Saliency",
    caveats="Pixels of the mean colour, which are 0 after normalisation, get nothing, however"
    " much they matter; it is as noisy as the gradient.",
    pixel="sum",
    needs=Needs(activations=False, passes=_OWN),
    kind="pass",
    aliases=("gradientxinput", "gradxinput", "inputxgrad"),
)
def inputxgradient(context: PassContext) -> Tensor:
    """Return the input times the gradient of each target with respect to it, (N, T, C, H, W).

    M = I ⊙ ∂S/∂I; no epsilon. Source: Shrikumar et al. 2016.
    """
    return context.inputs.unsqueeze(1) * context.input_gradients()


@method(
    "guidedbackprop",
    title="Guided backpropagation",
    shows="The fine structure of the image that excites the units which raise the target.",
    formula="M = ∂S/∂I with every ReLU's backward g ↦ g·[x > 0]·[g > 0]; stored: max_c |M_c|",
    paper="Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity: The All"
    " Convolutional Net, ICLR workshop 2015",
    url="https://arxiv.org/abs/1412.6806",
    cost="one forward pass and one backward pass per target with its own rule, shared with Guided"
    " Grad-CAM",
    caveats="It mostly reconstructs edges of the image and hardly depends on the class or the"
    " last layers' weights (Adebayo et al. 2018)." + _NO_RELU,
    pixel="max-abs",
    needs=Needs(activations=False, passes=_GUIDED),
    kind="pass",
    aliases=("guidedbackpropagation", "guidedbp"),
)
def guidedbackprop(context: PassContext) -> Tensor:
    """Return the input's gradient, negative ones stopped at every ReLU, (N, T, C, H, W).

    A ReLU's backward is g · (x > 0) · (g > 0), for modules, functions, in-place and reused ReLUs
    alike; a ReLU6 passes where 0 < x < 6. No epsilon. Source: Springenberg et al. 2015, 3.4.
    """
    return context.input_gradients(rule="guided")


@method(
    "deconvnet",
    title="Deconvnet",
    shows="The fine structure that excites the target's units, whether or not they fired on this"
    " image.",
    formula="M = ∂S/∂I with every ReLU's backward g ↦ g·[g > 0]; stored: max_c |M_c|",
    paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
    url="https://arxiv.org/abs/1311.2901",
    cost="one forward pass and one backward pass per target with a rule of its own",
    caveats="Without the switches of max pooling it would not depend on the image at all; it"
    " shows edges rather than evidence." + _NO_RELU,
    pixel="max-abs",
    needs=Needs(activations=False, passes=_DECONVNET),
    kind="pass",
    aliases=("deconvolution", "deconv"),
)
def deconvnet(context: PassContext) -> Tensor:
    """Return the input's gradient, every ReLU's backward a ReLU of it, (N, T, C, H, W).

    A ReLU's (and ReLU6's) backward is g · (g > 0), whatever its input was; no epsilon. Source:
    Zeiler and Fergus 2014, section 2.1, in the words of Springenberg et al. 2015, section 3.4.
    """
    return context.input_gradients(rule="deconvnet")


@method(
    "guidedgradcam",
    title="Guided Grad-CAM",
    shows="Guided backpropagation's fine structure, only where Grad-CAM finds the class.",
    formula="M = G ⊙ up(max(Σ_c w_c·A_c, 0)), G guided backpropagation, w_c Grad-CAM's weights"
    " at the last layer explained, up bilinear; stored: max_c |M_c|",
    paper="Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM: Visual Explanations"
    " from Deep Networks via Gradient-based Localization, ICCV 2017",
    url="https://arxiv.org/abs/1610.02391",
    cost="the passes of Grad-CAM and of guided backpropagation, both shared",
    caveats="The fine structure is that of guided backpropagation, mostly edges; only the choice of"
    " positions depends on the class.",
    pixel="max-abs",
    needs=Needs(gradients=True, passes=_GUIDED),
    kind="pass",
)
def guidedgradcam(context: PassContext) -> Tensor:
    """Return guided backpropagation times rectified, up-sampled Grad-CAM, (N, T, C, H, W).

    M = G ⊙ up(ReLU(Σ_c w_c A_c)), w_c the spatial mean of ∂S/∂A_c at the last explained layer,
    ``up`` bilinear with align_corners=False; no epsilon. Source: Selvaraju et al. 2017, 3.2.
    """
    gradients = needed(context.gradients, "the gradient", "gradients")
    maps = gradcam_maps(context.layer_output(), gradients).relu()
    large = functional.interpolate(maps, size=context.inputs.shape[-2:], mode="bilinear")
    return large.unsqueeze(2) * context.input_gradients(rule="guided")
