"""A plane only with evidence: the types that take and give it, or a patch that it follows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import exporter
from exporter.errors import ExporterError, LayerError, MapWarning, NoLayerError
from exporter.layers import Layout, Trial, choose_layers, run_trial
from exporter.layers.askew import lies_askew
from exporter.layers.planes import Planes


def trial_of(module: nn.Module, *shape: int) -> Trial:
    return run_trial(module, torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))


def auto(module: nn.Module, *shape: int) -> tuple[str, ...]:
    return choose_layers(trial_of(module, *shape), ["auto"]).names


class Recurrent(nn.Module):
    """Columns of a convolution, read one after the other: 16 of them are not 4 × 4."""

    def __init__(self, kind: type[nn.RNNBase], stride: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride, 1)
        self.rnn = kind(8, 12, batch_first=True, bidirectional=kind is nn.GRU)
        self.fc = nn.Linear(12 * (1 + self.rnn.bidirectional), 5)

    def forward(self, x: Tensor) -> Tensor:
        read, _ = self.rnn(self.conv(x).mean(2).mT)
        return self.fc(read[:, -1])


class Transformer(nn.Module):
    """Patches of 8 × 8 with tokens before and after them, moved about or left out on the way."""

    def __init__(
        self, before: int = 0, after: int = 0, *, order: slice | Tensor | None = None
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = nn.Conv2d(3, 16, 8, 8)
        self.own = nn.Parameter(torch.randn(1, before + after, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(16, 5)
        self.before, self.order = before, slice(None) if order is None else order

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).mT[:, self.order]
        own = self.own.expand(len(x), -1, -1)
        tokens = torch.cat((own[:, : self.before], tokens, own[:, self.before :]), 1)
        return self.fc(self.blocks(tokens).square().mean(1))


class Queries(nn.Module):
    """A decoder of 100 queries, which are no plane of 10 × 10."""

    def __init__(self, queries: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 8, 8)
        self.queries = nn.Parameter(torch.randn(1, queries, 16))
        layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.conv(x).flatten(2).mT
        return self.fc(self.decoder(self.queries.expand(len(x), -1, -1), memory)).amax(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "side", "named"),
    [
        (lambda: Recurrent(nn.LSTM, 4), 64, "rnn[0]"),
        (lambda: Recurrent(nn.GRU, 4), 64, "rnn[0]"),
        (lambda: Recurrent(nn.RNN, 2), 32, "rnn[0]"),
        (lambda: Recurrent(nn.LSTM, 4), 100, "rnn[0]"),
        (lambda: Queries(100), 64, "decoder.layers.1"),
        pytest.param(lambda: Queries(64), 64, "decoder.layers.1", marks=pytest.mark.slow),
        (lambda: Queries(17), 64, "decoder.layers.0"),
    ],
)
def test_a_number_that_fits_a_square_is_no_plane(
    build: Callable[[], nn.Module], side: int, named: str
) -> None:
    module = build()
    assert auto(module, 3, side, side) == ("conv",)
    with pytest.raises(LayerError, match="nothing shows that they are a grid"):
        choose_layers(trial_of(module, 3, side, side), [named])
    with pytest.raises(LayerError, match="is not a plane"):
        exporter.compute_maps(module, torch.rand(2, 3, side, side), layers=[named])


class Sequence(nn.Module):
    """A plane as rows of another kind, and what reads them."""

    def __init__(self, inner: nn.Module, laid: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.laid = inner, laid

    def forward(self, x: Tensor) -> Tensor:
        given = self.inner(self.laid(x))
        return given[0] if isinstance(given, tuple) else given.flatten(2)


class Rows(nn.Module):
    """A head of such rows behind a convolution."""

    def __init__(self, inner: nn.Module, laid: Callable[[Tensor], Tensor], mean: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.rows = nn.Conv2d(3, 16, 4, 4), Sequence(inner, laid)
        self.mean, self.fc = mean, nn.LazyLinear(5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": self.fc(self.rows(self.conv(x)).square().mean(self.mean))}


@pytest.mark.parametrize(
    ("inner", "laid", "mean", "side"),
    [
        (nn.Conv2d(16, 20, 1), lambda x: x, 2, 64),  # 20 classes at 256 positions
        (nn.Conv2d(16, 6, 1), lambda x: x, 2, 64),
        (nn.Conv2d(16, 16, 1), lambda x: x, 2, 32),
        (nn.Conv1d(16, 64, 1), lambda x: x.flatten(2), 2, 32),  # as many channels as positions
        (nn.Conv1d(16, 9, 5, 2), lambda x: x.mean(3), 2, 64),
        (nn.Linear(256, 49), lambda x: x.flatten(2), 1, 64),
        (nn.LSTM(16, 25), lambda x: x.mean(2).permute(2, 0, 1), 0, 64),  # the images second
        (nn.GRU(64, 8, batch_first=True), lambda x: x.permute(0, 2, 1, 3).flatten(2), 1, 16),
    ],
)
def test_rows_that_are_no_tokens_are_no_plane(
    inner: nn.Module, laid: Callable[[Tensor], Tensor], mean: int, side: int
) -> None:
    module = Rows(inner, laid, mean).eval()
    module(torch.rand(1, 3, side, side))
    choice = choose_layers(trial_of(module, 3, side, side), ["auto"])
    assert {layout.kind for layout in choice.layouts.values()} == {"nchw"}
    assert "rows" not in choice.names
    with pytest.raises(LayerError, match=r"nothing shows that they are a grid|is not a plane"):
        choose_layers(trial_of(module, 3, side, side), ["rows"])
    with pytest.raises(LayerError, match="is not a plane"):
        exporter.compute_maps(module, torch.rand(2, 3, side, side), layers=["rows"])


@pytest.mark.parametrize(
    "order",
    [
        torch.randperm(64, generator=torch.Generator().manual_seed(1)),
        torch.arange(63, -1, -1),
        torch.arange(64).view(8, 8).mT.flatten(),
        slice(None, None, 4),
        slice(0, 49),
    ],
)
def test_patches_that_are_moved_about_or_left_out_are_no_plane(order: slice | Tensor) -> None:
    with pytest.raises(NoLayerError, match="tokens, and nothing shows that they are a grid"):
        auto(Transformer(order=order), 3, 64, 64)


def windows(side: int) -> Tensor:
    grid = torch.arange(256).view(16 // side, side, 16 // side, side)
    return grid.transpose(1, 2).flatten()


def to_and_fro() -> Tensor:
    grid = torch.arange(256).view(16, 16)
    grid[1::2] = grid[1::2].flip(1)
    return grid.flatten()


@pytest.mark.parametrize(
    "order", [windows(2), windows(4), windows(8), windows(4)[windows(2).argsort()], to_and_fro()]
)
def test_patches_in_the_order_of_windows_or_to_and_fro_are_no_plane(order: Tensor) -> None:
    """Half of each patch lies where rows of 16 would have it."""
    with pytest.raises(NoLayerError, match="tokens, and nothing shows that they are a grid"):
        auto(Transformer(order=order), 3, 128, 128)
    with pytest.raises(LayerError, match="is not a plane"):
        exporter.compute_maps(
            Transformer(order=order), torch.rand(1, 3, 128, 128), layers=["blocks.layers.0"]
        )


@pytest.mark.parametrize(
    ("before", "after", "shape"),
    [
        (0, 0, (32, 32)),
        (1, 0, (32, 32)),
        (0, 1, (32, 32)),
        (5, 0, (64, 64)),
        (2, 3, (64, 32)),
        (1, 7, (64, 64)),
        (8, 0, (48, 64)),
        (1, 13, (64, 64)),
        (0, 30, (64, 64)),
    ],
)
def test_tokens_that_follow_the_image_are_read_where_they_are(
    before: int, after: int, shape: tuple[int, int]
) -> None:
    module = Transformer(before, after)
    choice = choose_layers(trial_of(module, 3, *shape), ["auto"])
    assert choice.names == ("blocks.layers.0", "blocks.layers.1")
    height, width = shape[0] // 8, shape[1] // 8
    layout = choice.layouts["blocks.layers.1"]
    assert layout == Layout("tokens", 16, height, width, prefix=before)
    tokens = torch.rand(2, before + height * width + after, 16)
    inside = tokens[:, before : before + height * width]
    expected = inside.mT.reshape(2, 16, height, width)
    assert torch.equal(layout.spatial(tokens), expected)


class Gated(Transformer):
    """Tokens that are measured, and a gate of one pixel, whose activation nothing tells."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.act(x.mean((2, 3), keepdim=True)).sigmoid())


