from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from exporter.capture import capture, guest
from exporter.errors import LayerError

# ---------------------------------------------------------------- captum's closed-form network


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_known_network(inplace: bool, frozen: bool) -> None:
    model = BasicModel_ConvNet_One_Conv(inplace=inplace).requires_grad_(not frozen)
    inputs = torch.arange(16.0).reshape(1, 1, 4, 4)
    got = capture(model, inputs, ["conv1", "relu1"], lambda output: output[:, :1])

    def gradcam(layer: str) -> list[list[float]]:
        weights = got.gradients[layer][0].mean((2, 3), keepdim=True)
        return (weights * got.activations[layer]).sum(1)[0].tolist()

    assert gradcam("conv1") == [[11.25, 13.5], [20.25, 22.5]]
    assert gradcam("relu1") == [[0, 4], [28, 32.5]]
    assert got.missing == {}


# ---------------------------------------------------------------- whole networks, no hooks


class Tail(fx.Interpreter):
    """Run a traced model with one module's output as a free variable: plain autograd, no hooks."""

    def __init__(self, graph: fx.GraphModule, layer: str) -> None:
        super().__init__(graph)
        self.layer = layer
        self.kept: Tensor | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_module" and n.target == self.layer:
            value = self.kept = value.detach().requires_grad_()
        return value


def without_in_place(model: nn.Module) -> fx.GraphModule:
    graph = fx.symbolic_trace(model)
    for module in graph.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for node in graph.graph.nodes:
        node.kwargs = {k: False if k == "inplace" else v for k, v in node.kwargs.items()}
        if node.target is operator.iadd:
            node.target = operator.add
    graph.recompile()
    return graph


def vgg11() -> nn.Module:
    with torch.device("meta"):
        model = torchvision.models.vgg11(init_weights=False)
        model.classifier = nn.Sequential(nn.Linear(25088, 32), nn.ReLU(True), nn.Linear(32, 9))
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=max(parameter[0].numel(), 9) ** -0.5)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "resnet18": (
        torchvision.models.resnet18,
        ["conv1", "bn1", "layer1.0.bn1", "layer2.0.downsample.1", "layer4.1.conv2"],
    ),
    "densenet121": (
        torchvision.models.densenet121,
        [
            "features.norm0",
            "features.denseblock1.denselayer2.conv1",
            "features.transition2.norm",
            "features.norm5",
        ],
    ),
    "googlenet": (
        lambda: torchvision.models.googlenet(init_weights=False),
        [
            "conv2.bn",
            "inception3a.branch1.conv",
            "inception4b.branch2.1.bn",
            "inception5b.branch4.0",
        ],
    ),
    "mobilenet_v3_small": (
        torchvision.models.mobilenet_v3_small,
        ["features.0.1", "features.1.block.1.fc1", "features.5.block.0.1", "features.12.2"],
    ),
    "vgg11": (vgg11, ["features.0", "features.1", "features.8", "features.19", "features.20"]),
}


@pytest.fixture(
    scope="module",
    params=[
        "resnet18",
        *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "resnet18"),
    ],
)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, list[str], Tensor]:
    torch.manual_seed(0)
    build, layers = MODELS[request.param]
    model = build().double().eval()
    return model, layers, torch.randn(2, 3, 64, 64, dtype=torch.float64)


def first(output: Tensor) -> Tensor:
    return output[:, 3:4]


@pytest.mark.slow
def test_gradients_are_those_of_plain_autograd(
    network: tuple[nn.Module, list[str], Tensor],
) -> None:
    model, layers, inputs = network
    plain = without_in_place(model)
    with torch.no_grad():
        expected = model(inputs)
    got = capture(model, inputs, layers, first)
    assert torch.equal(got.output, expected)
    assert set(got.activations) == set(got.gradients) == set(layers)
    for layer in layers:
        tail = Tail(plain, layer)
        (gradient,) = torch.autograd.grad(tail.run(inputs)[:, 3].sum(), tail.kept)
        assert relative(got.activations[layer], tail.kept) <= 1e-12, layer
        assert relative(got.gradients[layer][0], gradient) <= 1e-12, layer


@pytest.mark.slow
def test_frozen_or_not_alone_or_in_a_batch_all_layers_or_one(
    network: tuple[nn.Module, list[str], Tensor],
) -> None:
    model, layers, inputs = network
    together = capture(model, inputs, layers, first)
    model.requires_grad_(False)
    frozen = capture(model, inputs, layers, first)
    model.requires_grad_(True)
    alone = capture(model, inputs[1:], layers, first)
    for layer in layers:
        assert torch.equal(together.gradients[layer], frozen.gradients[layer])
        assert relative(alone.gradients[layer][:, 0], together.gradients[layer][:, 1]) <= 1e-9
        single = capture(model, inputs, [layer], first)
        assert relative(single.gradients[layer], together.gradients[layer]) <= 1e-12


