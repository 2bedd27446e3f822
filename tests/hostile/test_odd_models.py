"""Odd models, each beside a plain one that computes the same: equal maps, or a sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import exporter
from exporter.errors import ExporterError, LayerError, MapError
from exporter.layers import find_out, run_trial
from tests.hostile.guests import Around, pure
from tests.hostile.guests import convolutional as net
from tests.hostile.test_chance import TRAINED
from tests.hostile.test_inputs import AT_THE_INPUT, CONVOLUTIONAL, _ordered, assert_equal, images

METHODS = tuple(name for name in CONVOLUTIONAL if name != "cam")
Pair = tuple[nn.Module, nn.Module]


def around(change: Callable[[Tensor], Tensor]) -> Pair:
    return Around(net(), change), pure(net())


def with_weights(layer: int, factor: float) -> nn.Module:
    model = net()
    with torch.no_grad():
        model[layer].weight.mul_(factor)
    return model


def views_of_the_input() -> Pair:
    def change(x: Tensor) -> Tensor:
        x[:, :, ::2].mul_(0.5)
        x[:, :, 1::2].permute(0, 2, 3, 1).div_(2)
        return x

    return around(change)


def a_strided_view() -> Pair:
    def change(x: Tensor) -> Tensor:
        x.as_strided((x.numel(),), (1,)).mul_(0.5)
        return x

    return around(change)


def weights_computed_into_a_tensor() -> Pair:
    model = net()
    conv, doubled = model[3], torch.empty_like(model[3].weight)

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            torch.mul(conv.weight, 2.0, out=doubled)
        return functional.conv2d(x, doubled, conv.bias, padding=1)

    conv.forward = forward
    return model, with_weights(3, 2)


def weights_written_through_data() -> Pair:
    def shrink(module: nn.Module, _inputs: Any) -> None:
        module.weight.data.mul_(0.5)

    model = net()
    model[0].register_forward_pre_hook(shrink)
    return model, with_weights(0, 0.5)


def weights_written_without_gradients() -> Pair:
    def shrink(module: nn.Module, _inputs: Any) -> None:
        with torch.no_grad():
            module.weight.mul_(0.5)

    model = net()
    model[3].register_forward_pre_hook(shrink)
    return model, with_weights(3, 0.5)


def weights_replaced() -> Pair:
    def shrink(module: nn.Module, _inputs: Any) -> None:
        module.weight = nn.Parameter(module.weight * 0.5)

    model = net()
    model[3].register_forward_pre_hook(shrink)
    return model, with_weights(3, 0.5)


def a_parametrization() -> Pair:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model = net()
    parametrize.register_parametrization(model[3], "weight", Double())
    return model, with_weights(3, 2)


def weight_norm() -> Pair:
    model = net()
    parametrizations.weight_norm(model[3])
    return model, net()


def spectral_norm() -> Pair:
    """One that goes on with its power iteration in every forward, and so writes buffers."""
    model, plain = net(), net()
    parametrizations.spectral_norm(model[3]).eval()
    norm = model[3].parametrizations.weight[0]
    was = norm._u.clone(), norm._v.clone()
    norm.train()
    with torch.no_grad():
        plain[3].weight.copy_(model[3].weight)
        norm._u.copy_(was[0])
        norm._v.copy_(was[1])
    model[3].register_forward_pre_hook(lambda *_: norm.train() and None)
    return model.eval(), plain


def a_partial_forward() -> Pair:
    model = nn.Sequential(net())
    model.forward = functools.partial(lambda run, x, *, by: run(x * by), model.forward, by=0.5)  # type: ignore[method-assign, assignment]
    return model, pure(net())


def a_closure_that_holds_a_tensor() -> Pair:
    scale = torch.full((3, 1, 1), 0.5, requires_grad=True)
    return around(lambda x: x * scale)


def an_inference_tensor_in_a_closure() -> Pair:
    with torch.inference_mode():
        scale = torch.full((3, 1, 1), 0.5)
    return around(lambda x: x * scale.clone())


def checkpointed(**how: bool) -> Pair:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = net()
            self.first, self.second, self.last = whole[:3], whole[3:5], whole[5:]

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.second(self.first(x)))

    class Checkpointed(Parts):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(checkpoint(self.second, checkpoint(self.first, x, **how), **how))

    return Checkpointed(), Parts()


def functional_weights() -> Pair:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            own = dict(self.net.named_parameters())
            return torch.func.functional_call(self.net, own | {"3.weight": own["3.weight"] * 2}, x)

    return Functional(), with_weights(3, 2)


def seeded_noise() -> Pair:
    noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))

    def change(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return x + torch.rand(x.shape[1:])

    return Around(net(), change), Around(net(), lambda x: x + noise)


def compiled_in_place() -> Pair:
    model = net()
    model[3].compile(backend="eager")
    return model, net()


def outputs_in_a_buffer() -> Pair:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()
            self.register_buffer("rows", torch.zeros(64, 3))

        def forward(self, x: Tensor) -> Tensor:
            self.rows = self.rows.detach().clone()
            self.rows[: len(x)] = self.net(x)
            return self.rows[: len(x)]

    return Buffered(), net()


def hooks_that_scale_gradients() -> Pair:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
            return 2 * gradients[0]

    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net[3:](Doubled.apply(self.net[:3](x)))  # type: ignore[no-untyped-call]

    model = net()
    model[3].register_full_backward_hook(lambda _m, given, _out: (2 * given[0],))
    return model, Before()


def trained(build: Callable[[], nn.Module]) -> Callable[[], Pair]:
    """Return normalisation that trains in eval mode, beside one that keeps no statistics."""

    def pair() -> Pair:
        plain = net()
        norm = plain[1]
        norm.running_mean = norm.running_var = None
        norm.track_running_stats = False
        return build(), plain

    pair.__name__ = build.__name__
    return pair


EQUAL = (
    views_of_the_input,
    a_strided_view,
    weights_computed_into_a_tensor,
    weights_written_through_data,
    weights_written_without_gradients,
    weights_replaced,
    a_parametrization,
    weight_norm,
    spectral_norm,
    a_partial_forward,
    a_closure_that_holds_a_tensor,
    an_inference_tensor_in_a_closure,
    functional_weights,
    seeded_noise,
    compiled_in_place,
    outputs_in_a_buffer,
    hooks_that_scale_gradients,
    *map(trained, TRAINED),
)


def maps_of(model: nn.Module, methods: tuple[str, ...]) -> Mapping[tuple[str, int], Tensor]:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    return _ordered(exporter.compute_maps(model, images(), maps=methods, layers=layers))


@pytest.mark.parametrize(
    "build",
    [
        build if number % 4 == 3 else pytest.param(build, marks=pytest.mark.slow)
        for number, build in enumerate(EQUAL)
    ],
)
def test_every_method_gives_the_maps_of_the_plain_model(build: Callable[[], Pair]) -> None:
    model, plain = build()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    assert_equal(maps_of(model, METHODS), maps_of(plain, METHODS))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(values, after[name]) for name, values in before.items())


@pytest.mark.slow
def test_a_checkpoint_is_seen_through_but_for_the_rule_of_its_relus() -> None:
    model, plain = checkpointed(use_reentrant=False)
    methods = tuple(name for name in METHODS if not name.startswith("guided"))
    assert_equal(maps_of(model, methods), maps_of(plain, methods))
    for name in ("guidedbackprop", "guidedgradcam"):
        with pytest.raises(ExporterError, match="checkpoint"):
            maps_of(model, (name,))


def test_a_reentrant_checkpoint_is_refused_by_every_method_of_gradients() -> None:
    model, plain = checkpointed(use_reentrant=True)
    forward = ("eigencam", "scorecam", "ablationcam", "occlusion", "rise")
    assert_equal(maps_of(model, forward), maps_of(plain, forward))
    for name in set(METHODS) - set(forward):
        with pytest.raises(ExporterError, match=r"checkpoint|no_grad"):
            maps_of(model, (name,))


def test_a_method_that_one_of_the_layers_lacks_is_said() -> None:
    """The layer inside a reentrant checkpoint carries no gradient, the one after it does."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = net()
            self.first, self.rest = whole[:3], whole[3:]

        def forward(self, x: Tensor) -> Tensor:
            return self.rest(checkpoint(self.first, x, use_reentrant=True))

    for name in ("finercam", "shapleycam"):
        with pytest.raises(LayerError, match=f"'{name} at first.2' cannot be computed: no "):
            maps_of(Half(), (name,))