def test_one_pixel_whose_layout_nothing_tells_is_left_alone() -> None:
    assert auto(Gated(), 3, 64, 64) == ("blocks.layers.0", "blocks.layers.1")


class Mixed(nn.Module):
    """Patches whose block mixes all places; the layer inside it still follows each."""

    def __init__(self, *, queries: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch_embed = nn.Conv2d(3, 16, 8, 8)
        self.block = nn.Module()
        self.block.norm = nn.LayerNorm(16)
        self.block.forward = self.mix
        self.asked = nn.Parameter(torch.randn(64, 64))
        self.query = nn.Identity() if queries else None
        self.fc = nn.Linear(16, 5)

    def mix(self, tokens: Tensor) -> Tensor:
        mixed = 10 * (self.asked @ self.block.norm(tokens))
        return mixed if self.query is None else self.query(mixed)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.patch_embed(x).flatten(2).mT).square().mean(1))


def test_a_block_that_mixes_lies_as_the_last_layer_inside_it() -> None:
    plane = trial_of(Mixed(), 3, 64, 64).planes["block"].layout
    assert plane == Layout("tokens", 16, 8, 8)
    assert plane.evidence == (
        "as block.norm inside it, whose 64 tokens follow a moved patch as 8×8"
    )


def test_a_block_that_ends_with_queries_lies_as_nothing_inside_it() -> None:
    planes = trial_of(Mixed(queries=True), 3, 64, 64).planes
    assert planes["block.norm"].layout.shown
    assert not planes["block"].layout.shown


