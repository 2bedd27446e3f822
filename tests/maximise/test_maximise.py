from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.errors import ConfigError, LayerError
from exporter.maximise.ascent import AscentSettings, Maximised, maximise
from exporter.maximise.parametrisation import PRIORS

SETTINGS = AscentSettings(steps=48, size=32)
CHANNELS = (0, 3, 5)
INPUT = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 5, 2, bias=False), nn.Conv2d(8, 8, 3, bias=False)
    layers: list[nn.Module] = [first, nn.ReLU(inplace=True), second]
    return nn.Sequential(
        *layers, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6)
    )


def make(
    net: nn.Module, layer: str, channels: tuple[int, ...], settings: AscentSettings, **options: int
) -> Maximised:
    return maximise(net, layer, channels, settings=settings, **INPUT, **options)


def excitement(net: nn.Module, pictures: np.ndarray, until: int) -> Tensor:
    inputs = (torch.from_numpy(pictures).float().permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        values = net[: until + 1](inputs)
    return values[:, :, None] if values.ndim == 2 else values.flatten(2)


@pytest.mark.parametrize(
    "layer", ["3", "output", *(pytest.param(name, marks=pytest.mark.slow) for name in ("2", "6"))]
)
@pytest.mark.parametrize("prior", PRIORS)
def test_each_picture_excites_its_channel_more_than_the_others_pictures(
    net: nn.Module, layer: str, prior: str
) -> None:
    made = make(net, layer, CHANNELS, replace(SETTINGS, prior=prior))
    assert made.pictures.shape == (3, 32, 32, 3)
    assert made.pictures.dtype == np.uint8
    until = 6 if layer == "output" else int(layer)
    found = excitement(net, made.pictures, until)[:, list(CHANNELS)]
    assert found.mean(2).argmax(0).tolist() == [0, 1, 2]
    own = found[range(3), range(3)]
    np.testing.assert_allclose(own.mean(1).numpy(), made.after, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.amax(1).numpy(), made.peak, rtol=1e-5, atol=1e-6)


def test_it_works_where_the_caller_records_nothing_and_for_any_seed(net: nn.Module) -> None:
    plain = make(net, "2", (3,), replace(SETTINGS, steps=2))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            same = make(net, "2", (3,), replace(SETTINGS, steps=2))
        assert np.array_equal(same.pictures, plain.pictures)
    last = make(net, "2", (3,), replace(SETTINGS, steps=2, seed=2**63 - 1))
    assert not np.array_equal(last.pictures, plain.pictures)


def test_channels_may_be_any_integers_and_nonsense_is_refused(net: nn.Module) -> None:
    few = replace(SETTINGS, steps=1)
    plain = maximise(net, "2", [3, 5], settings=few, **INPUT)
    for channels in (np.array([3, 5]), torch.tensor([3, 5])):
        same = maximise(net, "2", channels, settings=few, **INPUT)
        assert same.channels == (3, 5)
        assert np.array_equal(same.pictures, plain.pictures)
    with pytest.raises(LayerError, match="name at least one channel"):
        maximise(net, "2", [], settings=few, **INPUT)
    with pytest.raises(ConfigError, match="no prior is called 'furier'; did you mean 'fourier'"):
        AscentSettings(prior="furier")


def test_the_objective_rises_several_fold(net: nn.Module) -> None:
    made = make(net, "2", CHANNELS, SETTINGS)
    noise = np.abs(made.before)
    assert (made.after > 3 * noise).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_pictures_whoever_is_along(net: nn.Module) -> None:
    one = make(net, "2", CHANNELS, SETTINGS)
    again = make(net, "2", (5,), SETTINGS)
    assert np.array_equal(one.pictures, make(net, "2", CHANNELS, SETTINGS).pictures)
    assert np.abs(one.pictures[2].astype(int) - again.pictures[0]).max() <= 1
    other = make(net, "2", CHANNELS, replace(SETTINGS, seed=1))
    assert not np.array_equal(one.pictures, other.pictures)


def test_more_channels_than_are_made_together_are_all_made(net: nn.Module) -> None:
    wanted = (7, 6, 5, 4, 3, 2, 1, 0, 7)
    made = make(net, "2", wanted, replace(SETTINGS, steps=2))
    assert made.channels == wanted
    assert len(made.pictures) == len(made.after) == 9
    few = make(net, "2", wanted, replace(SETTINGS, steps=2), together=7)
    assert np.abs(made.pictures.astype(int) - few.pictures).max() <= 1
    assert np.abs(made.pictures[0].astype(int) - made.pictures[8]).max() <= 1


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_the_activations_does_not_matter(net: nn.Module, factor: float) -> None:
    scaled = nn.Sequential(net[0], net[1], nn.Conv2d(8, 8, 3, bias=False)).double()
    settings = replace(SETTINGS, steps=12)
    before = make(scaled, "2", (3,), settings).pictures
    with torch.no_grad():
        scaled[2].weight.mul_(factor)
    after = make(scaled, "2", (3,), settings).pictures
    net.float()
    assert np.abs(before.astype(int) - after).max() <= 1


@pytest.mark.slow
def test_a_heavier_total_variation_gives_smoother_pictures(net: nn.Module) -> None:
    def roughness(weight: float) -> float:
        settings = replace(SETTINGS, prior="total-variation", weight=weight)
        values = make(net, "2", (3,), settings).pictures[0].astype(float)
        return float(np.abs(np.diff(values, axis=0)).mean())

    assert roughness(0) > 1.5 * roughness(8) > 1.5 * roughness(64)


def test_views_need_not_be_square(net: nn.Module) -> None:
    settings = AscentSettings(steps=2)
    made = maximise(net, "2", (0,), settings=settings, view=(24, 40), **INPUT)
    assert made.pictures.shape == (1, 24, 40, 3)


@pytest.mark.slow
def test_a_channel_that_noise_leaves_silent_is_found() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.no_grad():
        net[0].bias.fill_(-0.2)
    made = make(net, "1", (0, 1, 2, 3), SETTINGS)
    assert (made.before == 0).any()
    assert (made.after > 0).all()


def test_a_channel_at_the_cap_of_its_relu6_stays_as_it_is() -> None:
    """Without a gradient there is nothing to follow; the deconvnet rule would draw noise."""
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU6())
    with torch.no_grad():
        net[0].weight.fill_(0)
        net[0].bias.fill_(9)
    made = make(net, "1", (0,), replace(SETTINGS, steps=20))
    still = make(net, "1", (0,), replace(SETTINGS, steps=0))
    assert made.after.tolist() == [6]
    assert np.array_equal(made.pictures, still.pictures)


def test_a_model_that_gives_no_numbers_leaves_the_noise(net: nn.Module) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float("nan")

    made = make(nn.Sequential(Broken()), "0", (0, 2), replace(SETTINGS, steps=4))
    assert np.isnan(made.after).all()
    assert 100 < made.pictures.mean() < 150


def test_half_precision_models_are_maximised(net: nn.Module) -> None:
    made = make(nn.Sequential(*net[:3]).bfloat16(), "2", (3,), replace(SETTINGS, steps=16))
    net.float()
    assert made.after[0] > 3 * abs(made.before[0])


def test_the_model_is_left_as_it_was(net: nn.Module) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    make(net, "2", (1,), replace(SETTINGS, steps=4))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_what_is_not_there_is_said(net: nn.Module) -> None:
    with pytest.raises(LayerError, match="has no channel 8; it has 8, 0 to 7"):
        make(net, "2", (8,), SETTINGS)
    with pytest.raises(LayerError, match="no class 6; it has 6, 0 to 5"):
        make(net, "output", (6,), SETTINGS)
    with pytest.raises(LayerError, match="no layer 'nine'"):
        make(net, "nine", (0,), SETTINGS)
