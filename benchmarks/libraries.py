"""The same class-activation maps by every library that computes them, each at its best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from torch import Tensor, nn

import exporter
from benchmarks.export import METHODS

_IN_PYTORCH_GRAD_CAM = ("GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM")
_IN_TORCH_CAM = ("GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM", "")


def calls(
    model: nn.Module, images: Tensor, layers: Sequence[str], methods: Sequence[str] = METHODS
) -> dict[str, Callable[[], object]]:
    """Return what computes the maps of a batch, by library; those not installed are left out.

    A library computes those maps of ``methods`` at ``layers`` that it has, and where these are not
    all, its name says how many it has. What it hangs into the model is there during a call only.

    Args:
        model: a classifier of images (N, 3, H, W).
        images: a batch, on the model's device.
        layers: of a transformer they are read as planes.
        methods: names of ours.
    """
    classes = [3] * len(images)
    reshape = as_planes if any("encoder_layer" in layer for layer in layers) else None
    by: dict[str, Callable[[], object]] = {
        "ours": lambda: exporter.compute_maps(
            model, images, maps=methods, layers=layers, targets=classes
        )
    }

    def of(library: str, has: int) -> str:
        every = len(methods) * len(layers)
        return library if has == every else f"{library} ({has} of {every} maps)"

    with suppress(ImportError):
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(index) for index in classes]
        names = dict(zip(METHODS, _IN_PYTORCH_GRAD_CAM, strict=True))
        kinds = [getattr(pytorch_grad_cam, names[method]) for method in methods]

        def by_pytorch_grad_cam() -> None:
            for kind in kinds:
                for layer in layers:
                    module = model.get_submodule(layer)
                    with kind(model, [module], reshape_transform=reshape) as extractor:
                        extractor(input_tensor=images, targets=targets)

        by["pytorch-grad-cam"] = by_pytorch_grad_cam
    with suppress(ImportError):
        from torchcam import methods as torchcam

        names = dict(zip(METHODS, _IN_TORCH_CAM, strict=True))
        own = [getattr(torchcam, names[method]) for method in methods if names[method]]

        def by_torch_cam() -> None:
            for kind in own:
                with kind(model, list(layers), reshape_transform=reshape) as extractor:
                    extractor(classes, model(images))

        by[of("torch-cam", len(own) * len(layers))] = by_torch_cam
    with suppress(ImportError):
        from captum.attr import LayerGradCam

        def by_captum() -> None:
            for layer in layers:
                LayerGradCam(model, model.get_submodule(layer)).attribute(images, target=classes)

        if "gradcam" in methods:
            by[of("captum", len(layers))] = by_captum
    return by


def as_planes(tokens: Tensor) -> Tensor:
    """Return a transformer's tokens (N, 1 + L, C), the class token first, as (N, C, H, W)."""
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)
