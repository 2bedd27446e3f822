"""From a photograph to the model's input: what the weights say, and what the settings override."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from exporter.config import PreprocessingConfig
from exporter.errors import ConfigError, ModelError
from exporter.records import Preprocessing

_DETECTION_SIDE = 512


def from_torchvision(transforms: Any, *, weights: str, model: str) -> Preprocessing:
    """Read the resize, crop and normalisation of torchvision weights: what ``transforms()`` gives.

    A segmentation model, which takes any size, gets the square of its usual shorter side; a
    detector, which normalises and resizes by itself, gets 512 × 512 and no normalisation.
    """
    kind = type(transforms).__name__
    source = f"transforms of the weights {weights}"
    if kind == "ObjectDetection":
        return Preprocessing(
            size=(_DETECTION_SIDE, _DETECTION_SIDE),
            resize=_DETECTION_SIDE,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            source=f"{source}, at a fixed size (a detector normalises and resizes by itself)",
        )
    if kind not in ("ImageClassification", "SemanticSegmentation"):
        raise ModelError(
            f"the model {model!r} takes {kind} input, not one photograph at a time; "
            "choose a classification, segmentation or detection model"
        )
    crop = getattr(transforms, "crop_size", None)
    if crop is None:
        source = f"{source}, at a fixed size (the model takes any size)"
        crop = transforms.resize_size
    sides = transforms.resize_size
    interpolation, remark = _interpolation(transforms.interpolation.value)
    return Preprocessing(
        size=_pair(crop),
        resize=_pair(sides) if not isinstance(sides, int) and len(sides) > 1 else _pair(sides)[0],
        interpolation=interpolation,
        antialias=bool(getattr(transforms, "antialias", True)),
        mean=tuple(map(float, transforms.mean)),
        std=tuple(map(float, transforms.std)),
        channels=len(transforms.mean),
        source=source + remark,
    )


def from_timm(module: nn.Module) -> Preprocessing:
    """Read the preprocessing of a timm model from its data config.

    timm scales by ``crop_pct`` and cuts the middle out. Its mode ``border`` (longer side fits, the
    rest padded) is not offered here: the centre is cut instead, and ``source`` says so.
    """
    timm_data: Any = importlib.import_module("timm.data")
    config: Mapping[str, Any] = timm_data.resolve_data_config({}, model=module)
    channels, height, width = config["input_size"]
    own = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if isinstance(own, tuple) and len(own) == 2:  # built with another img_size
        height, width = own
    mode = config.get("crop_mode") or "center"
    scaled = tuple(math.floor(side / config["crop_pct"]) for side in (height, width))
    interpolation, remark = _interpolation(config["interpolation"])
    if mode == "border":
        remark += ", centre crop in place of a padded border"
    mean, std = (tuple(map(float, config[name])) for name in ("mean", "std"))
    taken = _channels(module)
    if taken is not None and taken != channels:  # built with other in_chans
        channels, mean, std = (
            taken,
            (sum(mean) / len(mean),) * taken,
            (sum(std) / len(std),) * taken,
        )
        remark += f", the mean of its channels for each of {taken}"
    return Preprocessing(
        size=(height, width),
        # A square is scaled by its shorter side, anything else so that it is covered.
        resize=_pair(scaled) if mode == "squash" else max(scaled),
        interpolation=interpolation,
        mean=mean,
        std=std,
        channels=channels,
        source=f"timm's data config{remark}",
    )


def default_for(module: nn.Module) -> Preprocessing:
    """Return the preprocessing for a model that says nothing of its own.

    A timm model says it in ``pretrained_cfg``, one of open_clip in ``preprocess_cfg``; a
    transformers model, or one inside, says its size in ``config.image_size``. Otherwise three input
    channels get ImageNet's usual 224 × 224, mean and standard deviation; any other number is only
    scaled to [0, 1].
    """
    if isinstance(getattr(module, "pretrained_cfg", None), Mapping):
        return from_timm(module)
    known = getattr(getattr(module, "visual", None), "preprocess_cfg", None)
    if isinstance(known, Mapping):
        return _from_open_clip(known)
    channels, size = _channels(module) or 3, _configured_size(module)
    high, wide = size or (224, 224)
    own = f"{high} × {wide} as the model's config says; else default" if size else "default"
    silent = f"the {'config' if size else 'model'} says nothing{' more' if size else ''}"
    usual = Preprocessing(
        size=(high, wide),
        resize=round(max(high, wide) * 256 / 224),
        source=f"{own}: ImageNet's ({silent})",
    )
    if channels == 3:
        return usual
    return replace(
        usual,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        channels=channels,
        source=f"{own} for {channels} channels: scaled to [0, 1] ({silent})",
    )


def _from_open_clip(config: Mapping[str, Any]) -> Preprocessing:
    """Read the preprocessing of an open_clip model; another mode than these is said to differ."""
    size, mode = _pair(config["size"]), config["resize_mode"]
    interpolation, remark = _interpolation(config["interpolation"])
    if mode not in ("shortest", "squash"):
        remark += f", centre crop in place of {mode}"
    mean, std = (tuple(map(float, config[name])) for name in ("mean", "std"))
    return Preprocessing(
        size=size,
        resize=size if mode == "squash" else max(size),
        interpolation=interpolation,
        mean=mean,
        std=std,
        channels=len(mean),
        source=f"open_clip's preprocess_cfg{remark}",
    )


def _configured_size(module: nn.Module) -> tuple[int, int] | None:
    """Return the size of images that transformers' config of a model, or of a part, says."""
    configs = (getattr(part, "config", None) for part in module.modules())
    sizes = (getattr(own, "image_size", None) for own in configs if hasattr(own, "model_type"))
    size = next(filter(None, sizes), None)
    return None if size is None else _pair(size)


