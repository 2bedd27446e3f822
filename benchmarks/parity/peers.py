"""Other libraries' maps beside ours, where they compute the same thing.

captum: plain gradients everywhere; guided methods where every ReLU is a module called once; its
Grad-CAM, which needs channels first. pytorch-grad-cam: its formulas on activations and gradients
taken by plain hooks, as its public call rectifies, scales and rounds to float32. What these
libraries compute otherwise is in docs/maps.md.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fixtures import without_inplace
from benchmarks.parity.counts import Tally
from benchmarks.parity.ours import Images, Maps
from benchmarks.parity.subjects import SUBJECTS
from benchmarks.parity.taking import array, replaced, take
from exporter import compute_maps

ALLOWED = 1e-9
FINER_ALLOWED = 1e-6
"""pytorch-grad-cam's Finer-CAM divides by the neighbour's probability plus 1e-9."""

RELU_MODULES = ("vgg11_bn", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5")
"""Architectures whose ReLUs are all modules, each called once."""

CAMS = {
    "gradcam": "GradCAM",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
    "gradcam-elementwise": "GradCAMElementWise",
}
"""pytorch-grad-cam's methods without an epsilon and in the type that they are given."""


def plain(model: nn.Module) -> nn.Module:
    """Return a copy that captum's hooks on modules can read: no ReLU in place."""
    return without_inplace(copy.deepcopy(model)).requires_grad_(True)


def compare_captum(architecture: str, found: Maps, shown: Images, tally: Tally) -> None:
    """Compare maps already computed with captum's.

    Args:
        architecture: name of one of `SUBJECTS`.
        found: ours.
        shown: what the model is shown.
        tally: what is counted.
    """
    from captum import attr

    subject, (images, targets) = SUBJECTS[architecture], shown
    model = plain(subject.model())
    attributions: dict[tuple[str, str], Callable[[], Tensor]] = {
        ("saliency", ""): lambda: attr.Saliency(model).attribute(
            images.clone(), targets, abs=False
        ),
        ("inputxgradient", ""): lambda: attr.InputXGradient(model).attribute(
            images.clone(), targets
        ),
    }
    if architecture in RELU_MODULES:
        last = model.get_submodule(subject.layers[-1])
        attributions |= {
            ("guidedbackprop", ""): lambda: attr.GuidedBackprop(model).attribute(
                images.clone(), targets
            ),
            ("deconvnet", ""): lambda: attr.Deconvolution(model).attribute(images.clone(), targets),
            ("guidedgradcam", ""): lambda: attr.GuidedGradCam(model, last).attribute(
                images.clone(), targets, interpolate_mode="bilinear"
            ),
        }
    for layer in subject.layers if subject.layout == "nchw" else ():
        cam = attr.LayerGradCam(model, model.get_submodule(layer))
        attributions["gradcam", layer] = partial(cam.attribute, images, targets)
    for key, attribute in attributions.items():
        if key in found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                right = attribute()
            for ours, one in zip(found[key], right, strict=True):
                expected = array(one[0] if key[1] else one)  # a layer's map has one channel
                tally.add(key[0], (architecture, key[1]), ours, expected, ALLOWED)


def compare_gradcam(architecture: str, found: Maps, shown: Images, tally: Tally) -> None:
    """Compare maps already computed, and Finer-CAM against one class, with pytorch-grad-cam's.

    Args:
        architecture: name of one of `SUBJECTS`.
        found: ours.
        shown: what the model is shown.
        tally: what is counted.
    """
    import pytorch_grad_cam as peers

    subject, (images, targets) = SUBJECTS[architecture], shown
    model = subject.model()
    taken = take(model, images, subject.layers, targets)
    for layer, pair in taken.items():
        activations, gradients = (array(subject.grid(one, layer)) for one in pair)
        for method, name in CAMS.items():
            if (method, layer) not in found:
                continue
            peer = getattr(peers, name)(nn.Conv2d(1, 1, 1), [])
            right = peer.get_cam_image(None, None, None, activations, gradients, False)
            for ours, one in zip(found[method, layer], right, strict=True):
                tally.add(method, (architecture, layer), ours, one, ALLOWED)
    if ("finercam", subject.layers[0]) in found:
        ours_finer = compute_maps(
            model, images, maps=["finercam:classes=1"], layers=subject.layers, targets=targets
        )
        for (method, layer), maps in ours_finer.items():
            for number, target in enumerate(targets):
                right_one = _finer(peers, architecture, images[number : number + 1], target, layer)
                tally.add(
                    method, (architecture, layer), maps[number], array(right_one), FINER_ALLOWED
                )


def _finer(peers: Any, architecture: str, image: Tensor, target: int, layer: str) -> Tensor:
    """Return Grad-CAM of pytorch-grad-cam's own Finer-CAM target against the nearest class."""
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

    subject = SUBJECTS[architecture]
    model = subject.model()
    raw = take(model, image, [layer], [target])[layer][0].clone().requires_grad_()
    logits = replaced(model, image, layer, raw)
    distance = (logits.detach() - logits.detach()[target]).abs()
    distance[target] = torch.inf
    score = FinerWeightedTarget(target, [int(distance.argmin())], 1.0)(logits)
    (steep,) = torch.autograd.grad(score, raw)
    grids = [array(subject.grid(one, layer)) for one in (raw, steep)]
    cam = peers.GradCAM(nn.Conv2d(1, 1, 1), [])
    return torch.from_numpy(cam.get_cam_image(None, None, None, *grids, False)[0])
