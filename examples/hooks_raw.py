"""Hooks, raw: a forward, a backward and a tensor hook, and the same from one call.

    python examples/hooks_raw.py --out runs/examples                    # fetches the weights

A *forward hook* of a module sees what it returns, a *full backward hook* the gradient of that, and
a *tensor hook* the gradient of one tensor. All three are removed again, and the model must be in
eval mode, its parameters frozen, nothing in place, the names kept apart: ``exporter.capture`` does
that. Here both are done, and every value is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pictures import arguments, described, lay_out, load_model, read_photograph, save
from torch import Tensor, nn

from exporter.capture import capture
from exporter.layers import choose_layers, run_trial
from exporter.render import heatmap

RESNET18 = "torchvision:resnet18"


def main(
    out: Path, *, small: bool = False, model: str = RESNET18, weights: str = "DEFAULT"
) -> Path:
    """Write the strongest channel of a layer and its gradient, once raw and once captured."""
    resolved = load_model(model, weights, small=small)
    module = resolved.module.double()
    view, inputs = read_photograph("chelsea", resolved.record.preprocessing)
    inputs = inputs.double()
    layer = choose_layers(run_trial(module, inputs), ["auto"]).names[-2]
    activation, of_module, of_tensor = raw(module, layer, inputs)

    captured = capture(module, inputs, [layer], lambda logits: logits.amax(dim=1, keepdim=True))
    # Equal but for the rounding of float64: without a graph a convolution may run another kernel.
    torch.testing.assert_close(captured.activations[layer], activation, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(captured.gradients[layer][0], of_tensor, rtol=1e-12, atol=1e-14)
    assert torch.equal(of_module, of_tensor)
    if model == RESNET18:
        assert layer == "layer3"
        assert activation.shape == (1, 256, inputs.shape[2] // 16, inputs.shape[3] // 16)
    assert not any(part._forward_hooks or part._backward_hooks for part in module.modules())

    size = (view.shape[1], view.shape[0])
    channel = int(activation[0].mean(dim=(1, 2)).argmax())
    rows = []
    for how, values, gradient in (
        ("raw hooks", activation, of_tensor),
        ("exporter.capture", captured.activations[layer], captured.gradients[layer][0]),
    ):
        forward = heatmap(values[0, channel].numpy(), size, rectify=False)
        backward = heatmap(gradient[0, channel].numpy(), size, rectify=False, colormap="diverging")
        titles = (f"{how}: channel {channel}", f"{how}: its gradient")
        rows.append([("input", view), *zip(titles, (forward, backward), strict=True)])
    return save(lay_out(rows, f"{described(resolved)}, {layer}"), out / "hooks_raw.jpg")


def raw(model: nn.Module, name: str, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's activation, and its gradient by a module's and by a tensor's hook."""
    activations: list[Tensor] = []
    of_module: list[Tensor] = []
    of_tensor: list[Tensor] = []

    def forward_hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        activations.append(output.detach())
        # A tensor hook needs no removing: it lives as long as its tensor.
        output.register_hook(of_tensor.append)  # type: ignore[no-untyped-call]

    def backward_hook(_module: nn.Module, _inputs: Any, outputs: tuple[Tensor, ...]) -> None:
        of_module.append(outputs[0])

    layer = model.get_submodule(name)
    handles = [
        layer.register_forward_hook(forward_hook),
        layer.register_full_backward_hook(backward_hook),
    ]
    try:
        logits = model(inputs.clone().requires_grad_())
        logits.amax(dim=1).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()  # the raw way leaves a gradient in every parameter
    return activations[0], of_module[0], of_tensor[0]


if __name__ == "__main__":
    given = arguments(__doc__, models=(RESNET18,))
    print(main(given.out, model=given.model[0], weights=given.weights))
