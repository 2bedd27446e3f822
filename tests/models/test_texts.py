"""Image-text models: the image's tower runs, and a text is compared with what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import exporter
from exporter.errors import TargetError
from exporter.models import adapt, embed_text
from tests.small import small

transformers = pytest.importorskip("transformers")

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
LAYER = "vision_model.encoder.layers.1"


def letters(texts: Sequence[str]) -> Tensor:
    """Read a text into a token per letter."""
    return torch.tensor([[1, *(3 + ord(sign) % 30 for sign in text), 2] for text in texts])


def image_text(kind: str = "CLIP", **config: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    vision = {**sizes, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
    text = {"vocab_size": 40, "max_position_embeddings": 20, "num_hidden_layers": 1}
    text |= {**sizes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = getattr(transformers, f"{kind}Model")(
        getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, **config)
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def similarity(model: Any, images: Tensor, text: str) -> Tensor:
    rows = model.eval().get_image_features(pixel_values=images).pooler_output
    column = model.get_text_features(input_ids=letters([text])).pooler_output
    return cosine_similarity(rows, column)


class Cosine(nn.Module):
    """The similarity to a text as the model's one output."""

    def __init__(self, model: Any, text: str) -> None:
        super().__init__()
        self.model, self.text = model, text

    def forward(self, images: Tensor) -> Tensor:
        return similarity(self.model, images, self.text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_maps_for_a_text_are_those_of_the_cosine(kind: str) -> None:
    model, images = image_text(kind).train(), torch.rand(2, 3, 32, 32)
    model.tokenizer = letters
    asked = {"maps": ["gradcam", "saliency"], "rectify": False}
    found = exporter.compute_maps(model, images, layers=[LAYER], targets="text:a dog", **asked)
    assert model.training
    assert type(model).__name__ == f"{kind}Model"
    right = exporter.compute_maps(
        Cosine(model, "a dog"), images, layers=[f"model.{LAYER}"], targets="value", **asked
    )
    torch.testing.assert_close(found["gradcam", LAYER], right["gradcam", f"model.{LAYER}"])
    torch.testing.assert_close(found["saliency", ""], right["saliency", ""])
    other = exporter.compute_maps(model, images, layers=[LAYER], targets="text:a cat", **asked)
    assert not torch.allclose(found["gradcam", LAYER], other["gradcam", LAYER])


@pytest.mark.slow
def test_a_run_runs_the_text_tower_once(tmp_path: Path) -> None:
    model, calls = image_text(), []
    model.tokenizer = letters
    model.text_model.register_forward_hook(lambda *_: calls.append(1))
    pictures = torch.randn(2, 3, 32, 32)
    run = exporter.export(
        model,
        [(picture, 0) for picture in pictures],
        out=tmp_path,
        target="text:a photo of a dog",
        maps=("gradcam", "attention"),
        batch_size=1,
        writers=("html",),
    )
    assert len(calls) == 1
    assert run.plan.model.preprocessing.size == (32, 32)
    assert "of the CLIPModel the image's tower runs and gives its embedding" in run.plan.notes
    assert {name.partition(".")[0] for name in run.plan.explained} == {"vision_model", "attention"}
    predictions = [prediction for row in run.rows() for prediction in row.predictions]
    assert {prediction.name for prediction in predictions} == {"similarity"}
    right = similarity(model, pictures, "a photo of a dog").tolist()
    assert [prediction.score for prediction in predictions] == pytest.approx(right, abs=1e-5)
    page = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    assert "the similarity to the text a photo of a dog" in page


@pytest.mark.slow
def test_the_tokenizer_that_was_saved_with_a_model_is_used(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 4, "dog": 5, "?": 6}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
    for kind, tokens in (("CLIP", [[4, 5]]), ("Siglip", [[4, 5, *[0] * 18]])):
        folder = tmp_path / kind
        fast.save_pretrained(folder)
        image_text(kind).save_pretrained(folder)
        model = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
        right = model.get_text_features(input_ids=torch.tensor(tokens)).pooler_output[0]
        torch.testing.assert_close(embed_text(model, "a dog"), right)


class Own(nn.Module):
    """A model of one's own with a text tower, called as open_clip's is."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.words, self.tokenizer = small(), nn.Embedding(40, 4), letters

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.words(tokens).mean(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def test_a_model_of_ones_own_with_a_text_tower_needs_no_library() -> None:
    model, images = Own(), torch.rand(2, 3, 32, 32)
    row = model.encode_text(letters(["a dog"])).detach()

    def cosine(values: Tensor) -> Tensor:
        return cosine_similarity(values[None], row)

    asked = {"maps": ["gradcam"], "layers": ["net.2"]}
    found = exporter.compute_maps(model, images, targets="text:a dog", **asked)
    right = exporter.compute_maps(model, images, targets=[cosine, cosine], **asked)
    torch.testing.assert_close(found["gradcam", "net.2"], right["gradcam", "net.2"])
    # Its forward gives what it gives: classes are classes.
    exporter.compute_maps(model, images, **asked)


@pytest.mark.slow
def test_open_clip_reads_a_text_by_itself() -> None:
    open_clip = pytest.importorskip("open_clip")
    sizes = {"width": 64, "layers": 2}
    model = open_clip.CLIP(
        32,
        {**sizes, "image_size": 32, "patch_size": 8},
        {**sizes, "heads": 2, "context_length": 77},
    )
    tokens = open_clip.get_tokenizer("ViT-B-32")(["a photo of a dog"])
    right = model.eval().encode_text(tokens)[0]
    torch.testing.assert_close(embed_text(model, "a photo of a dog"), right)
    images = torch.rand(1, 3, 32, 32)
    maps = exporter.compute_maps(model, images, maps=["rollout"], targets="text:a dog")
    assert maps["rollout", "attention"].shape == (1, 4, 4)
    with pytest.raises(TargetError, match="the CLIP gives an embedding of the image"):
        exporter.compute_maps(model, images)


def test_what_cannot_be_compared_is_said() -> None:
    images = torch.rand(1, 3, 32, 32)
    for targets in (None, "label", "top-2"):
        with pytest.raises(TargetError, match="CLIPModel gives an embedding of the image and no c"):
            exporter.compute_maps(image_text(), images, targets=targets)
    with pytest.raises(TargetError, match="no tokenizer; set the model's attribute tokenizer"):
        exporter.compute_maps(image_text(), images, targets="text:a dog")
    with pytest.raises(
        TargetError, match=r"'text:a dog' needs a model with a text tower, .* Sequen"
    ):
        exporter.compute_maps(small(), images, targets="text:a dog")
    broken = image_text()
    broken.tokenizer = lambda _texts: torch.tensor([[99]])
    with pytest.raises(TargetError, match=r"the text tower failed .*on 'a dog': IndexError"):
        exporter.compute_maps(broken, images, targets="text:a dog")
    with pytest.raises(TargetError, match="the target 'text:' has no text"):
        exporter.compute_maps(broken, images, targets="text: ")


def test_a_tower_is_the_model_and_what_is_set_on_it_later() -> None:
    model = image_text()
    tower = adapt(model)
    assert [name for name, _ in tower.named_modules()] == [
        name for name, _ in model.named_modules()
    ]
    assert next(tower.parameters()) is next(model.parameters())
    model.tokenizer = letters
    assert adapt(model) is tower
    assert tower.tokenizer is letters
    assert adapt(tower) is tower
    assert adapt(model.vision_model) is model.vision_model