class BatchSecond(Transformer):
    """The same encoder on (L, N, C), as PyTorch's own does by default."""

    def __init__(self, *, first: bool) -> None:
        super().__init__(1)
        self.first = first
        for layer in self.blocks.layers:
            layer.self_attn.batch_first = first

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).mT
        tokens = torch.cat((self.own.expand(len(x), -1, -1), tokens), 1)
        read = self.blocks(tokens) if self.first else self.blocks(tokens.mT.permute(2, 0, 1))
        return self.fc(read.square().mean(1 if self.first else 0))


class Attending(nn.Module):
    """A block of one's own: attention and what follows, each with a path around it."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 2, batch_first=first)
        self.rest = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attend(tokens, tokens, tokens)[0]
        return tokens + self.rest(tokens)


class Gathering(nn.Module):
    """A block without attention: every token takes its neighbour's part."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.tokens, self.rest = int(first), nn.Linear(16, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.rest(tokens + tokens.roll(1, self.tokens)).tanh()


class Own(BatchSecond):
    """The encoder of other blocks."""

    def __init__(self, block: Callable[..., nn.Module], *, first: bool) -> None:
        super().__init__(first=first)
        torch.manual_seed(2)
        self.blocks = nn.Module()
        self.blocks.layers = nn.Sequential(block(first=first), block(first=first))
        self.blocks.forward = self.blocks.layers.forward


@pytest.mark.parametrize("block", [Attending, Gathering])
@pytest.mark.parametrize("images", [2, 17])
def test_so_are_those_of_other_blocks(block: Callable[..., nn.Module], images: int) -> None:
    pictures = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    asked = {"maps": ["gradcam"], "layers": ["auto"]}
    expected = exporter.compute_maps(Own(block, first=True), pictures, **asked)
    second = exporter.compute_maps(Own(block, first=False), pictures, **asked)
    assert [layer for _, layer in expected] == ["blocks.layers.0", "blocks.layers.1"]
    for key, values in expected.items():
        torch.testing.assert_close(second[key], values, atol=1e-6, rtol=1e-4)


def by_hand(tokens: Tensor) -> Tensor:
    return tokens[1:].permute(1, 2, 0).unflatten(2, (4, 4))


