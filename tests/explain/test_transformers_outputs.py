"""transformers' models from a local config, random weights: ModelOutput is read as it is."""

from __future__ import annotations

import pytest
import torch

from exporter.explain import compute_maps
from exporter.targets import Scorer, parse_target

transformers = pytest.importorskip("transformers")


@pytest.mark.slow
def test_a_segformer_is_read_as_a_plane_of_logits() -> None:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=3, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        scored = Scorer(parse_target("predicted", ()))(model(images), torch.tensor([-1, -1]))
        logits = model(images).logits
    assert scored.reading.outputs == 3
    areas = torch.nn.functional.one_hot(logits.argmax(1), 3).double().mean((1, 2))
    assert scored.targets[:, 0].tolist() == areas.argmax(1).tolist()
    layer = "decode_head.batch_norm"
    maps = compute_maps(model, images, maps=["gradcam"], layers=[layer])
    assert maps["gradcam", layer].shape == (2, 16, 16)


@pytest.mark.slow
def test_a_vit_classifier_is_read_as_logits() -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=4,
    )
    model = transformers.ViTForImageClassification(config).eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        scored = Scorer(parse_target("top-2", ()))(model(images), torch.tensor([-1]))
        logits = model(images).logits
    assert scored.targets.tolist() == logits.topk(2).indices.tolist()
    torch.testing.assert_close(scored.scores, logits.topk(2).values)
