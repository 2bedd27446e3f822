# ruff: noqa: ARG001 - all of them are called alike, whatever they need
"""The papers' formulas of one layer's activations and gradients, channel by channel.

Each takes the activations A (C, h, w), the gradients of the target's score with respect to them
(C, h, w), and the target's row of the linear classifier (C,), all of one image in float64, and
returns the raw map (h, w), before any last ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.parity.taking import Array


def cam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Zhou et al. 2016, equation 2."""
    return np.asarray(np.einsum("c,chw->hw", classifier, activations))


def gradcam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Selvaraju et al. 2017, equations 1 and 2 without the last ReLU."""
    channels, height, width = activations.shape
    total = np.zeros((height, width))
    for channel in range(channels):
        alpha = gradients[channel].sum() / (height * width)
        total += alpha * activations[channel]
    return total


def gradcampp(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Chattopadhay et al. 2018, equations 5, 7 and 19, with S the logit and Y = exp(S)."""
    total = np.zeros(activations.shape[1:])
    for activation, gradient in zip(activations, gradients, strict=True):
        denominator = 2 * gradient**2 + activation.sum() * gradient**3
        alpha = np.divide(
            gradient**2, denominator, out=np.zeros_like(gradient), where=gradient != 0
        )
        total += (alpha * np.maximum(gradient, 0)).sum() * activation
    return total


def xgradcam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Fu et al. 2020: the gradient averaged with the normalised activation as the weight."""
    total = np.zeros(activations.shape[1:])
    for activation, gradient in zip(activations, gradients, strict=True):
        if activation.sum() != 0:
            total += (activation / activation.sum() * gradient).sum() * activation
    return total


def layercam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Jiang et al. 2021."""
    return np.asarray(np.einsum("chw,chw->hw", np.where(gradients > 0, gradients, 0), activations))


def hirescam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Draelos and Carin 2020."""
    return np.asarray(np.einsum("chw,chw->hw", gradients, activations))


def gradcam_elementwise(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Pillai and Pirsiavash 2021: the ReLU inside the sum over channels."""
    total = np.zeros(activations.shape[1:])
    for activation, gradient in zip(activations, gradients, strict=True):
        total += np.maximum(activation * gradient, 0)
    return total


def eigencam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Muhammad and Yeasin 2020, centred; the sign is the package's convention."""
    matrix = activations.reshape(len(activations), -1).T
    matrix = matrix - matrix.mean(0)
    vector = np.linalg.svd(matrix, full_matrices=False)[2][0]
    return np.asarray((matrix @ vector * np.sign(vector.sum())).reshape(activations.shape[1:]))


def eigengradcam(activations: Array, gradients: Array, classifier: Array) -> Array:
    """Give Eigen-CAM gradient times activation, as pytorch-grad-cam's EigenGradCAM does."""
    return eigencam(activations * gradients, gradients, classifier)


FORMULAS: Mapping[str, Callable[[Array, Array, Array], Array]] = {
    "cam": cam,
    "gradcam": gradcam,
    "gradcam++": gradcampp,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "hirescam": hirescam,
    "gradcam-elementwise": gradcam_elementwise,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
    "refinecam": gradcampp,
}
"""By method, the formula of one layer; how RefineCAM's layers are put together: `references`."""