def relative(got: Tensor, expected: Tensor | None) -> float:
    assert expected is not None
    assert got.shape == expected.shape
    scale = expected.abs().max()
    assert scale > 0
    return float((got - expected).abs().max().detach() / scale.detach())


# ---------------------------------------------------------------- targets


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 4)
    ).double()


IMAGES = torch.randn(2, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_several_targets_are_several_backwards_over_one_forward() -> None:
    model = small()
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    both = capture(model, IMAGES, ["0", "1"], lambda output: output[:, [0, 2]])
    assert len(runs) == 1
    for t, index in enumerate((0, 2)):
        one = capture(model, IMAGES, ["0", "1"], lambda output, i=index: output[:, i : i + 1])
        for layer in ("0", "1"):
            assert torch.equal(both.gradients[layer][t], one.gradients[layer][0])
    listed = capture(model, IMAGES, ["0"], lambda output: [output[:, 0].sum(), output[:, 2].sum()])
    assert torch.equal(listed.gradients["0"], both.gradients["0"])


def test_a_target_that_a_layer_does_not_reach_beside_one_that_it_does_has_gradient_zero() -> None:
    def score(output: Tensor) -> list[Tensor]:
        return [output[:, 0], torch.zeros(2, requires_grad=True), output[:, 1]]

    got = capture(small(), IMAGES, ["0"], score)
    assert [bool(g.abs().sum() > 0) for g in got.gradients["0"]] == [True, False, True]


# ---------------------------------------------------------------- graph and modes


def test_the_graph_begins_at_the_shallowest_layer_whose_gradient_is_asked_for() -> None:
    seen: dict[str, bool] = {}
    model = small()
    for name, module in model.named_children():
        module.register_forward_hook(
            lambda _m, _i, output, name=name: seen.__setitem__(name, output.requires_grad)
        )
    got = capture(model, IMAGES, ["0", "2"], first, gradients=["2"])
    assert seen == {"0": False, "1": False, "2": False, "3": True}
    assert set(got.activations) == {"0", "2"}
    assert set(got.gradients) == {"2"}
    capture(model, IMAGES, ["0", "2"], first, gradients=False)
    assert not any(seen.values())


def test_inputs_made_under_inference_mode_are_taken() -> None:
    expected = capture(small(), IMAGES, ["1"], first)
    with torch.inference_mode():
        inputs = IMAGES.clone()
        got = capture(small_outside, inputs, ["1"], first)
    assert torch.equal(got.gradients["1"], expected.gradients["1"])
    assert not got.gradients["1"].is_inference()


small_outside = small()


def test_inputs_that_require_grad_are_left_alone() -> None:
    inputs = IMAGES.clone().requires_grad_()
    capture(small(), inputs, ["0"], first)
    assert inputs.grad is None


# ---------------------------------------------------------------- unusual modules


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.again = self.relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.relu(x * 2 - 1)
        return self.relu(x * 3).sum((2, 3))


def test_calls_of_one_module_are_kept_apart() -> None:
    model = Reused()
    nn.init.ones_(model.conv.weight)
    inputs = torch.full((1, 1, 2, 2), 4.0)
    got = capture(model, inputs, ["relu#2", "relu", "relu#3", "relu#4"], lambda output: output)
    assert {name: float(a[0, 0, 0, 0]) for name, a in got.activations.items()} == {
        "relu": 4,
        "relu#2": 7,
        "relu#3": 21,
    }
    assert {name: float(g[0, 0, 0, 0, 0]) for name, g in got.gradients.items()} == {
        "relu": 6,
        "relu#2": 3,
        "relu#3": 1,
    }
    assert got.missing == {"relu#4": "its module is called 3 times only"}
    with pytest.raises(LayerError, match="'again' is the same module as 'relu'"):
        capture(model, inputs, ["again"], lambda output: output)


@dataclass
class Output:
    logits: Tensor
    note: str


class Boxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.split = Splitting()
        self.same = nn.Identity()
        self.wrap = Wrapping()
        self.aux = nn.Conv2d(1, 1, 1)
        self.side = nn.Identity()

    def forward(self, x: Tensor) -> Output:
        first, parts, count = self.split(x)
        y = self.same(first).add_(parts["b"] * 3)  # in place, on what two captured layers returned
        self.side(x)
        found = self.wrap(y)
        return Output(found.logits * count, found.note)


class Splitting(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        return x * 1, {"a": x * 2, "b": x * 5}, torch.tensor(2)


class Wrapping(nn.Module):
    def forward(self, x: Tensor) -> Output:
        return Output(x.sum((2, 3)), "note")


def test_containers_are_rebuilt_and_their_elements_named() -> None:
    model = Boxed()
    layers = ["split", "same", "wrap[logits]", "aux", "side", "wrap[note]"]
    got = capture(model, torch.ones(1, 1, 2, 2), layers, lambda output: output.logits)
    assert got.output.note == "note"
    assert got.output.logits.item() == 4 * (1 + 15) * 2
    assert {n: float(g.flatten()[0]) for n, g in got.gradients.items()} == {
        "split[0]": 2,
        "split[1][b]": 6,
        "same": 2,
        "wrap[logits]": 2,
    }
    assert float(got.activations["same"].flatten()[0]) == 1
    assert float(got.activations["split[1][a]"].flatten()[0]) == 2
    nowhere = (
        "no gradient reaches it: the explained output does not depend on it, or is detached from it"
    )
    assert got.missing == {
        "aux": "its module is never called (its work may be fused into another's)",
        "wrap[note]": "what it returns has no floating-point tensor at [note]",
        "split[1][a]": nowhere,
        "side": nowhere,
    }
    assert got.asked["split[0]"] == ("split",)
    alone = capture(model, torch.ones(1, 1, 2, 2), ["split[1][b]"], lambda o: o.logits)
    assert list(alone.gradients) == ["split[1][b]"]
    assert torch.equal(alone.gradients["split[1][b]"], got.gradients["split[1][b]"])


def test_a_layer_and_the_last_thing_inside_it_both_have_their_gradient() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    inputs = torch.randn(1, 3, 64, 64)
    got = capture(model, inputs, ["layer4", "layer4.1", "layer4.1.relu#2", "layer4.1.relu"], first)
    assert list(got.activations) == ["layer4.1.relu", "layer4.1.relu#2", "layer4.1", "layer4"]
    assert got.gradients["layer4"].abs().sum() > 0
    for name in ("layer4.1", "layer4.1.relu#2"):
        assert torch.equal(got.activations[name], got.activations["layer4"])
        assert torch.equal(got.gradients[name], got.gradients["layer4"])


class Spoiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        z = self.same(y)
        y.add_(1)  # what `same` returned is this very tensor
        return (z + y).sum((2, 3))


def test_an_output_that_is_written_to_afterwards_is_reported() -> None:
    got = capture(Spoiled(), torch.ones(1, 1, 2, 2), ["same"], lambda output: output)
    assert got.missing == {"same": "it is written to in place after its module returned it"}
    assert "same" not in got.activations


class NoGrad(nn.Module):
    def __init__(self, mode: Callable[[], Any]) -> None:
        super().__init__()
        self.mode = mode
        self.conv = nn.Conv2d(1, 1, 1)
        self.head = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        with self.mode():
            x = self.conv(x)
        return self.head(x.clone()).sum((2, 3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_part_that_switches_gradients_off_is_reported(mode: Callable[[], Any]) -> None:
    got = capture(NoGrad(mode), torch.ones(1, 1, 2, 2), ["conv", "head"], lambda output: output)
    assert list(got.gradients) == ["head"]
    assert got.missing["conv"].startswith("no gradient reaches it")


def test_a_vit_reports_its_fused_projection() -> None:
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=3)
    nn.init.normal_(model.heads.head.weight)
    block = "encoder.layers.encoder_layer_0"
    layers = [block, f"{block}.self_attention", f"{block}.self_attention.out_proj"]
    got = capture(model, torch.randn(1, 3, 32, 32), layers, lambda output: output[:, :1])
    assert list(got.activations) == [f"{block}.self_attention[0]", block]
    assert list(got.missing) == [f"{block}.self_attention.out_proj"]


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.inner = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh(), nn.Conv2d(2, 2, 1), nn.Tanh())
        self.checkpointed = True

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        run = partial(checkpoint, self.inner, use_reentrant=False)
        return (run(x) if self.checkpointed else self.inner(x)).mean((2, 3))


@pytest.mark.parametrize("layers", [["stem", "inner.1"], ["inner.0", "inner.2"], ["inner.3"]])
def test_checkpointed_blocks_give_the_same_gradients(layers: list[str]) -> None:
    torch.manual_seed(0)
    model = Checkpointed().double()
    with_checkpoint = capture(model, IMAGES, layers, lambda output: output)
    model.checkpointed = False
    plain = capture(model, IMAGES, layers, lambda output: output)
    for layer in layers:
        assert torch.equal(with_checkpoint.gradients[layer], plain.gradients[layer])


# ---------------------------------------------------------------- names


def test_unknown_names_say_which_are_close() -> None:
    model = torchvision.models.resnet18()
    with pytest.raises(LayerError, match=r"no layer 'layr4'; did you mean 'layer4'"):
        capture(model, torch.ones(1, 3, 32, 32), ["layr4"], first)
    with pytest.raises(LayerError, match="counts calls from 1"):
        capture(model, torch.ones(1, 3, 32, 32), ["layer4#0"], first)
    with pytest.raises(LayerError, match="'' is not a layer's name"):
        capture(model, torch.ones(1, 3, 32, 32), [""], first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_capture_never_waits_for_the_device() -> None:
    model = torchvision.models.resnet18().cuda()
    inputs = torch.randn(2, 3, 64, 64, device="cuda")
    with guest(model):  # as every run holds it; on leaving, values are compared
        capture(model, inputs, ["layer1", "layer4"], first)
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = capture(model, inputs, ["layer1", "layer4"], first)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert got.gradients["layer1"].abs().sum() > 0
