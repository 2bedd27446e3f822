"""Small models out of odd parts, drawn by hypothesis, that know how their layers lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Doubled(torch.autograd.Function):
    """A function of the user's own, with its derivative."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


class Stopped(Doubled):
    """One that gives no gradient."""

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> None:  # type: ignore[override]
        return None


@dataclass
class Held:
    """What a part may return around its tensor."""

    features: Tensor
    other: int = 3


class Part(nn.Module):
    """A convolution, and something odd done to what it gives."""

    def __init__(self, kind: str, channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(channels, channels, 3, stride, 1)
        self.act = nn.ReLU(inplace=kind == "in place")
        self.norm = nn.BatchNorm2d(channels)
        self.again = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        return WAYS[self.kind](self, x)


def overwritten(part: Part, x: Tensor) -> Tensor:
    gate = x.sigmoid()
    y = gate.exp() + part.act(x)
    gate.mul_(2)
    return y * gate


def side(part: Part, x: Tensor) -> Tensor:
    with torch.no_grad():
        aside = part.again(x)
    return part.act(x) + aside


WAYS: dict[str, Callable[[Part, Tensor], Any]] = {
    "plain": lambda part, x: part.act(x),
    "in place": lambda part, x: part.act(part.norm(x)).mul_(2),
    "residual": lambda part, x: x + part.act(part.again(x)),
    "shared": lambda part, x: part.act(part.again(part.act(part.again(x)))),
    "tuple": lambda part, x: (part.act(x), x.mean()),
    "mapping": lambda part, x: {"features": part.act(x), "name": "mapping"},
    "dataclass": lambda part, x: Held(part.act(x)),
    "function": lambda part, x: Doubled.apply(part.act(x)),
    "stopped": lambda part, x: Stopped.apply(part.act(x)),
    "detached": lambda part, x: part.act(x).detach(),
    "side": side,
    "checkpoint": lambda part, x: checkpoint(part.again, x, use_reentrant=False),
    "reentrant": lambda part, x: checkpoint(part.again, x, use_reentrant=True),
    "overwritten": overwritten,
    "functional": lambda part, x: nn.functional.max_pool2d(x.relu(), 3, 1, 1),
    "gated": lambda part, x: x * part.again(x).mean((2, 3), keepdim=True).sigmoid(),
    "shuffled channels": lambda part, x: part.act(
        x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    ),
}


def tensor_of(returned: Any) -> Tensor:
    """Return the features of a part."""
    if isinstance(returned, tuple):
        return returned[0]
    if isinstance(returned, dict):
        return returned["features"]
    return returned.features if isinstance(returned, Held) else returned


@dataclass(frozen=True)
class Spec:
    """What a model is made of."""

    parts: tuple[tuple[str, tuple[int, int]], ...]
    channels: int
    size: tuple[int, int]
    rest: str
    before: int
    after: int
    read: str
    ends: str
    seed: int


def specs() -> st.SearchStrategy[Spec]:
    """Draw models: up to three parts, then tokens, a recurrent layer or nothing, and a head."""
    strides = st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1)])
    return st.builds(
        Spec,
        parts=st.lists(st.tuples(st.sampled_from(sorted(WAYS)), strides), max_size=3).map(tuple),
        channels=st.sampled_from([4, 8, 16, 32]),
        size=st.sampled_from([(32, 32), (32, 64), (64, 32), (33, 47)]),
        rest=st.sampled_from(
            ["pool", "tokens", "batch second", "shuffled", "recurrent", "queries", "pool"]
        ),
        before=st.integers(0, 3),
        after=st.integers(0, 3),
        read=st.sampled_from(["mean", "first", "last"]),
        ends=st.sampled_from(["tensor", "tuple", "mapping", "softmax", "nested"]),
        seed=st.integers(0, 10_000),
    )


class Odd(nn.Module):
    """A model of a `Spec`; ``grid`` is how its rows of tokens lie: rows, columns, prefix, axis."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        torch.manual_seed(spec.seed)
        self.spec, width = spec, spec.channels
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.parts = nn.ModuleList(Part(kind, width, stride) for kind, stride in spec.parts)
        self.patches = nn.Conv2d(width, width, 4, 4)
        self.own = nn.Parameter(torch.randn(1, spec.before + spec.after, width))
        self.queries = nn.Parameter(torch.randn(1, 9, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, width, batch_first=spec.rest != "batch second", activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        decoder = nn.TransformerDecoderLayer(width, 2, width, batch_first=True)
        self.decoder = nn.TransformerDecoder(decoder, 2)
        self.rnn = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, 3)
        self.grid: tuple[int, int, int, int] | None = None

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        for part in self.parts:
            x = tensor_of(part(x))
        return self.ended(self.head(self.rows(x)))

    def rows(self, x: Tensor) -> Tensor:
        """Return (N, C) of the features."""
        spec = self.spec
        if spec.rest == "pool":
            return x.mean((2, 3))
        if spec.rest == "recurrent":
            steps, _ = self.rnn(x.mean(2).mT)
            return steps[:, -1]
        patches = self.patches(x)
        tokens = patches.flatten(2).mT
        if spec.rest == "queries":
            return self.decoder(self.queries.expand(len(x), -1, -1), tokens).mean(1)
        if spec.rest == "shuffled":
            tokens = tokens[
                :, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(1))
            ]
        own = self.own.expand(len(x), -1, -1)
        tokens = torch.cat((own[:, : spec.before], tokens, own[:, spec.before :]), 1)
        second = spec.rest == "batch second"
        known = spec.rest != "shuffled"
        self.grid = (*patches.shape[2:], spec.before, int(second)) if known else None
        tokens = (
            self.blocks(tokens.transpose(0, 1)).transpose(0, 1) if second else self.blocks(tokens)
        )
        if spec.read == "mean":
            return tokens.square().mean(1)
        return tokens[:, 0 if spec.read == "first" else -1]

    def ended(self, logits: Tensor) -> Any:
        """Return what the model gives."""
        return {
            "tensor": lambda: logits,
            "tuple": lambda: (logits, {"loss": None}),
            "mapping": lambda: {"features": 1, "logits": logits},
            "softmax": lambda: logits.softmax(1),
            "nested": lambda: [{"out": (logits,)}],
        }[self.spec.ends]()

    def logits(self, returned: Any) -> Tensor:
        """Return the explained tensor of what the model gave."""
        while not isinstance(returned, Tensor):
            if isinstance(returned, dict):
                returned = returned.get("logits", returned.get("out"))
            else:
                returned = returned[0]
        return returned
