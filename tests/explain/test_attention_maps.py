"""Rollout, LeGrad and Chefer's relevance against transformers written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.parity.attention import MAPS, by_hand
from exporter.errors import LayerError, MapError
from exporter.explain import Explainer, compute_maps, passes
from exporter.maps import get_methods

DOUBLE = torch.float64
NAMES = ["attention", "rollout", "legrad", "chefer"]
Kept = dict[str, list[Any]]


def torchvision_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 3, 4, 24, 48, num_classes=5)


def timm_vit(**options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=3,
        num_heads=4,
        num_classes=5,
        **options,
    )


def timm_pooled() -> nn.Module:
    return timm_vit(class_token=False, global_pool="avg")


def timm_registers() -> nn.Module:
    return timm_vit(reg_tokens=2)


def transformers_vit(attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        num_labels=5,
        attn_implementation=attention,
    )
    return transformers.ViTForImageClassification(config)


VITS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "torchvision": (torchvision_vit, "encoder.layers", "heads"),
    "timm": (timm_vit, "blocks", "head"),
    "timm pooled": (timm_pooled, "blocks", "head"),
    "timm registers": (timm_registers, "blocks", "head"),
}


def ready(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    net = build().to(DOUBLE)
    for parameter in net.parameters():  # heads, gains and class tokens begin at zero
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return net


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(2, 3, 32, 32, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))


def expected(net: nn.Module, family: str, picture: Tensor, target: int) -> dict[str, Tensor]:
    run = by_hand(net, family.partition(" ")[0], picture[None], target)
    return {name: torch.from_numpy(make(run)) for name, make in MAPS.items()}


def close(found: Tensor, right: Tensor, tolerance: float = 1e-9) -> None:
    span = float(right.max() - right.min())
    assert span > 0, "a map without contrast shows nothing"
    assert float((found - right).abs().max()) <= tolerance * span


@pytest.mark.parametrize("family", VITS)
def test_maps_are_the_papers_formulas(family: str, pictures: Tensor) -> None:
    build, _, _ = VITS[family]
    net = ready(build).eval()
    found = compute_maps(net, pictures, maps=NAMES, targets=[[3, 1], [0, 4]])
    for at, targets in enumerate([[3, 1], [0, 4]]):
        for t, target in enumerate(targets):
            right = expected(net, family, pictures[at], target)
            for name in NAMES:
                close(found[name, "attention"][at, t], right[name])


@pytest.mark.slow
@pytest.mark.parametrize("family", VITS)
def test_a_head_is_its_own_softmax_row(family: str, pictures: Tensor) -> None:
    net = ready(VITS[family][0]).eval()
    for head in range(4):
        found = compute_maps(net, pictures, maps=[f"attention:head={head}"])
        for at in range(2):
            run = by_hand(net, family.partition(" ")[0], pictures[at : at + 1], 0)
            own = run.weights[-1][0, head].detach()
            row = own[0] if run.prefix else own.mean(0)
            close(found["attention", "attention"][at], row[run.prefix :].view(4, 4))


def test_a_head_that_is_not_there_is_refused(pictures: Tensor) -> None:
    with pytest.raises(MapError, match="no head 4: the model's last block has 4, from 0 to 3"):
        compute_maps(ready(torchvision_vit), pictures, maps=["attention:head=4"])
    with pytest.raises(MapError, match="'head' of 'attention' is 'x'; give one of mean, or a num"):
        get_methods(["attention:head=x"])


class ImageText(nn.Module):
    """An image-text model with its texts: transformers' CLIP or SigLIP with another text tower."""

    def __init__(self, kind: str, texts: int) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 48}
        vision = {**sizes, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
        text = {**sizes, "num_hidden_layers": 2, "vocab_size": 9, "max_position_embeddings": 17}
        config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision)
        config._attn_implementation = "eager"
        self.model = getattr(transformers, f"{kind}Model")(config)
        # As many tokens as the image has, which must not make them the image's.
        self.register_buffer("texts", torch.arange(texts * 17).view(texts, 17) % 9)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=images, input_ids=self.texts).logits_per_image


class ImageAlone(nn.Module):
    """The same, with what its text tower gave as a constant."""

    def __init__(self, both: ImageText) -> None:
        super().__init__()
        self.model = both.model
        with torch.no_grad():
            self.rows = both.model.get_text_features(input_ids=both.texts).pooler_output

    def forward(self, images: Tensor) -> Tensor:
        columns = self.model.get_image_features(pixel_values=images).pooler_output
        scale = self.model.logit_scale.exp()
        return scale * nn.functional.cosine_similarity(columns[:, None], self.rows, dim=2)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "texts"), [("CLIP", 1), ("CLIP", 3), ("Siglip", 2)])
def test_of_an_image_text_model_the_tower_of_the_image_is_read(
    kind: str, texts: int, pictures: Tensor
) -> None:
    net = ready(lambda: ImageText(kind, texts)).eval()
    found = compute_maps(net, pictures, maps=NAMES, targets=[[0]] * 2)
    with torch.no_grad():
        weights = net.model.vision_model(pictures, output_attentions=True).attentions
    mean = torch.stack(weights).mean(2)
    half = (mean + torch.eye(mean.shape[-1], dtype=DOUBLE)) / 2
    for name, matrix in (("attention", mean[2]), ("rollout", half[2] @ half[1] @ half[0])):
        row = matrix[:, 0, 1:] if kind == "CLIP" else matrix.mean(1)
        close(found[name, "attention"][:, 0], row.view(2, 4, 4), 1e-6)
    alone = compute_maps(ImageAlone(net), pictures, maps=NAMES, targets=[[0]] * 2)
    for name in NAMES:
        close(found[name, "attention"], alone[name, "attention"], 1e-6)


