"""One backward shows which layers the output depends on, place by place."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from exporter.layers import choose_layers, run_trial
from exporter.layers.layout import Layout


def vit(head: bool = True) -> torchvision.models.VisionTransformer:
    torch.manual_seed(0)
    module = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=4)
    if head:
        nn.init.normal_(module.heads[-1].weight)
    return module


BLOCKS = {f"encoder.layers.encoder_layer_{n}" for n in (1, 2)}


def test_the_last_block_of_a_vit_is_not_reached_at_its_places() -> None:
    found = run_trial(vit(), torch.rand(1, 3, 32, 32)).reached
    assert found is not None
    assert found & BLOCKS == {"encoder.layers.encoder_layer_1"}


def test_a_head_of_zeros_says_nothing() -> None:
    assert run_trial(vit(head=False), torch.rand(1, 3, 32, 32)).reached is None


def test_the_last_block_is_taken_where_all_tokens_are_read() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit()

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.vit.encoder(
                torch.cat([self.vit.class_token, self.vit._process_input(x)], dim=1)
            )
            return self.vit.heads(tokens.mean(dim=1))

    names = choose_layers(run_trial(Pooled(), torch.rand(1, 3, 32, 32)), ["auto"]).names
    assert names[-1] == "vit.encoder.layers.encoder_layer_2"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_records_nothing_and_leaves_the_model_alone(mode: type) -> None:
    module = vit().train()
    with mode():
        assert run_trial(module, torch.rand(1, 3, 32, 32)).reached is not None
    assert module.training
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert not any(child._forward_hooks for child in module.modules())


def test_a_layer_off_the_path_is_not_taken() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.aside = nn.Conv2d(4, 4, 3, stride=2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            self.aside(x)
            return x.mean(dim=(2, 3))

    assert choose_layers(run_trial(Aside(), torch.rand(1, 3, 16, 16)), ["auto"]).names == ("first",)


def test_a_users_function_reads_what_the_shape_does_not_tell() -> None:
    class Rows(nn.Module):
        """Gives (N, C, L): tokens last, which no shape tells from tokens in the middle."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 4, stride=4)
            self.flat = nn.Flatten(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.flat(self.conv(x)).mean(dim=2)

    def reshape(tensor: Tensor) -> Tensor:
        return tensor.unflatten(2, (4, 4))

    choice = choose_layers(run_trial(Rows(), torch.rand(1, 3, 16, 16), reshape=reshape), ["flat"])
    assert choice.layouts["flat"] == Layout("given", 5, 4, 4, reshape=reshape)


def test_a_tensor_that_nothing_reads_from_a_containers_hand_is_not_reached() -> None:
    """As transformers' ConvNext: the head reads what was pooled, the map is handed on beside it."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, stride=2)
            self.stage = nn.Conv2d(6, 8, 3, stride=2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            seen = self.stage(self.stem(x).relu()).relu()
            return {"map": seen, "pooled": seen.mean(dim=(2, 3))}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Body()
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)["pooled"])

    torch.manual_seed(0)
    names = choose_layers(run_trial(Model(), torch.rand(1, 3, 33, 33)), ["auto"]).names
    assert names == ("body.stem", "body.stage")


def test_a_checkpointed_block_is_not_run_again_in_training() -> None:
    module = torchvision.models.DenseNet(8, (2, 2), 8, num_classes=4, memory_efficient=True).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    choose_layers(run_trial(module, torch.rand(2, 3, 64, 64)), ["auto"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
