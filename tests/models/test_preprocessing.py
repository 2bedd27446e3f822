from __future__ import annotations

from typing import Any

import pytest
import timm
import torchvision
import transformers
from torch import nn

from exporter.config import PreprocessingConfig
from exporter.errors import ConfigError, ModelError
from exporter.models.preprocessing import default_for, from_timm, from_torchvision, override
from exporter.models.resolve import adopt
from exporter.records import Preprocessing

BASE = Preprocessing(size=(224, 224), resize=256)


def of_weights(name: str) -> Preprocessing:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    return from_torchvision(weights.transforms(), weights=str(weights), model=name)


def test_classification_weights_say_it_all() -> None:
    found = of_weights("efficientnet_b3")
    assert (found.size, found.resize, found.crop) == ((300, 300), 320, "center")
    assert (found.interpolation, found.antialias) == ("bicubic", True)
    assert found.mean == (0.485, 0.456, 0.406)
    assert "EfficientNet_B3_Weights.IMAGENET1K_V1" in found.source


def test_models_of_any_size_get_a_fixed_one() -> None:
    assert of_weights("fcn_resnet50").size == (520, 520)
    detector = of_weights("fasterrcnn_resnet50_fpn")
    assert (detector.size, detector.mean, detector.std) == ((512, 512), (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ModelError, match="'r3d_18' takes VideoClassification input"):
        of_weights("r3d_18")


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
def test_timm_models_are_prepared_as_timm_does(name: str) -> None:
    module = timm.create_model(name)
    found = from_timm(module)
    config = timm.data.resolve_data_config({}, model=module)
    resize, crop, _, normalise = timm.data.create_transform(**config).transforms
    assert found.resize == resize.size
    assert found.size == crop.size
    assert found.interpolation == resize.interpolation.value
    assert found.mean == pytest.approx(normalise.mean.tolist())
    assert found.std == pytest.approx(normalise.std.tolist())


def test_timm_modes_are_read_or_said_to_differ() -> None:
    module = timm.create_model("resnet10t", in_chans=1)
    module.pretrained_cfg = {
        "input_size": (1, 30, 60), "crop_pct": 0.5, "crop_mode": "squash",
        "interpolation": "lanczos", "mean": (0.5,), "std": (0.25,),
    }  # fmt: skip
    found = from_timm(module)
    assert (found.size, found.resize, found.channels) == ((30, 60), (60, 120), 1)
    assert (found.interpolation, found.mean, found.std) == ("bicubic", (0.5,), (0.25,))
    assert "bicubic in place of lanczos" in found.source
    module.pretrained_cfg["crop_mode"] = "border"
    assert "centre crop in place of a padded border" in from_timm(module).source


def test_the_default_says_so_and_counts_channels() -> None:
    assert default_for(nn.Conv2d(3, 8, 3)).source.startswith("default")
    assert default_for(nn.Linear(3, 8)).channels == 3
    grey = default_for(nn.Sequential(nn.Conv2d(1, 8, 3)))
    assert (grey.channels, grey.mean, grey.std) == (1, (0.0,), (1.0,))


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"size": 448}, {"size": (448, 448), "resize": 512}),
        ({"size": (112, 448)}, {"size": (112, 448), "resize": 512}),
        ({"size": 112, "resize": 112}, {"size": (112, 112), "resize": 112}),
        ({"resize": 0}, {"resize": None}),
        ({"resize": (300, 200)}, {"resize": (300, 200)}),
        ({"crop": "none"}, {"crop": "none", "resize": (224, 224)}),
        ({"interpolation": "nearest"}, {"interpolation": "nearest"}),
        ({"mean": (0.5,), "std": (0.2,)}, {"mean": (0.5,), "std": (0.2,), "channels": 1}),
        ({"mean": (0.0, 0.0, 0.0)}, {"mean": (0.0, 0.0, 0.0)}),
        ({"bits": 12}, {"bits": 12}),
        ({"bands": (3, 2, 1)}, {"bands": (3, 2, 1)}),
        ({"range": (0, 4000)}, {"range": (0, 4000)}),
    ],
)
def test_settings_override_what_they_name_and_nothing_else(settings: Any, changed: Any) -> None:
    found = override(BASE, PreprocessingConfig(**settings))
    for name in Preprocessing.__dataclass_fields__:
        if name != "source":
            assert getattr(found, name) == changed.get(name, getattr(BASE, name)), name
    assert found.source == f"default; {', '.join(settings)} from the settings"


