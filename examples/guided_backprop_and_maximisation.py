"""Gradients at the pixels, guided and not, and pictures made from noise that excite a channel.

    python examples/guided_backprop_and_maximisation.py --out runs/examples    # fetches the weights

Saliency (Simonyan et al., 2014) is the class score's gradient at the pixels. Guided backpropagation
(Springenberg et al., 2015) lets only positive gradients through every ReLU on the way. Activation
maximisation goes the other way round: from noise to a picture that excites a channel or a class.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
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
from torch import Tensor

from exporter import compute_maps
from exporter.capture import capture, guest, relu_rule
from exporter.demo import photographs
from exporter.maximise import AscentSettings, maximise
from exporter.models import ResolvedModel
from exporter.render import heatmap

MOBILENET, WEIGHTS = "torchvision:mobilenet_v2", "IMAGENET1K_V1"
METHODS = ("saliency", "guidedbackprop")
RELU = ("features.18.1", "features.18.2")
"""What goes into the last ReLU6, and what comes out."""
CHANNELS = {"features.7": (5, 11), "features.14.conv.1": (10, 50)}
CLASSES = {657: "missile", 980: "volcano", 90: "lorikeet", 107: "jellyfish"}
TILE = 172


def main(out: Path, *, small: bool = False, model: str = MOBILENET, weights: str = WEIGHTS) -> Path:
    """Write two photographs with both gradients, then maximised channels, then classes."""
    resolved = load_model(model, weights, small=small)
    rows = [explain(resolved, name) for name in (("chelsea",) if small else ("chelsea", "coffee"))]
    channels = []
    for layer, numbers in CHANNELS.items():
        made = excite(resolved, layer, numbers, trained=not small)
        channels += [(f"{layer} channel {n}", one) for n, one in zip(numbers, made, strict=True)]
    classes = excite(resolved, "output", tuple(CLASSES), trained=not small)
    rows += [channels, list(zip(CLASSES.values(), classes, strict=True))]
    caption = f"gradients at the pixels, maximised channels and classes: {described(resolved)}"
    return save(lay_out(rows, caption), out / "guided_backprop_and_maximisation.jpg")


def explain(resolved: ResolvedModel, name: str) -> list[tuple[str, Picture]]:
    """Return a photograph, its saliency, and its guided backpropagation in grey and in colour."""
    model = resolved.module
    view, inputs = read_photograph(name, resolved.record.preprocessing)
    found = compute_maps(model, inputs, maps=METHODS)
    saliency, guided = (found[method, ""][0] for method in METHODS)

    # Both, written out: the largest logit's gradient at the pixels, under two rules.
    with guest(model):
        free = inputs.clone().requires_grad_()
        logits = model(free)
        assert_same(saliency, torch.autograd.grad(logits.max(), free)[0][0])
        with relu_rule("guided"):
            assert_same(guided, torch.autograd.grad(model(free).max(), free)[0][0])
            one = capture(model, inputs, RELU, lambda logits: logits.amax(dim=1, keepdim=True))
    # A ReLU6 lets a positive gradient through, unchanged, where its input is between 0 and 6, and
    # nothing else: a mask, not a product with the activation.
    value, slope, after = one.activations[RELU[0]], *(one.gradients[name][0] for name in RELU)
    assert torch.equal(slope, after.clamp(min=0) * ((value > 0) & (value < 6)))
    return [
        (prediction(logits.detach()), shrunk(view)),
        ("saliency", strength(saliency)),
        ("guided backpropagation", strength(guided)),
        ("guided, in colour", colours(guided)),
    ]


def excite(
    resolved: ResolvedModel, layer: str, channels: tuple[int, ...], *, trained: bool
) -> list[Picture]:
    """Return a picture a channel; one of a trained net excites it more than any photograph does."""
    model, steps = resolved.module, resolved.record.preprocessing
    how = {"view": steps.size, "mean": steps.mean, "std": steps.std}
    # A net of random weights answers to nothing that survives a shift or a zoom.
    settings = AscentSettings() if trained else AscentSettings(steps=16, jitter=0, zoom=0)
    made = maximise(model, layer, channels, settings=settings, **how)
    least = torch.from_numpy(made.before)
    if trained:
        names = sorted(path.stem for path in photographs().glob("*.jpg"))
        inputs = torch.cat([read_photograph(name, steps).inputs for name in names])
        wanted = [] if layer == "output" else [layer]
        found = capture(model, inputs, wanted, lambda logits: logits, gradients=False)
        said = found.activations[layer].mean((2, 3)) if wanted else found.output
        least = said[:, list(channels)].amax(dim=0)
    print(f"{layer} {channels}: {made.after} against {least.tolist()}")
    assert (made.after > least.numpy()).all()
    return [shrunk(picture) for picture in made.pictures]


def shrunk(picture: Picture) -> Picture:
    """Return a picture as a tile."""
    return np.asarray(cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)


def strength(values: Tensor) -> Picture:
    """Draw the largest magnitude of (C, H, W) over the channels; the top percent is one colour."""
    most = values.abs().amax(dim=0)
    most = most.clamp(max=float(most.flatten().quantile(0.99)))
    return shrunk(
        heatmap(most.numpy(), (len(most[0]), len(most)), rectify=False, colormap="inferno")
    )


def colours(values: Tensor) -> Picture:
    """Draw a signed (3, H, W) as colours around grey; the outermost percents are cut."""
    reach = float(values.abs().flatten().quantile(0.98))
    shown = (values / reach / 2 + 0.5).clamp(0, 1) * 255
    return shrunk(shown.round().to(torch.uint8).permute(1, 2, 0).numpy())


if __name__ == "__main__":
    given = arguments(__doc__, models=(MOBILENET,), weights=WEIGHTS)
    print(main(given.out, model=given.model[0], weights=given.weights))
