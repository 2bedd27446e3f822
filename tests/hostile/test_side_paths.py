"""Models that read the image again behind a layer: a map in a batch is the map computed alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import exporter
from exporter.explain import Explainer
from exporter.maps import get_methods
from exporter.targets import Scorer, parse_target


class Beside(nn.Module):
    """A classifier whose gate is read from the image, past the layer ``conv``."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate = gate
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).relu().mean((2, 3))
        output: Tensor = self.head(features + self.gate(x))
        return output


def detached(x: Tensor) -> Tensor:
    return x.detach().mean((1, 2, 3)).view(-1, 1) * 3


def without_a_graph(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.mean((1, 2, 3)).view(-1, 1) * 3


def counted(x: Tensor) -> Tensor:
    return x.flatten(1).argmax(1, keepdim=True) / 100


def compared(x: Tensor) -> Tensor:
    return (x > 0).flatten(1).sum(1, keepdim=True) / 100


WAYS = (detached, without_a_graph, counted, compared)


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 8, 8, generator=generator) + torch.arange(3.0).view(3, 1, 1, 1)


@pytest.mark.parametrize("name", ["ablationcam", "finercam", "shapleycam"])
@pytest.mark.parametrize("gate", WAYS)
def test_a_map_in_a_batch_is_the_map_alone(gate: Callable[[Tensor], Tensor], name: str) -> None:
    model, batch = Beside(gate), images()
    maps = exporter.compute_maps(model, batch, maps=[name], layers=["conv"], targets=[0, 1, 2])
    for row in range(3):
        alone = exporter.compute_maps(
            model, batch[row : row + 1], maps=[name], layers=["conv"], targets=[row]
        )
        torch.testing.assert_close(maps[name, "conv"][row], alone[name, "conv"][0])


@pytest.mark.parametrize("first", [images()[:1], images()[:1].repeat(2, 1, 1, 1)])
def test_what_a_single_image_shows_is_not_taken_for_the_batches_after_it(first: Tensor) -> None:
    def explained(explainer: Explainer, batch: Tensor) -> Tensor:
        maps = explainer.explain(batch, torch.full((len(batch),), -1)).maps
        return maps["conv"]["ablationcam"][0]

    model, batch = Beside(detached), images()
    target = Scorer(parse_target("predicted", ()), None)
    explainer = Explainer(model, get_methods(["ablationcam"]), ["conv"], target=target)
    explained(explainer, first)
    after = explained(explainer, batch)
    for row in range(3):
        torch.testing.assert_close(after[row], explained(explainer, batch[row : row + 1])[0])
