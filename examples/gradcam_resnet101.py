"""Grad-CAM of ResNet-101: where in a photograph its prediction comes from.

    python examples/gradcam_resnet101.py --out runs/examples            # fetches the weights
    python examples/gradcam_resnet101.py --out runs/examples --model demo   # no network

Grad-CAM (Selvaraju et al., ICCV 2017) weighs each channel of a layer by the spatial mean of the
class score's gradient. Here it is once taken from the exporter, and once written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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

from exporter import compute_maps
from exporter.capture import capture
from exporter.layers import choose_layers, count_layers, layer_table, run_trial
from exporter.models import ResolvedModel
from exporter.render import heatmap, overlay

RESNET101 = "torchvision:resnet101"


def main(
    out: Path,
    *,
    small: bool = False,
    models: Sequence[str] = (RESNET101,),
    weights: str = "DEFAULT",
) -> Path:
    """Write one row per photograph, one column per model; ``small``: random weights, 64 pixels."""
    resolved = [load_model(spec, weights, small=small) for spec in models]
    rows = []
    for name in ("chelsea",) if small else ("chelsea", "coffee", "rocket", "astronaut"):
        row = [("input", read_photograph(name, resolved[0].record.preprocessing).view)]
        rows.append(row + [explain(model, name) for model in resolved])
    caption = f"Grad-CAM at the last stage: {', '.join(map(described, resolved))}"
    return save(lay_out(rows, caption), out / "gradcam_resnet101.jpg")


def explain(resolved: ResolvedModel, name: str) -> tuple[str, Picture]:
    """Return the prediction and the overlay of Grad-CAM at the last stage."""
    model = resolved.module
    view, inputs = read_photograph(name, resolved.record.preprocessing)
    trial = run_trial(model, inputs)
    layer = choose_layers(trial, ["auto"]).names[-1]
    gradcam = compute_maps(model, inputs, maps=["gradcam"], layers=[layer])["gradcam", layer]

    # The same, written out: one pass captures the layer's activation and its gradient.
    captured = capture(model, inputs, [layer], lambda logits: logits.amax(dim=1, keepdim=True))
    activation, gradient = captured.activations[layer], captured.gradients[layer][0]
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    assert_same(gradcam, (weights * activation).sum(dim=1))

    if resolved.record.spec == RESNET101:
        counts = count_layers(layer_table(trial))
        assert (counts["convolutions"], counts["downsample"], counts["blocks"]) == (100, 4, 33)
        assert activation.shape == (1, 2048, inputs.shape[2] // 32, inputs.shape[3] // 32)

    size = (view.shape[1], view.shape[0])
    picture = overlay(view, heatmap(gradcam[0].numpy(), size, rectify=True))
    return prediction(captured.output), picture


if __name__ == "__main__":
    given = arguments(__doc__, models=(RESNET101,))
    print(main(given.out, models=given.model, weights=given.weights))
