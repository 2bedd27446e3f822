"""Models that people bring from elsewhere, for `benchmarks.coverage`: small, from configs.

Everything is left to the exporter. A model counts as right where its maps follow the moving patch
of `benchmarks.following`, and as refused where the exporter says in a sentence why it does not
explain it; a map that does not follow, and anything else that is raised, is a failure.

What is explained of the patch: of rows their largest rise; of a plane of scores the mean over the
plane; of a detector's queries the mean over the queries.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage_outputs import picture
from benchmarks.fixtures import calibrate, fill_zeros, photographs_at
from benchmarks.following import check
from exporter.explain import compute_maps
from exporter.models import adapt
from exporter.models.adapting import ImageTower
from exporter.targets import all_shares, is_detections, locate_output

SIDE = 224
_SMALL = 128
"""For models of segmentation, whose layers are as large as their pictures."""
_WIDTH = 32
_BLOCK = {"hidden_size": _WIDTH, "num_attention_heads": 2, "intermediate_size": 2 * _WIDTH}
_VIT = {**_BLOCK, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": 16}
_STAGES = {"depths": [1, 1, 2, 1]}
_WIDTHS = {**_STAGES, "hidden_sizes": [8, 16, 24, 32]}
_SWIN = {"embed_dim": 12, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "image_size": SIDE}
_DETR = {
    **dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), _WIDTH),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "num_queries": 12,
}
_TEXT = {**_BLOCK, "num_hidden_layers": 1, "vocab_size": 40, "max_position_embeddings": 16}
_TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _backbone(kind: str, *stages: int) -> Any:
    names = [f"stage{stage}" for stage in stages]
    own = {**_WIDTHS, "embedding_size": 8, "out_features": names}
    return _transformers(f"{kind}Config")(**own)


def _transformers(name: str) -> Any:
    return getattr(importlib.import_module("transformers"), name)


TRANSFORMERS: dict[str, Callable[[], dict[str, Any]]] = {
    "ViTForImageClassification": lambda: _VIT,
    "ViTModel": lambda: _VIT,
    "DeiTForImageClassification": lambda: _VIT,
    "DeiTForImageClassificationWithTeacher": lambda: _VIT,
    "BeitForImageClassification": lambda: {**_VIT, "use_relative_position_bias": True},
    "Data2VecVisionForImageClassification": lambda: _VIT,
    "ViTMSNForImageClassification": lambda: _VIT,
    "ViTMAEModel": lambda: _VIT,
    "IJepaForImageClassification": lambda: _VIT,
    "Dinov2ForImageClassification": lambda: _VIT,
    "Dinov2WithRegistersForImageClassification": lambda: _VIT,
    "Dinov2Model": lambda: _VIT,
    "DINOv3ViTModel": lambda: _VIT,
    "CLIPVisionModel": lambda: _VIT,
    "CLIPModel": lambda: {"vision_config": _VIT, "text_config": _TEXT},
    "CLIPForImageClassification": lambda: {"vision_config": _VIT, "text_config": _TEXT},
    "SiglipVisionModel": lambda: _VIT,
    "SiglipModel": lambda: {"vision_config": _VIT, "text_config": _TEXT},
    "SiglipForImageClassification": lambda: {"vision_config": _VIT, "text_config": _TEXT},
    "SwinForImageClassification": lambda: _SWIN,
    "Swinv2ForImageClassification": lambda: {**_SWIN, "window_size": 7},
    "ConvNextForImageClassification": lambda: _WIDTHS,
    "ConvNextV2ForImageClassification": lambda: _WIDTHS,
    "ResNetForImageClassification": lambda: {**_WIDTHS, "embedding_size": 8},
    "RegNetForImageClassification": lambda: {**_WIDTHS, "embedding_size": 8, "groups_width": 8},
    "BitForImageClassification": lambda: {
        "depths": [1, 1, 2, 1], "hidden_sizes": [32, 64, 96, 128], "embedding_size": 32,
        "num_groups": 8,
    },
    "MobileNetV2ForImageClassification": lambda: {"depth_multiplier": 0.35},
    "EfficientNetForImageClassification": lambda: {
        "width_coefficient": 0.35, "depth_coefficient": 0.5, "hidden_dim": 448,
    },
    "FocalNetForImageClassification": lambda: {"embed_dim": 12, "depths": [1, 1, 2, 1]},
    "PvtForImageClassification": lambda: {
        "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]
    },
    "PvtV2ForImageClassification": lambda: {
        "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]
    },
    "CvtForImageClassification": lambda: {
        "embed_dim": [64, 96, 128], "num_heads": [1, 2, 2], "depth": [1, 2, 10]
    },
    "PoolFormerForImageClassification": lambda: {**_STAGES, "hidden_sizes": [8, 16, 24, 32]},
    "LevitForImageClassification": lambda: {
        "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [2, 2, 2],
        "key_dim": [16, 16, 16],
    },
    "MobileViTForImageClassification": lambda: {
        "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 12, 16, 24, 32, 40, 64],
        "image_size": 256, "num_attention_heads": 4,
    },
    "MobileViTV2ForImageClassification": lambda: {"width_multiplier": 0.5, "image_size": 256},
    "SwiftFormerForImageClassification": lambda: {
        "depths": [1, 1, 2, 1], "embed_dims": [16, 24, 32, 48]
    },
    "HieraForImageClassification": lambda: {
        "embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "image_size": [SIDE] * 2
    },
    "SegformerForImageClassification": lambda: {
        "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 1, 2, 2]
    },
    "SegformerForSemanticSegmentation": lambda: {
        "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32],
        "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16,
    },
    "BeitForSemanticSegmentation": lambda: {
        **_VIT, "out_indices": [1, 2, 3, 4], "use_relative_position_bias": True,
        "pool_scales": [1, 2],
    },
    "UperNetForSemanticSegmentation": lambda: {
        "backbone_config": _backbone("ConvNext", 1, 2, 3, 4), "hidden_size": 32,
        "pool_scales": [1, 2], "auxiliary_in_channels": 24, "use_auxiliary_head": True,
    },
    "DPTForSemanticSegmentation": lambda: {
        **_VIT, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 12, 16, 16],
        "fusion_hidden_size": 16, "is_hybrid": False, "auxiliary_loss_weight": 0.0,
    },
    "DPTForDepthEstimation": lambda: {
        **_VIT, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 12, 16, 16],
        "fusion_hidden_size": 16, "is_hybrid": False,
    },
    "Mask2FormerForUniversalSegmentation": lambda: {
        "backbone_config": _transformers("SwinConfig")(
            **_SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]
        ),
        "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_queries": 8,
        "encoder_feedforward_dim": 32, "dim_feedforward": 32, "encoder_layers": 1,
        "decoder_layers": 2, "num_attention_heads": 2,
    },
    "DetrForObjectDetection": lambda: {**_DETR, "backbone_config": _backbone("ResNet", 4)},
    "ConditionalDetrForObjectDetection": lambda: {
        **_DETR, "backbone_config": _backbone("ResNet", 4)
    },
    "RTDetrForObjectDetection": lambda: {
        "backbone_config": _backbone("RTDetrResNet", 2, 3, 4), "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 24, 32], "feat_channels": [32] * 3, "encoder_layers": 1,
        "encoder_ffn_dim": 32, "d_model": 32, "num_queries": 12, "decoder_in_channels": [32] * 3,
        "decoder_ffn_dim": 32, "decoder_layers": 2, "decoder_attention_heads": 2,
        "encoder_attention_heads": 2, "num_denoising": 0,
    },
    "YolosForObjectDetection": lambda: {
        **_VIT, "image_size": [SIDE] * 2, "num_detection_tokens": 12
    },
}  # fmt: skip
"""Classes of transformers, each with what makes its config small."""


def build_transformers(name: str) -> tuple[nn.Module, int]:
    """Build a model of transformers from a small config, and say the side of its pictures."""
    kind = _transformers(name)
    options = {"num_labels": 7, **TRANSFORMERS[name]()}
    config = kind.config_class(**options)
    side = options.get("image_size", SIDE)
    return kind(config), side if isinstance(side, int) else side[0]


ARCHITECTURES = (
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "PAN",
    "DeepLabV3Plus",
)
ENCODERS = ("resnet18", "mobilenet_v2")
_FULL_SIZE = ARCHITECTURES[:4]


def smp_names() -> tuple[str, ...]:
    """Return the names of segmentation_models_pytorch's models: architecture, encoder and end."""
    pairs = [f"{kind}/{encoder}" for kind in ARCHITECTURES for encoder in ENCODERS]
    ends = ("sigmoid", "softmax2d", "aux")
    return (*pairs, *(f"Unet/resnet18/{end}" for end in ends))