class OneByOne(nn.Module):
    """Runs its images one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(image[None]) for image in x])


class Mapped(OneByOne):
    """Runs its images under `torch.vmap`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda image: self.net(image[None])[0])(x)


@pytest.mark.parametrize(
    ("build", "refused"),
    [
        (OneByOne, {"fullgrad": "a layer ran on 1 where there are 2 images"}),
        (
            Mapped,
            dict.fromkeys(("fullgrad", "guidedbackprop", "deconvnet"), r"inside torch\.vmap"),
        ),
    ],
)
def test_images_that_a_model_takes_apart(
    build: Callable[[], nn.Module], refused: dict[str, str]
) -> None:
    model, plain = build(), net()
    methods = tuple(
        name for name in (*AT_THE_INPUT, "occlusion") if name not in {*refused, "guidedgradcam"}
    )
    maps = exporter.compute_maps(model, images(), maps=methods)
    assert_equal(maps, exporter.compute_maps(plain, images(), maps=methods))
    for name, why in refused.items():
        with pytest.raises(MapError, match=why):
            exporter.compute_maps(model, images(), maps=[name])
    with pytest.raises(ExporterError):
        exporter.compute_maps(model, images(), maps=["gradcam"], layers=["net.4"])


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nn.Sequential(torch.compile(net())), "is compiled"),
        (
            torch.inference_mode()(net),
            r"'0\.weight' was made under torch\.inference_mode",
        ),
    ],
    ids=["compiled", "inference mode"],
)
def test_what_no_hook_or_gradient_reaches_is_refused(
    build: Callable[[], nn.Module], match: str
) -> None:
    with pytest.raises(ExporterError, match=match):
        exporter.compute_maps(build(), images())


