"""Kernels of VGG-11: the 64 colour filters of its first layer, the 128 x 64 of the next.

    python examples/vgg11_kernels.py --out runs/examples                # fetches the weights

A convolution from 64 channels to 128 has 128 x 64 kernels of 3 x 3. Only those that read the
picture itself have three channels and so a colour; all others are drawn signed around zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pictures import Picture, arguments, described, lay_out, load_model, save

from exporter.layers import collect_kernels
from exporter.models import ResolvedModel
from exporter.render import kernel_sheet

VGG11 = "torchvision:vgg11"


def main(
    out: Path, *, small: bool = False, models: Sequence[str] = (VGG11,), weights: str = "DEFAULT"
) -> Path:
    """Write the whole sheets as PNG, and the beginning of each in one picture."""
    resolved = [load_model(spec, weights, small=small) for spec in models]
    rows = [[tile] for model in resolved for tile in sheets(model, out / "kernels")]
    caption = f"kernels: {', '.join(map(described, resolved))}"
    return save(lay_out(rows, caption), out / "vgg11_kernels.png")


def sheets(resolved: ResolvedModel, folder: Path) -> list[tuple[str, Picture]]:
    """Draw the kernels of the first two convolutions with kernels larger than 1 x 1."""
    kernels = {kernel.name: kernel.values for kernel in collect_kernels(resolved.module, ["all"])}
    chosen = [name for name, values in kernels.items() if values.shape[-1] > 1][:2]
    if resolved.record.spec == VGG11:
        assert len(kernels) == 8
        assert chosen == ["features.0", "features.3"]
        assert kernels["features.0"].shape == (64, 3, 3, 3)
        assert kernels["features.3"].shape == (128, 64, 3, 3)
        assert kernels["features.3"][:, :, 0, 0].size == 128 * 64 == 8192
    tiles = []
    for name in chosen:
        values = kernels[name]
        whole, shown = kernel_sheet(values, limit=values.shape[0], inputs=values.shape[1])
        assert shown == values.shape[0]
        save(whole, folder / f"{resolved.record.name} {name}.png")
        shape = " × ".join(str(number) for number in values.shape)
        part = kernel_sheet(values, limit=min(shown, 64) if values.shape[1] <= 3 else 12)[0]
        tiles.append((f"{resolved.record.name}, {name}: {shape}", part))
    return tiles


if __name__ == "__main__":
    given = arguments(__doc__, models=(VGG11,))
    print(main(given.out, models=given.model, weights=given.weights))
