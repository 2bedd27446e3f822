from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import exporter
from exporter.errors import LayerError, ModelError
from exporter.layers import Trial, choose_layers, run_trial


def slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


def auto(module: nn.Module, side: int = 64) -> tuple[str, ...]:
    return choose_layers(run_trial(module, torch.rand(1, 3, side, side)), ["auto"]).names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "layers"),
    [
        ("resnet18", 64, ("layer1", "layer2", "layer3", "layer4")),
        slow("vgg11", 64, ("features.4", "features.9", "features.14", "features.19")),
        ("alexnet", 96, ("features.1", "features.4", "features.11")),
        ("mobilenet_v2", 64, ("features.3", "features.6", "features.13", "features")),
        slow("efficientnet_b0", 64, ("features.2", "features.3", "features.5", "features")),
        ("squeezenet1_1", 96, ("features.1", "features.4", "features.7", "features")),
        ("shufflenet_v2_x0_5", 64, ("conv1", "stage2", "stage3", "conv5")),
        slow("convnext_tiny", 64, ("features.1", "features.3", "features.5", "features")),
        slow(
            "densenet121",
            64,
            (
                "features.denseblock1",
                "features.denseblock2",
                "features.denseblock3",
                "features",
            ),
        ),
        slow("swin_t", 64, ("features.1", "features.3", "features.5", "permute")),
    ],
)
def test_auto_takes_the_stages_of_a_convolutional_model(name: str, side: int, layers: Any) -> None:
    assert auto(torchvision.models.get_model(name, weights=None), side) == layers


def test_auto_of_a_segmentation_model_stops_before_the_scores() -> None:
    module = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None
    )
    assert auto(module)[-1] == "backbone[high]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vit_tiny_patch16_224", ("blocks.2", "blocks.5", "blocks.7", "blocks.10")),
        slow("deit_tiny_distilled_patch16_224", ("blocks.2", "blocks.5", "blocks.7", "blocks.10")),
        slow("mixer_s32_224", ("blocks.1", "blocks.3", "blocks.5", "blocks.7")),
        slow("mambaout_femto", ("stages.0", "stages.1", "stages.2", "stages")),
    ],
)
def test_auto_of_timm_models_is_never_the_patch_embedding(name: str, layers: Any) -> None:
    assert auto(timm.create_model(name), 224) == layers


def test_the_last_layer_of_a_vit_has_a_gradient_at_its_patches() -> None:
    module = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=4)
    nn.init.normal_(module.heads[-1].weight)
    choice = choose_layers(run_trial(module, torch.rand(1, 3, 32, 32)), ["auto"])
    assert choice.names == ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1")
    kept: list[Tensor] = []
    module.get_submodule(choice.names[-1]).register_forward_hook(lambda *call: kept.append(call[2]))
    logits = module.eval()(torch.rand(1, 3, 32, 32))
    (gradient,) = torch.autograd.grad(logits[0, 0], kept)
    plane = choice.layouts[choice.names[-1]].spatial(gradient)
    assert plane.shape == (1, 16, 4, 4)
    assert plane.abs().amin(dim=1).min() > 0


def test_auto_leaves_out_what_is_pooled_inside_a_block() -> None:
    def block(inputs: int, outputs: int, pool: bool = True) -> nn.Sequential:
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, *[nn.MaxPool2d(2)] * pool)

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    module = nn.Sequential(block(3, 4), block(4, 8), block(8, 8, pool=False), *head)
    assert auto(module, 32) == ("0.1", "1.1", "2")


def test_auto_refuses_a_model_without_a_plane() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(LayerError, match="no spatial layer"):
        auto(module, 4)


@pytest.fixture(scope="module")
def resnet() -> Trial:
    module = torchvision.models.resnet18(weights=None)
    return run_trial(module, torch.rand(1, 3, 64, 64))


