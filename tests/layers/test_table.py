from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor

from exporter.layers import count_layers, layer_table, run_trial


def test_resnet50_has_the_layers_that_the_paper_counts() -> None:
    module = torchvision.models.resnet50(weights=None)
    table = layer_table(run_trial(module, torch.rand(1, 3, 64, 64)))
    counts = count_layers(table)
    assert counts["types"]["Conv2d"] == 53
    assert (counts["convolutions"], counts["downsample"], counts["linear"]) == (49, 4, 1)
    assert (counts["blocks"], counts["block_type"]) == (16, "Bottleneck")
    assert counts["parameters"] == sum(p.numel() for p in module.parameters())
    assert counts["modules"] == sum(1 for name, _ in module.named_modules() if name)
    rows = {row.name: row for row in table}
    assert rows["layer3"].output == (1024, 4, 4)
    assert rows["layer3"].parameters == 0
    assert rows["layer1.0.conv1"].parameters == 64 * 64
    assert rows["layer1.0.relu#3"].type == "ReLU"
    assert rows["layer1.0.relu#3"].output == (256, 16, 16)


def test_table_keeps_the_models_order_and_marks_what_never_fires(
    small: Any, example: Tensor
) -> None:
    small.unused = torch.nn.Linear(2, 2)
    table = layer_table(run_trial(small, example))
    assert [row.name for row in table] == [
        "conv1", "relu", "relu#2", "pool", "conv2", "between", "drop", "fc", "unused",
    ]  # fmt: skip
    assert [row.fired for row in table] == [True] * 8 + [False]
    assert table[-1].output is None
    assert table[-1].parameters == 6
    assert count_layers(table)["never_fired"] == 1
    assert count_layers(table)["blocks"] == 0


def test_vit_reports_its_fused_projection_as_never_fired() -> None:
    module = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4)
    counts = count_layers(layer_table(run_trial(module, torch.rand(1, 3, 32, 32))))
    assert counts["never_fired"] == 2
    assert (counts["blocks"], counts["block_type"]) == (2, "EncoderBlock")