@pytest.mark.parametrize("images", [1, 3, 16, 17])
@pytest.mark.parametrize("reshape", [None, by_hand])
def test_tokens_with_the_images_second_are_those_of_the_twin(
    images: int, reshape: Callable[[Tensor], Tensor] | None
) -> None:
    pictures = torch.rand(images, 3, 32, 32)
    layers = ["blocks.layers.0", "blocks.layers.1"]
    maps = ["gradcam", "ablationcam"]
    expected = exporter.compute_maps(BatchSecond(first=True), pictures, maps=maps, layers=layers)
    second = exporter.compute_maps(
        BatchSecond(first=False), pictures, maps=maps, layers=layers, reshape=reshape
    )
    for key, values in expected.items():
        torch.testing.assert_close(second[key], values, atol=1e-6, rtol=1e-4)


def test_auto_takes_tokens_with_the_images_second_and_says_so() -> None:
    choice = choose_layers(trial_of(BatchSecond(first=False), 3, 32, 32), ["auto"])
    assert choice.names == ("blocks.layers.0", "blocks.layers.1")
    assert choice.layouts["blocks.layers.0"].axis == 1
    assert choice.layouts["blocks.layers.0"].evidence == (
        "17 tokens (1 before of their own) follow a moved patch as 4×4, images on the second axis"
    )