def test_names_globs_and_types_come_in_execution_order(resnet: Trial) -> None:
    def names(*wanted: str) -> tuple[str, ...]:
        return choose_layers(resnet, wanted).names

    stages = ("layer1", "layer2", "layer3", "layer4")
    assert names("layer?") == stages
    assert names("layer4", "layer1") == ("layer1", "layer4")
    assert names("layer4.*") == ("layer4.0", "layer4.1")
    assert len(names("layer4.**")) == len(names("layer4.*.**")) + 2
    assert len(names("@Conv2d")) == 20
    assert names("@BasicBlock")[0] == "layer1.0"
    assert names("auto", "conv1") == ("conv1", *stages)
    assert names("layer1.0.relu#2", "layer1.0.relu#1") == ("layer1.0.relu", "layer1.0.relu#2")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("layer9", r"no layer 'layer9'; did you mean 'layer"),
        ("layer5", r"no layer 'layer5'; did you mean 'layer4'"),
        ("laxer?", r"no layer 'laxer\?'"),
        ("@Conv3d", r"no layer of type 'Conv3d'; did you mean '@Conv2d'"),
        ("@Linear", r"none of the 1 layers that '@Linear' means"),
        ("fc", r"'fc' gives shape \(1, 1000\), which is not a plane"),
        ("relu#2", r"'relu' is called once per forward pass"),
        ("layer4[0]", r"'layer4' is one tensor and has no part '\[0\]'"),
        ("layer4]", r"is not a layer's name"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_sentence(
    wanted: Any, message: str, resnet: Trial
) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        choose_layers(resnet, [wanted])
    assert "\n" not in str(caught.value)


def test_parts_of_tuples_are_named(example: Tensor) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.conv(x), x

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = Both()
            self.unused = nn.Conv2d(3, 3, 1)
            self.alias = self.both.conv

        def forward(self, x: Tensor) -> Tensor:
            return self.both(x)[0].mean(dim=(2, 3))

    module = Model()
    assert choose_layers(run_trial(module, example), ["both[1]"]).names == ("both[1]",)
    assert choose_layers(run_trial(module, example), ["alias"]).names == ("both.conv",)
    with pytest.raises(LayerError, match=r"'both' has parts; did you mean .*'both\[0\]'"):
        choose_layers(run_trial(module, example), ["both"])
    with pytest.raises(LayerError, match="'unused' is never called"):
        choose_layers(run_trial(module, example), ["unused"])


class Talking(nn.Module):
    """Attention whose weights, (N, L, L, heads), pass through a layer, as in CaiT's."""

    def __init__(self, channels: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(channels, 2 * channels)
        self.mix = nn.Linear(heads, heads)
        self.out = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k = self.qk(tokens).unflatten(2, (2, self.heads, -1)).unbind(2)
        weights = self.mix(torch.einsum("nahc,nbhc->nabh", q, k)).softmax(2)
        values = tokens.unflatten(2, (self.heads, -1))
        return tokens + self.out(torch.einsum("nabh,nbhc->nahc", weights, values).flatten(2))


class Embedded(nn.Module):
    """Two stages, each with a numbered patch embedding that gives a plane, as in CoaT."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed1 = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks1 = nn.Sequential(Talking(), Talking())
        self.patch_embed2 = nn.Conv2d(8, 8, 2, stride=2)
        self.blocks2 = nn.Sequential(Talking(), Talking())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed1(x)
        x = self.blocks1(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))
        x = self.blocks2(self.patch_embed2(x).flatten(2).transpose(1, 2))
        return self.head(x.mean(1))


def test_neither_weights_of_an_attention_nor_numbered_patch_embeddings_are_taken() -> None:
    torch.manual_seed(0)
    names = choose_layers(run_trial(Embedded(), torch.rand(1, 3, 32, 32)), ["auto"]).names
    assert names == ("blocks1.1", "blocks2.1")


def test_what_an_attention_gives_each_head_is_no_plane_of_the_image() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.norm = nn.Linear(24, 24), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            heads = self.norm(self.mix(x).unflatten(2, (3, 8)))  # (N, tokens, heads, 8)
            return x + heads.flatten(2)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch_embed = nn.Conv2d(3, 24, 8, 8)
            self.blocks = nn.Sequential(Block(), Block())
            self.head = nn.Linear(24, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.blocks(self.patch_embed(x).flatten(2).mT)
            return self.head(tokens.square().mean(1))

    torch.manual_seed(0)
    assert auto(Tokens()) == ("blocks.0", "blocks.1")


def test_auto_leaves_out_the_scores_of_the_output_that_is_explained() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Conv2d(3, 6, 3, padding=1)
            self.stem = nn.Conv2d(6, 6, 3, stride=2, padding=1)
            self.first, self.second = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 7, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            features = self.stem(self.trunk(x)).relu()
            return {"p": self.first(features), "q": self.second(features)}

    torch.manual_seed(0)
    found = choose_layers(run_trial(Two(), torch.rand(1, 3, 32, 32), output="q"), ["auto"])
    assert found.names == ("trunk", "stem")


@pytest.mark.parametrize("spelled", ["1", "_orig_mod.1", "module.1", "_orig_mod.module.1"])
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda module: module])
def test_the_prefix_of_a_wrapper_is_understood(spelled: str, wrap: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))
    maps = exporter.compute_maps(
        wrap(module), torch.rand(1, 3, 16, 16), maps=["eigencam"], layers=[spelled]
    )
    assert {tuple(each.shape) for each in maps.values()} == {(1, 7, 7)}


def test_the_stage_that_an_embedding_is_a_mean_of_is_no_head() -> None:
    embedding = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    assert choose_layers(run_trial(embedding, torch.rand(1, 3, 32, 32)), ["auto"]).names == (
        "0",
        "1",
    )
    scores = embedding[:2].append(nn.Conv2d(8, 5, 1)).extend(embedding[2:])
    assert choose_layers(run_trial(scores, torch.rand(1, 3, 32, 32)), ["auto"]).names == ("0", "1")


def test_a_padding_is_no_stage() -> None:
    padded = nn.Sequential(
        nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), nn.ZeroPad2d(2), nn.Conv2d(6, 6, 5), nn.ReLU()
    )
    net = nn.Sequential(padded, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    assert choose_layers(run_trial(net, torch.rand(1, 3, 32, 32)), ["auto"]).names == ("0",)


def test_a_model_of_videos_is_called_one() -> None:
    with pytest.raises(
        ModelError, match=r"failed in its layer '0' .*; it has 3-D convolutions, as"
    ):
        run_trial(nn.Sequential(nn.Conv3d(3, 4, 3)), torch.rand(1, 3, 32, 32))
