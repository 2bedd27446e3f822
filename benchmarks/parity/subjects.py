"""The models that are compared, with what a reference has to be told of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fixtures import photographs_at, prepared

CLASSES = 10
"""Outputs of the models with random weights."""


@dataclass(frozen=True)
class Subject:
    """One architecture.

    Attributes:
        build: makes the model, random weights drawn from torch's random state.
        layers: three layers with a plane of places, in the order in which they run.
        side: of its square input.
        layout: of the layers' outputs: ``nchw``, ``nhwc``, or ``tokens``.
        nchw: those of the layers whose layout is ``nchw`` all the same.
        prefix: tokens before those of the patches.
        cam: name of the linear layer that global average pooling feeds from the last layer.
        head: the linear layers that give the logits.
        narrow: three layers of at most 64 channels, where perturbation methods are compared.
        attention: ``torchvision`` or ``timm``: how its blocks are written (see `attention`).
        pretrained: whether ``build`` gives weights that mean something.
    """

    build: Callable[[], nn.Module]
    layers: tuple[str, ...]
    side: int = 64
    layout: str = "nchw"
    nchw: tuple[str, ...] = ()
    prefix: int = 0
    cam: str = ""
    head: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    attention: str = ""
    pretrained: bool = False
    _kept: dict[str, nn.Module] = field(default_factory=dict)

    def model(self) -> nn.Module:
        """Return the model in float64, in eval mode and frozen; the same one every time."""
        if "model" not in self._kept:
            torch.manual_seed(0)
            module = self.build()
            if not self.pretrained:
                vary(module)
                prepared(module, size=(self.side, self.side))
            self._kept["model"] = module.double().eval().requires_grad_(False)
        return self._kept["model"]

    def forget(self) -> None:
        """Drop the model: one at a time is in memory."""
        self._kept.clear()

    def images(self, number: int) -> Tensor:
        """Return up to 16 different images (number, 3, side, side), float64.

        Four photographs, then the same turned by 90, 180 and 270 degrees.
        """
        shown = photographs_at(self.side, self.side).double()
        turned = torch.cat([shown.rot90(quarter, (2, 3)) for quarter in range(4)])
        return turned[:number].contiguous()

    def grid(self, tensor: Tensor, layer: str) -> Tensor:
        """Return a layer's output or gradient as (N, C, h, w)."""
        if self.layout == "nchw" or layer in self.nchw:
            return tensor
        if self.layout == "nhwc":
            return tensor.permute(0, 3, 1, 2)
        patches = tensor[:, self.prefix :]
        side = round(patches.shape[1] ** 0.5)
        return patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)

    def laid(self, grid: Tensor, raw: Tensor, layer: str) -> Tensor:
        """Return (N, C, h, w) as the layer gives it; other tokens are those of its output."""
        if self.layout == "nchw" or layer in self.nchw:
            return grid
        last = grid.permute(0, 2, 3, 1)
        if self.layout == "nhwc":
            return last
        return torch.cat((raw[:, : self.prefix], last.flatten(1, 2)), 1)


