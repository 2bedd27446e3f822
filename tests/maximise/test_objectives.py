"""What is asked of activation maximisation, as it is written, and what becomes of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import ConfigError, ExporterError, LayerError
from exporter.layers import run_trial
from exporter.maximise.ascent import AscentSettings
from exporter.maximise.groups import choose
from exporter.maximise.requests import Wanted, parse_request, settle

CLASSES = ("tench", "tiger cat", "great grey owl", "half-track", "tench")


@pytest.mark.parametrize(
    ("text", "chosen", "strongest", "settings"),
    [
        ("layer4:0,3,10-14", ("0", "3", "10-14"), 0, AscentSettings(seed=5)),
        ("a.b[0]:strongest", (), 8, AscentSettings(seed=5)),
        ("a:strongest=3:steps=9,prior=none", (), 3, AscentSettings("none", 9, seed=5)),
        (
            "output:tiger cat, 3:zoom=0,seed=1",
            ("tiger cat", "3"),
            0,
            AscentSettings(zoom=0, seed=1),
        ),
    ],
)
def test_a_request_is_read(
    text: str, chosen: tuple[str, ...], strongest: int, settings: AscentSettings
) -> None:
    found = parse_request(text, 5)
    assert (found.layer, found.chosen) == (text.partition(":")[0], chosen)
    assert (found.strongest, found.settings) == (strongest, settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layer4", "names no layer or no channels"),
        (":3", "names no layer or no channels"),
        ("layer4:1,,2", "names no layer or no channels"),
        ("layer4:strongest=0", "how many of the strongest"),
        ("layer4:strongest=a", "how many of the strongest"),
        ("layer4:strongest,4", "how many of the strongest"),
        ("layer4:1:stepz=4", "no setting 'stepz'; did you mean 'steps'"),
        ("layer4:1:prior=tv", "no prior is called 'tv'; choose one of fourier, total-variation"),
        ("layer4:1:steps=0", "steps is '0'; give a whole number from 1 to 1,000,000"),
        ("layer4:1:steps=1.5", "steps is '1.5'; give a whole number"),
        ("layer4:1:size=4", "size is '4'; give a whole number from 8 to 8,192"),
        ("layer4:1:zoom=2", "zoom is '2'; give a number from 0 to 0.5"),
        ("layer4:1:zoom=nan", "zoom is 'nan'; give a number from 0 to 0.5"),
        ("layer4:1:rate=inf", "rate is 'inf'; give a number from 0 to 1,000"),
        ("layer4:1:rate=1e300", "rate is '1e300'; give a number from 0 to 1,000"),
        ("layer4:1:jitter=9999999999", "jitter is '9999999999'; give a whole number from 0"),
        ("layer4:1:seed=99999999999999999999", "seed is '99999999999999999999'; give a whole"),
        ("layer4:strongest=" + "9" * 5000, "how many of the strongest"),
        ("layer4:1:seed", "seed is ''; give a whole number"),
    ],
)
def test_what_is_wrongly_written_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_request(text, 0)


class Cut(nn.Module):
    """Lets no gradient through."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().mean((2, 3))


