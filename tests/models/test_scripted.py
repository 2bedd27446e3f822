"""TorchScript, retold as modules: the same numbers, at every layer, and hooks run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from exporter.errors import ModelError
from exporter.models import Retold, collect_kernels, retell

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


class Language(nn.Module):
    """Uses what the language has: loops, branches, lists, dicts, tuples, methods, functions."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.absent = nn.Conv2d(3, 3, 1, bias=False)

    def twice(self, x: Tensor, factor: float = 2.0) -> Tensor:
        return x * factor

    def forward(self, x: Tensor, start: int = 1) -> dict[str, Tensor]:
        every: list[Tensor] = []
        for index, conv in enumerate(self.convs):
            x = nn.functional.leaky_relu(conv(x), 0.1) * (index + 1)
            if x.mean() > 0 and len(every) < 2:
                every.append(self.twice(x))
            else:
                every.append(self.twice(x, factor=0.5))
        total = torch.zeros_like(x)
        for index in range(start, len(every)):
            total = total + every[index]
        while bool(total.abs().max() > 1):
            total = total / 2
        pair = (self.absent(total), every[-1])
        named = {"first": pair[0], "last": pair[1][:, 1:]}
        named["sum"] = named["first"].sum() + float(len(named.keys()))
        return named


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 12, [1, 2], [2, 3], [4, 4], num_classes=5)


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)


def densenet() -> nn.Module:
    return torchvision.models.DenseNet(8, (2, 2), 8, num_classes=5)


def named(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=5)


def outputs(module: nn.Module, images: Tensor) -> tuple[Any, dict[str, list[Tensor]]]:
    """Return what a model gives, and by layer what each of its calls gives."""
    found: dict[str, list[Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.setdefault(name, []).append(output.clone())

        return hook

    handles = [child.register_forward_hook(note(name)) for name, child in module.named_modules()]
    with torch.no_grad():
        given = module(images)
    for handle in handles:
        handle.remove()
    return given, found


@pytest.mark.parametrize(
    "build",
    [densenet, swin, vit, *map(named, ("shufflenet_v2_x0_5", "mobilenet_v3_small"))],
)
@pytest.mark.parametrize("way", ["script", "trace"])
def test_every_layer_gives_what_it_gave(build: Callable[[], nn.Module], way: str) -> None:
    torch.manual_seed(0)
    module = build().eval()
    images = torch.rand(2, 3, 32, 32)
    if way == "script":
        scripted = torch.jit.script(module)
    else:
        scripted = torch.jit.trace(module, images, check_trace=False)
    _, layers = outputs(module, images)
    retold = retell(scripted)
    found, seen = outputs(retold, images)
    with torch.no_grad():
        assert torch.equal(found, scripted(images))
    # A trace leaves out calls of modules that do nothing, and Python those of lists of modules.
    able = {name for name, one in module.named_modules() if list(one.parameters(recurse=False))}
    assert able & layers.keys() <= seen.keys()
    for name in layers.keys() & seen.keys():
        for one, other in zip(seen[name], layers[name], strict=True):
            torch.testing.assert_close(one, other, msg=name)
    assert type(retold).__name__ == type(module).__name__
    assert dict(retold.named_parameters()).keys() == dict(module.named_parameters()).keys()


def test_the_language_is_followed() -> None:
    torch.manual_seed(0)
    for seed in range(4):
        module = Language().eval()
        scripted = torch.jit.script(module)
        images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        for arguments in ({}, {"start": 2}):
            expected, found = scripted(images, **arguments), retell(scripted)(images, **arguments)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_mode_is_the_modules_own_and_copies_share_graphs() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)))
    images = torch.rand(1, 3, 8, 8)
    retold = retell(scripted)
    assert isinstance(retold, Retold)
    assert retold.training
    assert scripted.training
    retold.eval()
    assert scripted.training
    assert torch.equal(retold(images), scripted[0](images))
    twin = copy.deepcopy(retold)
    assert torch.equal(twin(images), retold(images))
    with torch.no_grad():
        next(scripted.parameters()).zero_()
    assert not next(retold.parameters()).any()
    assert next(twin.parameters()).any()


def test_any_other_module_is_returned_as_it_is() -> None:
    module = nn.Linear(2, 2)
    assert retell(module) is module


def test_what_cannot_be_followed_is_said() -> None:
    class Forked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.jit.wait(torch.jit.fork(torch.relu, x))

    retold = retell(torch.jit.script(Forked()))
    with pytest.raises(ModelError, match="uses prim::fork, which cannot be followed"):
        retold(torch.rand(1))


def test_kernels_lie_as_those_of_the_module_it_was_made_from() -> None:
    for groups in (1, 2):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 3, groups=groups))
        (first, second) = collect_kernels(module, ["all"])
        (one, other) = collect_kernels(retell(torch.jit.script(module)), ["all"])
        assert (one.type, other.type) == ("Conv2d", "ConvTranspose2d")
        assert one.values.tolist() == first.values.tolist()
        assert other.values.tolist() == second.values.tolist()