def strided(*strides: tuple[int, int], channels: int = 8, inputs: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for stride in strides:
        layers += [nn.Conv2d(inputs, channels, 3, stride, 1), nn.ReLU()]
        inputs = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


@pytest.mark.parametrize(
    ("module", "shape", "grids"),
    [
        (strided((1, 2), channels=64), (1, 64, 64), [(64, 32)]),
        (strided((2, 1), channels=32), (1, 64, 64), [(32, 64)]),
        (strided((2, 1), (2, 1), (2, 1)), (1, 64, 64), [(32, 64), (16, 64), (8, 64)]),
        (
            strided((2, 2), (2, 2), (2, 1), (4, 1)),
            (1, 32, 128),
            [(16, 64), (8, 32), (4, 32), (1, 32)],
        ),
        (strided((1, 4), (1, 4), (22, 1)), (1, 22, 1000), [(22, 250), (22, 63), (1, 63)]),
        (strided((4, 4), (1, 16), channels=11, inputs=3), (3, 240, 64), [(60, 16), (60, 1)]),
    ],
)
def test_strides_in_one_direction_leave_channels_first_and_the_deepest_stage(
    module: nn.Module, shape: tuple[int, ...], grids: list[tuple[int, int]]
) -> None:
    choice = choose_layers(trial_of(module, *shape), ["auto"])
    assert [(each.height, each.width) for each in choice.layouts.values()] == grids
    maps = exporter.compute_maps(module, torch.rand(2, *shape), maps=["gradcam"], layers=["1"])
    assert tuple(maps["gradcam", "1"].shape) == (2, *grids[0])


SMALL: Mapping[str, Mapping[str, Any]] = {
    "swin_tiny_patch4_window7_224": {
        **{"img_size": 128, "window_size": 4, "embed_dim": 16},
        **{"depths": (1, 2, 2, 2), "num_heads": (1, 2, 2, 2)},
    },
    "davit_tiny": {
        **{"depths": (1, 1, 2, 1), "embed_dims": (16, 16, 32, 32), "window_size": 4},
        **{"num_heads": (1, 2, 2, 2)},
    },
    "twins_pcpvt_small": {
        **{"img_size": 128, "depths": (2, 2, 2, 2), "embed_dims": (16, 16, 32, 32)},
        **{"num_heads": (1, 1, 2, 2)},
    },
}


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("swin_tiny_patch4_window7_224", ("layers.0", "layers.1", "layers.2", "norm")),
        pytest.param(
            "davit_tiny", ("stages.0", "stages.1", "stages.2", "stages"), marks=pytest.mark.slow
        ),
        pytest.param(
            "twins_pcpvt_small",
            ("blocks.0.1", "blocks.1.1", "blocks.2.1", "blocks.3.1"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_auto_of_stages_of_tokens_ends_with_their_blocks(
    name: str, layers: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, **SMALL[name])
    choice = choose_layers(trial_of(module, 3, 128, 128), ["auto"])
    assert choice.names == layers
    assert choice.reason == (
        "auto: the last layer of each of the 4 deepest resolutions, 32×32, 16×16, 8×8, 4×4"
    )


class Stages(Transformer):
    """A second stage of fewer tokens, each of which looks at all of the first."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.deeper = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.register_buffer("looks", torch.rand(16, 64) / 64)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.looks @ self.blocks(self.patch_embed(x).flatten(2).mT)
        return self.fc(self.deeper(tokens).square().mean(1))


def test_blocks_left_out_because_nothing_shows_their_grid_are_named_in_the_reason() -> None:
    choice = choose_layers(trial_of(Stages(), 3, 64, 64), ["auto"])
    assert choice.names == ("blocks.layers.0", "blocks.layers.1")
    assert choice.reason == (
        "auto: 2 of the 2 blocks, evenly spaced, 8×8; left out: layers of 16 tokens, which nothing "
        "shows to be a grid"
    )
    assert "left out" not in choose_layers(trial_of(Transformer(), 3, 64, 64), ["auto"]).reason


def test_tokens_that_nothing_shows_are_refused_beside_an_attention_that_is_read() -> None:
    module, images = Stages(), torch.rand(1, 3, 64, 64)
    planes = Planes(module)
    assert planes.grid_of(64, images) == Layout("tokens", 16, 8, 8)
    with pytest.raises(LayerError, match="is not a plane"):
        planes.read("deeper.layers.0", torch.rand(1, 16, 16), images)


def test_a_lone_layer_of_tokens_is_called_no_block() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.patches(x).flatten(2).mT).square().mean(1)

    choice = choose_layers(trial_of(Rows(), 3, 64, 64), ["auto"])
    assert choice.reason == "auto: the last layer that gives tokens, 16×16"


def test_what_is_read_by_its_shape_alone_is_named_in_a_note_and_never_taken_by_itself() -> None:
    class Random(nn.Module):
        """Its plane comes from no image."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 3, 7, 9) * x.mean((1, 2, 3)).view(-1, 1, 1, 1)

    module = nn.Sequential(Random(), nn.Flatten(), nn.Linear(189, 3))
    assert choose_layers(trial_of(module, 3, 32, 32), ["0"]).notes == (
        "0 is read as a plane of 7×9 from its shape alone (its last two axes, 7×9, fit the input's "
        "proportions best), which nothing else confirms; --reshape says how to read it",
    )
    with pytest.raises(NoLayerError):
        auto(module, 3, 32, 32)


def last_channels() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.PixelUnshuffle(4), Last(), nn.Linear(48, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(),
        Mean(), nn.Linear(8, 4),
    )  # fmt: skip


class Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


class Turned(nn.Module):
    """A model that is shown something else than the image as it lies."""

    def __init__(
        self, turn: Callable[[Tensor], Tensor], net: Callable[[], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.net = strided((2, 2), (2, 2), inputs=3) if net is None else net()
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.turn(x))


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x.flip(-1),
        lambda x: x.flip(-2),
        lambda x: x.mT,
        lambda x: x.rot90(1, (2, 3)),
        lambda x: x.rot90(2, (2, 3)),
        lambda x: x[:, :, :32, 16:48],
        lambda x: nn.functional.pad(x, (0, 0, 0, 64)),
        lambda x: x.roll(20, 3),
    ],
)
def test_a_model_that_turns_or_cuts_its_image_has_no_plane_by_type(
    turn: Callable[[Tensor], Tensor],
) -> None:
    module = Turned(turn)
    said = "turns, mirrors, cuts or mixes the image before its first layer"
    with pytest.raises(NoLayerError, match=f"{said}, and nothing shows where"):
        auto(module, 3, 64, 64)
    (note,) = choose_layers(trial_of(module, 3, 64, 64), ["net.1"]).notes
    assert f"from its shape alone (the model {said})" in note
    with pytest.raises(NoLayerError, match="nothing shows where its planes lie"):
        auto(Turned(turn, last_channels), 3, 64, 64)


@pytest.mark.parametrize(
    ("side", "kernel", "stride"),
    [(8, 3, 1), (8, 5, 1), (16, 9, 1), (28, 5, 1), (32, 7, 4), (32, 9, 3), (96, 16, 16)],
)
@pytest.mark.parametrize("channels", [1, 8])
def test_a_convolution_without_a_padding_sees_the_image_as_it_lies(
    side: int, kernel: int, stride: int, channels: int
) -> None:
    """Its quarter sees half a kernel further, and in a few rows the centroid depends on chance."""
    for seed in range(10):
        torch.manual_seed(seed)
        image = torch.rand(1, 3, side, side, requires_grad=True)
        convolution = nn.Conv2d(3, channels, kernel, stride)
        plane = convolution(image)
        planes = [plane] if seed % 3 else [plane, plane.relu()]
        assert not any(lies_askew(each, image) for each in planes), seed
        assert lies_askew(convolution(image.flip(-1)), image), seed
        assert lies_askew(convolution(image.mT.flip(-1)), image), seed


def test_a_trial_on_shapes_alone_says_nothing_of_how_planes_lie() -> None:
    with torch.device("meta"):
        net, image = strided((2, 2), (2, 2), inputs=3), torch.empty(1, 3, 64, 64)
    trial = run_trial(net, image)
    assert {name: plane.layout.kind for name, plane in trial.planes.items()}["1"] == "nchw"
    assert not lies_askew(net[1](net[0](image.requires_grad_())), image)


class TurnedLater(nn.Module):
    """Planes that a model turns between two layers, and perhaps turns back."""

    def __init__(
        self,
        turn: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor] = lambda x: x,
        *,
        last: bool = False,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.turn, self.back = nn.Conv2d(3, 8, 3, 2, 1), turn, back
        self.second = nn.Sequential(
            nn.Linear(8, 8) if last else nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()
        )
        self.third, self.fc, self.last = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 5), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.turn(self.first(x))
        x = self.second(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.last else self.second(x)
        return self.fc(self.third(self.back(x)).square().mean((2, 3)))


@pytest.mark.parametrize(
    ("turn", "back"),
    [
        (lambda x: x.mT, lambda x: x.mT),
        (lambda x: x.flip(-1), lambda x: x.flip(-1)),
        (lambda x: x.rot90(1, (2, 3)), lambda x: x.rot90(-1, (2, 3))),
        (lambda x: x.permute(0, 1, 3, 2).flip(2, 3), lambda x: x.flip(2, 3).permute(0, 1, 3, 2)),
    ],
)
@pytest.mark.parametrize(("size", "last"), [((64, 64), False), ((64, 96), False), ((64, 64), True)])
def test_a_plane_that_is_turned_on_the_way_is_none_by_type(
    turn: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    last: bool,
    size: tuple[int, int],
) -> None:
    assert auto(TurnedLater(turn, last=last), 3, *size) == ("first",)
    module = TurnedLater(turn, back, last=last)
    assert auto(module, 3, *size) == ("first", "third")
    (note,) = choose_layers(trial_of(module, 3, *size), ["second"]).notes
    assert "(it follows a moved patch only where its plane is turned or mirrored)" in note
    with pytest.warns(MapWarning, match="second is read as .* turned or mirrored.* reshape= says"):
        exporter.compute_maps(module, torch.rand(1, 3, *size), layers=["second"])


@pytest.mark.parametrize(
    "frequencies",
    [
        lambda x: torch.fft.rfft2(x).abs(),
        lambda x: torch.fft.fft2(x).real,
        lambda x: torch.fft.fftshift(torch.fft.fft(x).abs()),
        lambda x: torch.fft.ifft2(x).abs(),
    ],
)
def test_a_plane_of_frequencies_is_none_by_type(frequencies: Callable[[Tensor], Tensor]) -> None:
    module = TurnedLater(frequencies)
    assert auto(module, 3, 64, 64) == ("first",)
    (note,) = choose_layers(trial_of(module, 3, 64, 64), ["second"]).notes
    assert "(it does not follow a moved patch, and the model computes frequencies on the" in note


@pytest.mark.parametrize("pass_", [0.5, 1.0])
def test_what_is_filtered_by_its_frequencies_lies_as_it_did(pass_: float) -> None:
    def filtered(x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        kept = int(pass_ * spectrum.shape[3])
        spectrum[..., kept:] = 0
        return torch.fft.irfft2(spectrum, s=x.shape[-2:])

    assert auto(TurnedLater(filtered), 3, 64, 64) == ("second", "third")


@pytest.mark.parametrize("net", [strided((2, 2), (2, 2), inputs=3), last_channels()])
def test_how_a_layer_that_is_named_in_python_lies_is_shown_as_in_a_run(net: nn.Module) -> None:
    images = torch.rand(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exporter.compute_maps(net, images, layers=["0"])
    with pytest.warns(MapWarning, match="from its shape alone .*mirrors, cuts or mixes the image"):
        exporter.compute_maps(Turned(lambda x: x.flip(-1), lambda: net), images, layers=["net.0"])


def test_heads_weights_that_are_named_are_said_to_be_read_by_their_shape() -> None:
    module = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2)
    for block in module.blocks:
        block.attn.fused_attn = False
    with pytest.warns(MapWarning, match="17×17 from its shape alone .*nothing else confirms"):
        exporter.compute_maps(module, torch.rand(1, 3, 64, 64), layers=["blocks.1.attn.attn_drop"])


@pytest.mark.parametrize("mirrored", [0, 1])
def test_of_a_layer_that_sees_a_mirrored_image_too_the_call_that_follows_is_taken(
    mirrored: int,
) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            net = strided((2, 2), (2, 2), inputs=3)
            self.trunk, self.head = net[:4], net[4:]

        def forward(self, x: Tensor) -> Tensor:
            views = [x, x]
            views[mirrored] = x.flip(-1)
            return self.head(self.trunk(views[0])) + self.head(self.trunk(views[1]))

    straight = "" if mirrored else "#2"
    assert auto(Twice(), 3, 64, 64) == (f"trunk{straight}",)


def test_a_model_that_runs_pairs_as_one_batch_has_no_plane_for_each_image() -> None:
    class Pairs(Turned):
        def forward(self, x: Tensor) -> Tensor:
            return sum(self.net(torch.cat((x, x.flip(-1)))).chunk(2))

    with pytest.raises(NoLayerError, match="none gives a plane of more than one pixel for each im"):
        auto(Pairs(lambda x: x), 3, 64, 64)


@pytest.mark.parametrize(
    "turn",
    [
        lambda x: x,
        lambda x: nn.functional.interpolate(x, (96, 80)),
        lambda x: x - x.mean((2, 3), keepdim=True),
        lambda x: nn.functional.pad(x, (2, 2, 2, 2)),
        lambda x: x[:, :, 2:-2, 2:-2],
        lambda x: x * torch.linspace(1, 0.2, 64),
    ],
)
def test_one_that_scales_or_trims_it_has(turn: Callable[[Tensor], Tensor]) -> None:
    assert auto(Turned(turn), 3, 64, 64) == ("net.1", "net.3")
    assert auto(Turned(turn, last_channels), 3, 64, 64) == ("net.5",)


def test_how_tokens_lie_is_measured_once_for_a_model_and_a_size() -> None:
    module, calls = Transformer(), []
    given = module.patch_embed.forward

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return given(x)

    module.patch_embed.forward = counted
    counts = []
    for side in (32, 32, 64, 64, 32):
        calls.clear()
        exporter.compute_maps(module, torch.rand(2, 3, side, side), layers=["blocks.layers.0"])
        counts.append(len(calls))
    # One image, one batch of patches, and what is asked for.
    assert counts == [3, 1, 3, 1, 1]


@pytest.mark.parametrize("method", ["gradcam", "rollout"])
def test_what_kept_a_patch_from_showing_it_is_said(method: str) -> None:
    """The model fails where an image has a patch, and nothing else tells how its tokens lie."""
    module = Transformer(1)
    first: list[Tensor] = []

    def fail(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        first[:] = first or [inputs[0][:1].clone()]
        if not bool((inputs[0] == first[0]).all()):
            raise RuntimeError("only this image")

    module.register_forward_pre_hook(fail)
    with pytest.raises(ExporterError, match=r"a patch on its image the model failed.*only this"):
        exporter.compute_maps(
            module, torch.rand(1, 3, 32, 32), maps=[method], layers=["blocks.layers.0"]
        )


def test_an_image_that_shows_nothing_keeps_no_later_one_from_showing_it() -> None:
    class Gated(Transformer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * (x.mean((1, 2, 3), keepdim=True) > 0))

    module, light = Gated(1), torch.rand(1, 3, 32, 32)
    with pytest.raises(LayerError, match="is not a plane"):
        exporter.compute_maps(module, light - 9, layers=["blocks.layers.0"])
    maps = exporter.compute_maps(module, light, layers=["blocks.layers.0"])
    assert maps["gradcam", "blocks.layers.0"].shape == (1, 4, 4)