def test_an_exact_resize_scales_with_each_side() -> None:
    base = Preprocessing(size=(100, 200), resize=(120, 240))
    assert override(base, PreprocessingConfig(size=(50, 400))).resize == (60, 480)


def test_no_setting_changes_nothing_and_half_a_normalisation_is_refused() -> None:
    assert override(BASE, PreprocessingConfig()) is BASE
    with pytest.raises(ConfigError, match="1 means and 3 standard deviations"):
        override(BASE, PreprocessingConfig(mean=(0.5,)))


@pytest.mark.parametrize(
    ("channels", "bands", "said"),
    [
        (3, (1, 2), r"bands \[1, 2\] and the model 3 channels; give 3 bands for it, or 1 or 3$"),
        (13, (1, 2), r"give 13 bands for it, or 1 or 3 from 1 to 13 that are shown"),
        (13, (14, 2, 1), r"or 1 or 3 from 1 to 13 that are shown"),
        (1, (3, 2, 1), None),
        (3, (8,), None),
        (13, (13,), None),
        (2, (9, 7), None),
    ],
)
def test_bands_fit_the_models_channels(
    channels: int, bands: tuple[int, ...], said: str | None
) -> None:
    base = default_for(nn.Conv2d(channels, 8, 3))
    if said is None:
        assert override(base, PreprocessingConfig(bands=bands)).bands == bands
        return
    with pytest.raises(ConfigError, match=said):
        override(base, PreprocessingConfig(bands=bands))


@pytest.mark.parametrize(
    ("name", "built", "channels", "size"),
    [
        ("resnet18", {}, 3, (224, 224)),
        ("resnet18", {"in_chans": 1}, 1, (224, 224)),
        ("vit_tiny_patch16_224", {"img_size": 64}, 3, (64, 64)),
        ("vit_tiny_patch16_224", {"img_size": (64, 96), "in_chans": 13}, 13, (64, 96)),
    ],
)
def test_channels_and_size_of_a_timm_model_are_those_it_was_built_with(
    name: str, built: dict[str, Any], channels: int, size: tuple[int, int]
) -> None:
    steps = default_for(timm.create_model(name, **built))
    assert (steps.channels, len(steps.mean), steps.size) == (channels, channels, size)


def configured(**config: Any) -> Any:
    """Return transformers' smallest ViT classifier with a config's settings."""
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(patch_size=16, intermediate_size=8, **small, **config)
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize(
    ("config", "size", "resize", "source"),
    [
        (
            {"image_size": 96},
            (96, 96),
            110,
            "96 × 96 as the model's config says; else default: Ima",
        ),
        ({"image_size": (64, 32)}, (64, 32), 73, "64 × 32 as the model's config"),
        ({"image_size": 64, "num_channels": 13}, (64, 64), 73, "for 13 channels: scaled to [0, 1]"),
    ],
)
def test_a_transformers_model_says_its_size(
    config: Any, size: tuple[int, int], resize: int, source: str
) -> None:
    module = configured(**config)
    for own in (module, nn.Sequential(module)):
        found = default_for(own)
        assert (found.size, found.resize) == (size, resize)
        assert found.channels == config.get("num_channels", 3) == len(found.mean)
        assert source in found.source


def test_a_config_without_a_size_says_none_and_a_tower_says_its_own() -> None:
    module = nn.Linear(2, 2)
    module.config = {"image_size": 64}  # somebody else's config
    assert default_for(module).size == (224, 224)
    vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 48}
    config = transformers.CLIPConfig(
        vision_config={**vision, "patch_size": 16, "intermediate_size": 8},
        text_config={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    )
    assert default_for(transformers.CLIPModel(config)).size == (48, 48)


def test_class_names_are_those_of_the_config() -> None:
    named = {0: "cat", 1: "dog", 2: "bird"}
    module = configured(image_size=32, id2label=named)
    assert adopt(module).record.classes == ("cat", "dog", "bird")
    assert adopt(module, classes=["x", "y", "z"]).record.classes == ("x", "y", "z")
    assert adopt(configured(image_size=32, num_labels=3)).record.classes == ()  # LABEL_0 and so on
    assert adopt(module.vit).record.classes == ()  # gives embeddings, not classes