COUNTED = [0]


def counted() -> nn.Module:
    def change(x: Tensor) -> Tensor:
        COUNTED[0] += 1
        return x * COUNTED[0]

    return Around(net(), change)


def warmed() -> nn.Module:
    """Return a model whose first forward differs from all others."""
    return Around(net(), functools.partial(lambda seen, x: x * len(seen.append(0) or seen[:2]), []))


def cropped() -> nn.Module:
    def change(x: Tensor) -> Tensor:
        top, left = np.random.randint(0, 4, 2)
        return x[:, :, top : top + 12, left : left + 12]

    return Around(net(), change)


def shrinking_what_no_module_holds() -> nn.Module:
    scale = torch.ones(3, 1, 1)
    return Around(net(), lambda x: x * scale.mul_(0.9).clone())


@pytest.mark.parametrize("build", [counted, warmed, cropped, shrinking_what_no_module_holds])
def test_what_cannot_be_put_back_is_found(build: Callable[[], nn.Module]) -> None:
    np.random.seed(0)
    findings = find_out(run_trial(build(), images()[:1]))
    assert not findings.repeats
    assert "another run's differ" in findings.notes[0]


def test_normalising_over_the_batch_is_found() -> None:
    model = Around(net(), lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / x.std())
    findings = find_out(run_trial(model, images()[:1]))
    assert findings.repeats
    assert findings.alone is False