def vary(module: nn.Module) -> None:
    """Add noise of deviation 0.1 to every parameter that starts out the same everywhere.

    Biases of 0, gains of 1 and layer scales of 1e-6 are what training changes first; a method that
    mistakes them would go unnoticed.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn_like(parameter) * 0.1)


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    module: nn.Module = models.get_model(name, weights=None, num_classes=CLASSES, **options)
    return module


def _vgg() -> nn.Module:
    """Build VGG-11 with narrow linear layers, whose 1 GB in float64 would tell nothing more."""
    module = _torchvision("vgg11_bn")
    module.classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, CLASSES)
    )
    return module


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    module: nn.Module = VisionTransformer(64, 8, 5, 4, 64, 128, num_classes=CLASSES)
    return module


def _maxvit() -> nn.Module:
    from torchvision.models.maxvit import MaxVit

    module: nn.Module = MaxVit(
        (96, 96), 16, 3, [16, 32, 48, 64], [1, 1, 1, 1], 16, 0.0, num_classes=CLASSES
    )
    return module


def _timm_vit(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    import timm

    module: nn.Module = timm.create_model(
        name,
        img_size=64,
        patch_size=8,
        embed_dim=48,
        depth=5,
        num_heads=4,
        num_classes=CLASSES,
        **options,
    )
    return module


def _lite0() -> nn.Module:
    from exporter.models.demo import efficientnet_lite0

    return efficientnet_lite0()


# Not the last layer but one of a ViT, nor the last of a ConvNeXt stage: only a layer normalisation
# reads a place there, whose scale does not matter, so that HiResCAM is zero but for its epsilon.
_BLOCKS = ("blocks.0", "blocks.1", "blocks.2")
_ENCODER = tuple(f"encoder.layers.encoder_layer_{n}" for n in range(3))

SUBJECTS: Mapping[str, Subject] = MappingProxyType(
    {
        "mobilenet_v3_small": Subject(
            partial(_torchvision, "mobilenet_v3_small"),
            ("features.3", "features.8", "features"),
            head=("classifier.3",),
            narrow=("features.1", "features.3", "features.4"),
        ),
        "vit": Subject(
            _vit,
            _ENCODER,
            layout="tokens",
            prefix=1,
            head=("heads.head",),
            attention="torchvision",
        ),
        "resnet18": Subject(
            partial(_torchvision, "resnet18"),
            ("layer2", "layer3", "layer4"),
            cam="fc",
            head=("fc",),
        ),
        "efficientnet_lite0 (ImageNet)": Subject(
            _lite0, ("blocks.2", "blocks.4", "bn2"), cam="classifier", pretrained=True
        ),
        "vgg11_bn": Subject(_vgg, ("features.13", "features.20", "features.27")),
        "densenet121": Subject(
            partial(_torchvision, "densenet121"),
            ("features.denseblock2", "features.denseblock3", "features"),
        ),
        "mobilenet_v2": Subject(
            partial(_torchvision, "mobilenet_v2"),
            ("features.6", "features.13", "features"),
            cam="classifier.1",
        ),
        "efficientnet_b0": Subject(
            partial(_torchvision, "efficientnet_b0"),
            ("features.3", "features.5", "features"),
            cam="classifier.1",
        ),
        "convnext_tiny": Subject(
            partial(_torchvision, "convnext_tiny"), ("features.3.0", "features.5.4", "features")
        ),
        "regnet_y_400mf": Subject(
            partial(_torchvision, "regnet_y_400mf"),
            ("trunk_output.block2", "trunk_output.block3", "trunk_output"),
            cam="fc",
        ),
        "shufflenet_v2_x0_5": Subject(
            partial(_torchvision, "shufflenet_v2_x0_5"),
            ("stage2", "stage3", "conv5"),
            cam="fc",
            head=("fc",),
            narrow=("conv1", "maxpool", "stage2"),
        ),
        "googlenet": Subject(
            partial(_torchvision, "googlenet", init_weights=True, aux_logits=False),
            ("inception3b", "inception4e", "inception5b"),
            cam="fc",
        ),
        "mnasnet0_5": Subject(
            partial(_torchvision, "mnasnet0_5"),
            ("layers.9", "layers.11", "layers"),
            cam="classifier.1",
        ),
        "squeezenet1_1": Subject(
            partial(_torchvision, "squeezenet1_1"), ("features.4", "features.7", "features")
        ),
        "swin_t": Subject(
            partial(_torchvision, "swin_t"),
            ("features.3", "features.5", "permute"),
            layout="nhwc",
            nchw=("permute",),
            cam="head",
        ),
        "maxvit": Subject(_maxvit, ("blocks.1", "blocks.2", "blocks.3"), side=96),
        "deit_distilled": Subject(
            partial(_timm_vit, "deit_tiny_distilled_patch16_224"),
            _BLOCKS,
            layout="tokens",
            prefix=2,
            head=("head", "head_dist"),
            attention="timm",
        ),
        "vit_registers": Subject(
            partial(_timm_vit, reg_tokens=2),
            _BLOCKS,
            layout="tokens",
            prefix=3,
            attention="timm",
        ),
        "vit_pooled": Subject(
            partial(_timm_vit, class_token=False, global_pool="avg"),
            _BLOCKS,
            layout="tokens",
            attention="timm",
        ),
    }
)
"""The architectures by name."""

QUICK = ("shufflenet_v2_x0_5", "vit")
"""Those of ``--quick``."""
