"""Filters and feature maps of every convolution of ResNet-50: 49 and 4 of the shortcuts.

    python examples/resnet50_filters.py --out runs/examples             # fetches the weights

Every convolution gets a sheet of its filters and a sheet of 64 feature maps of one photograph;
``resnet50_filters.jpg`` shows four of them side by side.
"""

from __future__ import annotations

from pathlib import Path

from pictures import arguments, channel_grid, described, lay_out, load_model, read_photograph, save

from exporter.capture import capture
from exporter.layers import choose_layers, collect_kernels, count_layers, layer_table, run_trial
from exporter.render import kernel_sheet

RESNET50 = "torchvision:resnet50"
MAPS = 64


def main(
    out: Path,
    *,
    small: bool = False,
    model: str = RESNET50,
    weights: str = "DEFAULT",
    photograph: str = "chelsea",
) -> Path:
    """Write two sheets per convolution, filters and feature maps, and four in one picture."""
    resolved = load_model(model, weights, small=small)
    module = resolved.module
    view, inputs = read_photograph(photograph, resolved.record.preprocessing)

    trial = run_trial(module, inputs)
    counts = count_layers(layer_table(trial))
    kernels = {kernel.name: kernel.values for kernel in collect_kernels(module, ["all"])}
    if model == RESNET50:
        numbers = [counts[key] for key in ("convolutions", "downsample", "linear", "blocks")]
        assert numbers == [49, 4, 1, 16]
        assert len(kernels) == 49 + 4
        assert kernels["conv1"].shape == (64, 3, 7, 7)

    # One forward without a graph gives every convolution's output.
    names = choose_layers(trial, ["@Conv2d"]).names
    features = capture(module, inputs, names, lambda logits: logits, gradients=False).activations
    assert set(features) <= set(kernels)
    for name, activation in features.items():
        save(kernel_sheet(kernels[name])[0], out / "filters" / f"{name}.png")
        save(channel_grid(activation[0], across=8, cell=40), out / "features" / f"{name}.png")

    chosen = [list(features)[int(share * (len(features) - 1))] for share in (0, 0.25, 0.5, 1)]
    first = kernel_sheet(kernels[chosen[0]])[0]
    tiles = []
    for name in chosen:
        channels = features[name].shape[1]
        title = f"{name}: {min(MAPS, channels)} of {channels} feature maps"
        tiles.append((title, channel_grid(features[name][0], across=8, cell=40)))
    rows = [[("input", view), (f"{chosen[0]}: filters", first)], tiles[:2], tiles[2:]]
    return save(lay_out(rows, described(resolved)), out / "resnet50_filters.jpg")


if __name__ == "__main__":
    given = arguments(__doc__, models=(RESNET50,))
    print(main(given.out, model=given.model[0], weights=given.weights))