class Fixed(nn.Module):
    """Takes 16 × 16 pixels and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3)
        self.flat = nn.Linear(12 * 14 * 14, 7)
        self.head = nn.Linear(7, 5)
        self.cut = Cut()
        self.again = self.conv

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"aux": self.cut(x), "logits": self.head(self.flat(self.conv(x).flatten(1)))}


def settled(text: str) -> tuple[Wanted, ...]:
    torch.manual_seed(0)
    return settle(
        [parse_request(text, 0)],
        run_trial(Fixed(), torch.rand(1, 3, 16, 16)),
        explained=("conv",),
        recorded=("conv",),
        classes=CLASSES,
    )


@pytest.mark.parametrize(
    ("text", "layer", "channels", "strongest"),
    [
        ("conv:3,1,0-2,11", "conv", (3, 1, 0, 2, 11), 0),
        ("auto:strongest=4", "conv", (), 4),
        ("conv:strongest=400", "conv", (), 12),
        ("flat:6", "flat", (6,), 0),
        ("output:tiger cat,3,half-track,1", "output", (1, 3), 0),
        ("output:strongest=2", "output", (), 2),
        ("conv#1:strongest=2", "conv", (), 2),
        ("again:1", "conv", (1,), 0),
    ],
)
def test_a_request_is_settled(
    text: str, layer: str, channels: tuple[int, ...], strongest: int
) -> None:
    assert settled(text) == (Wanted(layer, channels, strongest, AscentSettings()),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("conf:1", "no layer 'conf'; did you mean 'conv'"),
        ("conv:12", "'conv' has no channel 12; it has 12, 0 to 11"),
        ("conv:5-3", "'5-3' of 'conv' end before they start"),
        ("conv:0-999999999", "'conv' has no channel 999999999; it has 12, 0 to 11"),
        ("conv:" + "1" * 5000, "'conv' has 12 channels, 0 to 11; '1111"),
        ("conv:0-" + "1" * 5000, "'conv' has 12 channels, 0 to 11; '0-1111"),
        ("conv:tench", "'tench' is not a channel of 'conv'"),
        ("flat:strongest", "strongest channels of 'flat' will not be known.*from 0 to 6"),
        ("cut:1", "no gradient flows from 'cut' to the pixels"),
        ("output:5", "the model has no class 5; it has 5, 0 to 4"),
        ("output:tench", "the name of 2 classes; give the index: 0, 4"),
        ("output:tiger", "no target or class 'tiger'"),
        ("output:predicted", "'predicted' is not a class"),
        ("conv:1:size=32", "takes no pictures of 32 × 32 pixels .*leave size out"),
    ],
)
def test_what_the_model_has_not_is_said(text: str, says: str) -> None:
    with pytest.raises(ExporterError, match=says):
        settled(text)


class Called(nn.Module):
    """Has a layer that bears the name of the model's output, and takes 16 × 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Conv2d(3, 12, 3)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 16:
            raise AssertionError("only 16")
        return self.head(self.output(x).mean((2, 3)))


def test_a_layer_called_output_is_not_the_models_output() -> None:
    def found(text: str) -> tuple[Wanted, ...]:
        return settle(
            [parse_request(text, 0)],
            run_trial(Called(), torch.rand(1, 3, 16, 16)),
            explained=("output",),
            recorded=("output",),
        )

    layer = Wanted("output#1", (11,), 0, AscentSettings())
    assert found("auto:11") == found("output#1:11") == (layer,)
    assert found("output:4") == (Wanted("output", (4,), 0, AscentSettings()),)
    with pytest.raises(LayerError, match="the model has no class 11"):
        found("output:11")
    (strongest,) = found("auto:strongest=2")
    (group,) = choose([strongest], {"output": {3: 1.0, 5: 2.0, 7: 0.5}}, {0: 9})
    assert (group.layer, group.channels) == ("output#1", (5, 3))


def test_whatever_a_model_says_to_another_size_is_one_sentence() -> None:
    with pytest.raises(ExporterError, match=r"no pictures of 32 × 32 pixels \(only 16\)"):
        settle(
            [parse_request("output:1:size=32", 0)], run_trial(Called(), torch.rand(1, 3, 16, 16))
        )


def test_auto_means_something_only_where_a_layer_is_explained() -> None:
    with pytest.raises(LayerError, match="means the explained layers, and there are none"):
        settle([parse_request("auto:1", 0)], run_trial(Fixed(), torch.rand(1, 3, 16, 16)))


def test_the_strongest_are_chosen_after_the_pass() -> None:
    settings = AscentSettings(steps=3)
    wanted = (
        Wanted("a", (), 2, settings),
        Wanted("output", (), 3, settings),
        Wanted("a", (4, 1), 0, settings),
        Wanted("a", (4,), 0, AscentSettings(steps=4)),
    )
    means = {"a": {0: 0.5, 1: float("nan"), 2: 0.75, 3: 0.75, 4: -1.0}}
    groups = choose(wanted, means, {7: 2, 3: 5, 9: 2, 1: 1})
    assert [(one.layer, one.channels, one.settings.steps) for one in groups] == [
        ("a", (2, 3, 4, 1), 3),
        ("output", (3, 7, 9), 3),
        ("a", (4,), 4),
    ]


def test_groups_are_made_of_at_most_eight() -> None:
    wanted = (Wanted("a", tuple(range(19)), 0, AscentSettings()),)
    assert [len(one.channels) for one in choose(wanted, {}, {})] == [8, 8, 3]
    groups = choose(wanted, {}, {})
    assert [channel for one in groups for channel in one.channels] == list(range(19))