class Beside(nn.Module):
    """A transformer of patches beside another: of the same image, or of words that are learned."""

    def __init__(self, *, images: bool, tokens: int = 17) -> None:
        super().__init__()
        self.vit = torchvision_vit()
        self.other = torchvision_vit() if images else None
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
        self.words = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.learned = nn.Parameter(torch.zeros(1, tokens, 24))
        self.fc = nn.Linear(24, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.vit(images)
        if self.other is not None:
            return logits * self.other(images).sigmoid()
        return logits * self.fc(self.words(self.learned).mean(1)).sigmoid()


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [17, 5, 40])
def test_beside_learned_words_the_image_is_read(tokens: int, pictures: Tensor) -> None:
    net = ready(lambda: Beside(images=False, tokens=tokens)).eval()
    found = compute_maps(net, pictures, maps=["rollout", "attention"], targets=[3, 1])
    right = compute_maps(net.vit, pictures, maps=["rollout", "attention"], targets=[3, 1])
    for key, values in right.items():
        close(found[key], values)


def test_of_two_towers_of_images_it_is_said_that_there_are_two(pictures: Tensor) -> None:
    net = ready(lambda: Beside(images=True)).eval()
    said = (
        r"attends in 2 rows of blocks \(vit.encoder.layers, other.encoder.layers\), and .* one of"
    )
    with pytest.raises(LayerError, match=said):
        compute_maps(net, pictures, maps=["rollout"])


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_transformers_fused_or_written_out_give_the_same(attention: str, pictures: Tensor) -> None:
    net = ready(lambda: transformers_vit(attention)).eval()
    net.config.output_attentions = False
    found = compute_maps(net, pictures, maps=NAMES, targets=[3, 1], output="logits")
    reference = ready(lambda: transformers_vit("eager")).eval()
    with torch.no_grad():
        weights = reference(pictures, output_attentions=True).attentions
    rolled = torch.eye(17, dtype=DOUBLE)
    for weight in weights:
        rolled = (weight.mean(1) + torch.eye(17, dtype=DOUBLE)) / 2 @ rolled
    last = weights[-1].mean(1)
    close(found["attention", "attention"], last[:, 0, 1:].view(2, 4, 4), 1e-6)
    # Written out, it takes its softmax in float32 whatever the model's type is.
    close(found["rollout", "attention"], rolled[:, 0, 1:].view(2, 4, 4), 1e-6)
    other = compute_maps(reference, pictures, maps=NAMES, targets=[3, 1], output="logits")
    for name in NAMES:
        close(found[name, "attention"], other[name, "attention"], 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_in_pieces_is_its_images_one_by_one(
    name: str, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = ready(torchvision_vit)
    whole = compute_maps(net, pictures, maps=[name], targets=[3, 1])[name, "attention"]
    monkeypatch.setattr(passes, "ELEMENTS", 1)
    pieces = compute_maps(net, pictures, maps=[name], targets=[3, 1])[name, "attention"]
    close(pieces, whole)


def test_the_model_is_left_as_it_was_and_fused_again(pictures: Tensor) -> None:
    net = ready(torchvision_vit).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    compute_maps(net, pictures, maps=NAMES, targets=[3, 1])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    with torch.profiler.profile() as profile:
        net.eval()(pictures.requires_grad_())
    assert any("scaled_dot_product" in event.key for event in profile.key_averages())


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scale_of_the_logits_scales_legrad_and_leaves_rollout(
    factor: float, pictures: Tensor
) -> None:
    net = ready(timm_vit)
    plain = compute_maps(net, pictures, maps=NAMES, targets=[3, 1])
    with torch.no_grad():
        net.head.weight.mul_(factor)
        net.head.bias.mul_(factor)
    scaled = compute_maps(net, pictures, maps=NAMES, targets=[3, 1])
    close(scaled["rollout", "attention"], plain["rollout", "attention"])
    close(scaled["legrad", "attention"] / factor, plain["legrad", "attention"])


def test_windows_and_convolutions_have_no_attention_map() -> None:
    timm = pytest.importorskip("timm")
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(1, 2), embed_dim=8
    )
    with pytest.raises(LayerError, match="within windows"):
        compute_maps(swin, torch.randn(1, 3, 56, 56), maps=["legrad"])
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    plain(torch.zeros(1, 3, 8, 8))
    with pytest.raises(LayerError, match="no self-attention"):
        compute_maps(plain, torch.randn(1, 3, 8, 8), maps=["rollout", "gradcam"], layers=["0"])


def test_a_later_batch_without_attention_is_an_error_and_not_silence(pictures: Tensor) -> None:
    from exporter.targets import Target

    net = ready(torchvision_vit).eval()
    explainer = Explainer(net, get_methods(["rollout"]), [], target=Target("predicted"))
    unknown = torch.full((2,), -1)
    assert [block.layer for block in explainer(pictures, unknown).outline.maps] == ["attention"]
    for block in net.encoder.layers:
        block.self_attention.forward = lambda query, *_, **__: (query, None)
    with pytest.raises(LayerError, match="do not pass on one row of tokens"):
        explainer(pictures, unknown)
