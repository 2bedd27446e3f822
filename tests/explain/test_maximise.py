from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.errors import LayerError
from exporter.explain.maximise import maximise

OPTIONS = {"steps": 48, "size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
CHANNELS = (0, 3, 5)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 5, 2, bias=False), nn.Conv2d(8, 8, 3, bias=False)
    layers: list[nn.Module] = [first, nn.ReLU(inplace=True), second]
    return nn.Sequential(
        *layers, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)
    )


def excitement(net: nn.Module, pictures: np.ndarray, until: int) -> Tensor:
    inputs = (torch.from_numpy(pictures).float().permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        values = net[: until + 1](inputs)
    return values if values.ndim == 2 else values.mean((2, 3))


@pytest.mark.parametrize("layer", ["2", "3", "6"])
def test_each_picture_excites_its_channel_more_than_the_others_pictures(
    net: nn.Module, layer: str
) -> None:
    made = maximise(net, layer, CHANNELS, **OPTIONS)
    assert made.pictures.shape == (3, 32, 32, 3)
    assert made.pictures.dtype == np.uint8
    found = excitement(net, made.pictures, int(layer))[:, list(CHANNELS)]
    assert found.argmax(0).tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.diagonal().numpy(), made.after, rtol=1e-5, atol=1e-6)


def test_the_objective_rises_several_fold(net: nn.Module) -> None:
    made = maximise(net, "2", CHANNELS, **OPTIONS)
    noise = np.abs(made.before)
    assert (made.after > 3 * noise).all()


def test_the_same_seed_gives_the_same_pictures_whoever_is_along(net: nn.Module) -> None:
    one = maximise(net, "2", CHANNELS, **OPTIONS)
    again = maximise(net, "2", (5,), **OPTIONS)
    assert np.array_equal(one.pictures, maximise(net, "2", CHANNELS, **OPTIONS).pictures)
    assert np.abs(one.pictures[2].astype(int) - again.pictures[0]).max() <= 1
    other = maximise(net, "2", CHANNELS, **OPTIONS, seed=1)
    assert not np.array_equal(one.pictures, other.pictures)


def test_a_channel_that_noise_leaves_silent_is_found() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.no_grad():
        net[0].bias.fill_(-0.2)
    made = maximise(net, "1", (0, 1, 2, 3), **OPTIONS)
    assert (made.before == 0).any()
    assert (made.after > 0).all()


def test_the_model_is_left_as_it_was(net: nn.Module) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    maximise(net, "2", (1,), **{**OPTIONS, "steps": 4})
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_what_is_not_there_is_said(net: nn.Module) -> None:
    with pytest.raises(LayerError, match="has no channel 8; it has 8, 0 to 7"):
        maximise(net, "2", (8,), **OPTIONS)
    with pytest.raises(LayerError, match="no layer 'nine'"):
        maximise(net, "nine", (0,), **OPTIONS)
