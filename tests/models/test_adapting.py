"""Detectors of queries give a box for each, which is explained like any other box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import ModelError, TargetError
from exporter.layers import choose_layers, run_trial
from exporter.models import adapt
from exporter.targets import Scorer, parse_target

transformers = pytest.importorskip("transformers")

NAMES = dict(enumerate(("dog", "cat", "bird", "car", "tree")))
LAYER = "model.backbone.model.encoder.stages.2"


def spread(model: nn.Module) -> Any:
    """Draw parameters anew, so that queries differ."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def detr(kind: str = "Detr") -> Any:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], out_features=["stage3"]
    )
    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 16)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        encoder_layers=1,
        decoder_layers=1,
        num_queries=6,
        id2label=NAMES,
        **sizes,
    )
    return spread(getattr(transformers, f"{kind}ForObjectDetection")(config))


def yolos() -> Any:
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 64],
        patch_size=16,
        num_detection_tokens=3,
        id2label=NAMES,
    )
    return spread(transformers.YolosForObjectDetection(config))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def shares(model: Any, images: Tensor, kind: str) -> Tensor:
    logits = model(images).logits
    return logits.softmax(-1)[..., :-1] if kind == "Detr" else logits.sigmoid()


@pytest.mark.parametrize("kind", ["Detr", "ConditionalDetr"])
def test_a_box_is_a_query_and_its_score_that_of_its_class(kind: str, images: Tensor) -> None:
    model = detr(kind)
    with torch.no_grad():
        right, boxes = shares(model, images, kind), model(images).pred_boxes
        given = adapt(model)(images)
    assert right.shape == (2, 6, 5)
    for image, detections in enumerate(given):
        best = right[image].max(1)
        order = best.values.argsort(descending=True)
        torch.testing.assert_close(detections["scores"], best.values[order])
        assert detections["labels"].tolist() == best.indices[order].tolist()
        x, y, width, height = boxes[image, order[0]].tolist()
        ends = [(x - width / 2) * 96, (y - height / 2) * 64]
        ends += [(x + width / 2) * 96, (y + height / 2) * 64]
        assert detections["boxes"][0].tolist() == pytest.approx(ends, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Detr", "ConditionalDetr"])
def test_maps_of_a_box_are_those_of_its_query(kind: str, images: Tensor) -> None:
    model = detr(kind)
    right = shares(model, images, kind)
    query = right.max(2).values.argsort(1, descending=True)[:, 1]  # box 1
    label = right.max(2).indices.gather(1, query[:, None])[:, 0]

    class Query(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            times = len(x) // 2
            rows = torch.arange(len(x))
            return shares(self.net, x, kind)[rows, query.repeat(times), label.repeat(times)]

    names = ["gradcam", "saliency", "scorecam", "occlusion"]  # variants of the images, too
    found = exporter.compute_maps(model, images, maps=names, layers=[LAYER], targets="box:1")
    expected = exporter.compute_maps(
        Query(), images, maps=names, layers=[f"net.{LAYER}"], targets="value"
    )
    for (name, layer), values in found.items():
        torch.testing.assert_close(
            values, expected[name, f"net.{layer}" if layer else ""], atol=1e-6, rtol=1e-3
        )


@pytest.mark.slow
def test_a_run_shows_boxes_with_the_names_of_the_config(tmp_path: Path, images: Tensor) -> None:
    model = detr()
    run = exporter.export(
        model,
        [(image, 0) for image in images],
        out=tmp_path,
        maps=("gradcam",),
        preprocessing={"size": [64, 96]},
        target="top-2",
        writers=(),
    )
    assert run.plan.model.classes == tuple(NAMES.values())
    assert "of the DetrForObjectDetection each query's best class is a box" in run.plan.notes
    scores = shares(model, images, "Detr").max(2)
    for row, values, labels in zip(run.rows(), scores.values, scores.indices, strict=True):
        best = int(values.argmax())
        assert row.predictions[0].score == pytest.approx(values[best].item(), abs=1e-6)
        assert row.predictions[0].name == NAMES[int(labels[best])]
    # The deepest stage is there: every query's scores say what they depend on.
    assert run.plan.explained[-1].startswith(("model.input_projection", "model.encoder"))


@pytest.mark.slow
def test_attention_maps_fit_detection_tokens(images: Tensor) -> None:
    found = exporter.compute_maps(
        yolos(), images[..., :32, :64], maps=["attention", "rollout", "legrad"], targets="box:0"
    )
    assert {values.shape for values in found.values()} == {(2, 2, 4)}
    trial = run_trial(adapt(yolos()), images[:1, :, :32, :64])
    choice = choose_layers(trial, ("auto",))
    assert choice.names == ("vit.encoder.layer.0", "vit.encoder.layer.1")
    assert "not the last: its patches do not reach the output" in choice.reason


def test_labels_that_are_not_those_of_the_config_are_refused(images: Tensor) -> None:
    model = detr()
    model.class_labels_classifier = nn.Linear(16, 9)
    with pytest.raises(ModelError, match="gives 9 logits per query and its config says 5 labels"):
        exporter.compute_maps(model, images, maps=["gradcam"], layers=[LAYER])


def test_what_no_box_was_chosen_of_scores_nothing_in_variants(images: Tensor) -> None:
    adapted = adapt(detr())
    scorer = Scorer(parse_target("class:0", ()))
    with torch.no_grad():
        output = adapted(images)
        for detections in output:
            detections["labels"] = detections["labels"].clamp(min=1)  # no box of class 0
        first = scorer(output, torch.full((2,), -1))
        assert first.targets.tolist() == [[-1], [-1]]
        variants = adapted(images.repeat(2, 1, 1, 1))
        assert scorer.again(variants, first, slice(0, 2)).tolist() == [[0.0]] * 4


def test_a_name_alone_makes_no_detector(images: Tensor) -> None:
    class MineForObjectDetection(nn.Sequential):
        pass

    module = MineForObjectDetection(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert adapt(module) is module


class DETR(nn.Module):
    """As its authors have it: a mapping, with what the inner layers of the decoder give besides."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 4))
        self.transformer = nn.Transformer(16, 2, 1, 1, 16, batch_first=True)
        self.query_embed = nn.Embedding(6, 16)
        self.class_embed, self.bbox_embed = nn.Linear(16, 6), nn.Linear(16, 4)

    def forward(self, samples: Tensor) -> dict[str, Any]:
        tokens = self.backbone(samples).flatten(2).mT
        asked = self.query_embed.weight.expand(len(samples), -1, -1)
        queries = self.transformer(tokens, asked)
        boxes = self.bbox_embed(queries).sigmoid()
        given = {"pred_logits": self.class_embed(queries), "pred_boxes": boxes}
        return given | {"aux_outputs": [dict(given)]}


@pytest.mark.parametrize("name", ["DETR", "DeformableDETR", "ConditionalDETR", "DABDETR"])
def test_the_authors_own_detr_gives_the_same_boxes(name: str, images: Tensor) -> None:
    model = type(name, (DETR,), {})()
    spread(model)
    logits = model(images)["pred_logits"]
    right = logits.softmax(-1)[..., :-1] if name == "DETR" else logits.sigmoid()
    best = right.max(2)
    given = adapt(model)(images)
    for image, detections in enumerate(given):
        order = best.values[image].argsort(descending=True)
        torch.testing.assert_close(detections["scores"], best.values[image, order])
        assert detections["labels"].tolist() == best.indices[image, order].tolist()
        assert detections["boxes"].shape == (6, 4)
    query, label = (given[0][key][1] for key in ("query", "labels"))
    leaf = images[:1].clone().requires_grad_()
    inner = model.backbone(leaf)
    model.backbone.forward = lambda _: inner
    logits = model(leaf)["pred_logits"]
    shares = logits.softmax(-1) if name == "DETR" else logits.sigmoid()
    (gradient,) = torch.autograd.grad(shares[0, query, label], inner)
    del model.backbone.forward
    expected = (gradient.mean((2, 3), keepdim=True) * inner).sum(1)
    maps = exporter.compute_maps(
        model, images[:1], maps=["gradcam"], layers=["backbone"], targets="box:1"
    )
    torch.testing.assert_close(maps["gradcam", "backbone"], expected.detach(), rtol=1e-3, atol=1e-7)


def test_a_mapping_of_queries_by_another_name_is_refused(images: Tensor) -> None:
    class Mine(DETR):
        pass

    module = Mine()
    assert adapt(module) is module
    with pytest.raises(TargetError, match=r"has the shape \(2, 6, 6\).*give a function"):
        exporter.compute_maps(module, images, maps=["gradcam"], layers=["backbone"])