def build_smp(name: str) -> tuple[nn.Module, int]:
    """Build a model of segmentation_models_pytorch with random weights."""
    smp = importlib.import_module("segmentation_models_pytorch")
    kind, encoder, *end = name.split("/")
    options: dict[str, Any] = {"aux_params": {"classes": 4}} if end == ["aux"] else {}
    options |= {"activation": end[0]} if end and end != ["aux"] else {}
    module: nn.Module = getattr(smp, kind)(encoder, encoder_weights=None, classes=5, **options)
    return module, _SMALL if kind in _FULL_SIZE else SIDE


MONAI: dict[str, dict[str, Any]] = {
    "DenseNet121": {"spatial_dims": 2, "in_channels": 3, "out_channels": 5},
    "SEResNet50": {"spatial_dims": 2, "in_channels": 3, "num_classes": 5},
    "EfficientNetBN": {"model_name": "efficientnet-b0", "pretrained": False, "num_classes": 5},
    "ViT": {
        "in_channels": 3, "img_size": SIDE, "patch_size": 16, "hidden_size": 32, "mlp_dim": 64,
        "num_layers": 4, "num_heads": 2, "classification": True, "num_classes": 5,
        "spatial_dims": 2,
    },
    "UNet": {
        "spatial_dims": 2, "in_channels": 3, "out_channels": 4, "channels": (8, 16, 24, 32, 40),
        "strides": (2, 2, 2, 2),
    },
    "BasicUNet": {"spatial_dims": 2, "in_channels": 3, "out_channels": 4},
    "AttentionUnet": {
        "spatial_dims": 2, "in_channels": 3, "out_channels": 4, "channels": (8, 16, 24),
        "strides": (2, 2),
    },
    "SegResNet": {"spatial_dims": 2, "in_channels": 3, "out_channels": 4},
    "UNETR": {
        "in_channels": 3, "out_channels": 4, "img_size": 128, "spatial_dims": 2,
        "feature_size": 8, "hidden_size": 48, "mlp_dim": 64, "num_heads": 4,
    },
    "SwinUNETR": {"in_channels": 3, "out_channels": 4, "feature_size": 12, "spatial_dims": 2},
}  # fmt: skip
"""MONAI's 2-D networks with their arguments."""