def _channels(module: nn.Module) -> int | None:
    """Return how many channels the first convolution takes, None where there is none."""
    convolutions = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    return next((part.in_channels for part in convolutions), None)


def override(base: Preprocessing, config: PreprocessingConfig) -> Preprocessing:
    """Lay the settings over the preprocessing that came with the weights.

    A size alone scales the resizing along, so that the same part of the photograph is seen. With
    ``crop = "none"`` and no ``resize`` the photograph is resized to ``size`` exactly.
    """
    given = {name: value for name, value in config if value is not None}
    if not given:
        return base
    size = _pair(config.size or base.size)
    ratios = [new / old for new, old in zip(size, base.size, strict=True)]
    resize = base.resize
    if config.resize is not None:
        resize = config.resize or None
    elif config.crop == "none":
        resize = size
    elif isinstance(resize, int):
        resize = max(round(resize * max(ratios)), 1)
    elif resize is not None:
        resize = _pair([max(round(side * r), 1) for side, r in zip(resize, ratios, strict=True)])
    changed = replace(base, **given | {"size": size, "resize": resize})
    if len(changed.mean) != len(changed.std) or not changed.mean:
        raise ConfigError(
            f"the preprocessing has {len(changed.mean)} means and {len(changed.std)} standard "
            "deviations; give mean and std, one value per channel each"
        )
    source = f"{base.source}; {', '.join(given)} from the settings"
    changed = replace(changed, channels=len(changed.mean), source=source)
    channels, bands = changed.channels, changed.bands
    if len(bands) not in {0, 1, 3, channels} or (bands and max(changed.shown) >= channels):
        raise ConfigError(
            f"the preprocessing has the bands {list(bands)} and the model {channels} channels; "
            f"give {channels} bands for it, or 1 or 3"
            + (f" from 1 to {channels} that are shown" if channels not in (1, 3) else "")
        )
    return changed


def _pair(size: Any) -> tuple[int, int]:
    sides = (size,) if isinstance(size, int) else tuple(map(int, size))
    return sides[0], sides[-1]


def _interpolation(name: str) -> tuple[str, str]:
    """Return the nearest interpolation that there is, and a remark where it is another one."""
    known = name in ("nearest", "bilinear", "bicubic")
    return (name, "") if known else ("bicubic", f", bicubic in place of {name}")
