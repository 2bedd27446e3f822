"""CAM from the classifier's own weights: ResNet-18, and VGG-16's features with a pooled head.

    python examples/cam_from_classifier.py --out runs/examples          # fetches the weights
    python examples/cam_from_classifier.py --out runs/examples --model demo --weights DEFAULT

CAM (Zhou et al., CVPR 2016) needs logits that are a linear function of a layer's spatial means.
ResNet-18 is built so. VGG-16 is not: as in the paper, its three linear layers are replaced by
average pooling and one linear layer, which would have to be trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pictures import (
    Picture,
    arguments,
    assert_same,
    described,
    lay_out,
    load_model,
    prediction,
    read_photograph,
    save,
)
from torch import nn
from torchvision.models import vgg16
from torchvision.models.vgg import cfgs, make_layers

from exporter import compute_maps
from exporter.capture import capture
from exporter.layers import choose_layers, find_classifier, run_trial
from exporter.models import ResolvedModel
from exporter.render import heatmap, overlay

MODELS = ("torchvision:resnet18", f"{Path(__file__)}:vgg16_pooled")
POOLED = {"resnet18": "layer4", "vgg16_pooled": "features"}
"""The layer that the pooling reads: 512 channels of 7 x 7, of a view of 224 pixels."""

WEIGHTS = "IMAGENET1K_V1"
"""Of ResNet-18 and of VGG-16's features."""


def vgg16_pooled(weights: str = "none") -> nn.Module:
    """Build VGG-16's features, average pooling and one linear layer (random: to be trained)."""
    # Without weights, the 123 million numbers of the head that is not used need not be drawn.
    features = make_layers(cfgs["D"]) if weights == "none" else vgg16(weights=weights).features
    for layer in features if weights == "none" else ():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("linear", nn.Linear(512, 1000))
    return model


def main(
    out: Path, *, small: bool = False, models: Sequence[str] = MODELS, weights: str = WEIGHTS
) -> Path:
    """Write one row per photograph, one column per model; ``small``: random weights, 64 pixels."""
    resolved = [load_model(spec, weights, small=small) for spec in models]
    rows = []
    for name in ("chelsea",) if small else ("chelsea", "coffee", "rocket"):
        row = [("input", read_photograph(name, resolved[0].record.preprocessing).view)]
        rows.append(row + [explain(model, name) for model in resolved])
    caption = f"CAM from the classifier's weights: {', '.join(map(described, resolved))}"
    return save(lay_out(rows, caption), out / "cam_from_classifier.jpg")


def explain(resolved: ResolvedModel, name: str) -> tuple[str, Picture]:
    """Return the prediction and the overlay of CAM at the layer before the pooling."""
    model = resolved.module
    view, inputs = read_photograph(name, resolved.record.preprocessing)
    asked = POOLED.get(resolved.record.name, "auto")
    trial = run_trial(model, inputs)
    layer = choose_layers(trial, [asked]).names[-1]
    cam = compute_maps(model, inputs, maps=["cam"], layers=[layer])["cam", layer][0]

    # The same, written out: the top class's row of the classifier weighs the layer's channels.
    captured = capture(model, inputs, [layer], lambda logits: logits, gradients=False)
    features = captured.activations[layer][0]
    row = find_classifier(trial, layer).weight[int(captured.output.argmax())]
    assert_same(cam, torch.einsum("c,chw->hw", row, features))
    if layer == asked:
        assert features.shape == (512, inputs.shape[2] // 32, inputs.shape[3] // 32)

    size = (view.shape[1], view.shape[0])
    return prediction(captured.output), overlay(view, heatmap(cam.numpy(), size, rectify=False))


if __name__ == "__main__":
    given = arguments(__doc__, models=MODELS, weights=WEIGHTS)
    print(main(given.out, models=given.model, weights=given.weights))