def build_monai(name: str) -> tuple[nn.Module, int]:
    """Build a 2-D network of MONAI with random weights."""
    networks = importlib.import_module("monai.networks.nets")
    module: nn.Module = getattr(networks, name)(**MONAI[name])
    return module, MONAI[name].get("img_size", _SMALL)


def _lightning() -> nn.Module:
    lightning = importlib.import_module("pytorch_lightning")
    torchvision = importlib.import_module("torchvision")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = torchvision.models.resnet18(num_classes=5)
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, images: Tensor) -> Any:
            return self.model(images)

    return Module()


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: importlib.import_module("timm").create_model(name, **options)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: importlib.import_module("torchvision").models.get_model(name, weights=None)


OTHERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "lightning": (_lightning, SIDE),
    **{
        f"{name} features_only": (_timm(name, features_only=True), SIDE)
        for name in ("resnet18", "convnext_atto", "vit_tiny_patch16_224")
    },
    **{
        f"{name} num_classes=0": (_timm(name, num_classes=0), SIDE)
        for name in ("resnet18", "convnext_atto", "vit_tiny_patch16_224")
    },
    **{
        f"{name} img_size=96": (_timm(name, img_size=96), 96)
        for name in ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
    },
    **{
        f"{name} in_chans={bands}": (_timm(name, in_chans=bands), SIDE)
        for name in ("resnet18", "vit_tiny_patch16_224")
        for bands in (1, 4, 13)
    },
    **{
        f"torchvision {name}": (_torchvision(name), SIDE)
        for name in ("r3d_18", "mvit_v2_s", "swin3d_t", "s3d")
    },
}
"""Variants of models that are covered elsewhere, and videos, with the sides of their pictures."""


class Bands(nn.Module):
    """A model of another number of bands, shown pictures of three: they are repeated."""

    def __init__(self, module: nn.Module, bands: int) -> None:
        """Take the model and how many bands it has."""
        super().__init__()
        self.module, self.bands = module, bands

    def forward(self, images: Tensor) -> Any:
        """Run the model on the bands, repeated until there are enough."""
        return self.module(images[:, torch.arange(self.bands) % 3])


def build_other(name: str) -> tuple[nn.Module, int]:
    """Build a variant, and say the side of its pictures."""
    build, side = OTHERS[name]
    _, asked, bands = name.partition("in_chans=")
    return (Bands(build(), int(bands)) if asked else build()), side


def examined(module: nn.Module, side: int) -> dict[str, Any]:
    """Explain one picture as a user would, and then the moving patch.

    Raises:
        ExporterError: what the exporter says where it does not explain the model.
    """
    module = adapt(module).eval().requires_grad_(False)
    fill_zeros(module, torch.Generator().manual_seed(0))
    # An embedding has no classes: one coordinate stands for what a text is compared with.
    targets = "class:0" if isinstance(module, ImageTower) else None
    maps = compute_maps(module, picture(side), maps=("gradcam",), targets=targets)
    with torch.no_grad():
        calibrate(module, photographs_at(side, side))
    found = check(module, size=(side, side), scores=_scores)
    return {**found.entry(), "explained": list(maps)}


def _scores(output: Any) -> Tensor:
    """Return (N, K) of an output that the exporter reads."""
    if is_detections(output):
        shares = all_shares(output)
        assert shares is not None
        return shares.view(len(output), *output[0]["shares"].shape).mean(1)
    values = locate_output(output, None)[0]
    return (
        values.unsqueeze(1)
        if values.ndim == 1
        else values.flatten(2).mean(2)
        if values.ndim > 2
        else values
    )
