"""What holds on every device: no loop over images, and nothing in float64 where there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import VisionTransformer

from exporter.config import build_config
from exporter.engines import Recipe, compute_shard
from exporter.explain import Explainer
from exporter.maps import METHODS, terms
from exporter.maps import context as contexts
from exporter.planning import bind
from exporter.targets import Target
from tests.small import small

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 4, 24, 48, num_classes=4)
    nn.init.normal_(model.heads.head.weight)
    return model


def fitting(name: str) -> tuple[nn.Module, str]:
    if METHODS[name].needs.attention:
        return transformer(), "encoder.layers.encoder_layer_0"
    return small(), "3"


class Counted(TorchDispatchMode):
    """Counts the operations that a device would be given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name",
    [
        name if n % 4 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for n, name in enumerate(METHODS)
    ],
)
def test_as_many_operations_for_eight_images_as_for_two(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, layer = fitting(name)
    model = model.to("meta")
    counts = []
    for images in (2, 8):
        # Where variants go through the model in portions, as many portions for both.
        monkeypatch.setattr(contexts, "ROWS", 4 * images)
        weight = model[6].weight.detach() if layer == "3" else None
        explainer = Explainer(
            model,
            [METHODS[name]],
            [layer],
            target=Target("predicted"),
            classifiers={} if weight is None else {layer: weight},
        )
        inputs = torch.empty(images, 3, 32, 32, device="meta")
        labels = torch.empty(images, dtype=torch.int64, device="meta")
        explainer(inputs, labels)  # what is settled once is not counted
        with Counted() as counted:
            explainer(inputs, labels)
        counts.append(counted.calls)
    assert counts[0] == counts[1]


class Without(TorchDispatchMode):
    """A block in which what is made from a model's tensors must not be float64, but on the host.

    It is a device that lies in the CPU's memory: `Tensor.cpu` alone leads away from it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.leaving = False
        # Held, so that no other tensor's memory is taken for one of these.
        self.there = {
            t.untyped_storage()._cdata: t for t in (*model.parameters(), *model.buffers())
        }

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        if self.leaving or not any(t.untyped_storage()._cdata in self.there for t in given):
            return out
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                assert leaf.dtype != torch.float64, f"{func._schema.name} makes float64"
                self.there[leaf.untyped_storage()._cdata] = leaf
        return out

    @staticmethod
    def to_host(tensor: Tensor, mode: Without) -> Tensor:
        """Copy a tensor to the host."""
        mode.leaving = True
        try:
            return tensor.clone()
        finally:
            mode.leaving = False


@contextmanager
def without_float64(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mode = Without(model)
    with monkeypatch.context() as patched, mode:
        patched.setattr(Tensor, "cpu", partialmethod(Without.to_host, mode))
        patched.setattr(terms, "WITH_FLOAT64", ())
        yield


def test_the_net_sees_float64_on_the_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    with without_float64(model, monkeypatch):
        assert torch.ones(2).double().dtype == torch.float64
        assert model(torch.rand(1, 3, 32, 32)).cpu().double().dtype == torch.float64
        with pytest.raises(AssertionError, match="makes float64"):
            model(torch.rand(1, 3, 32, 32)).double()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["convolutions", "attention", "faithfulness"])
def test_a_run_makes_no_float64_where_there_is_none(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attending = family == "attention"
    model = transformer() if attending else small()
    measured = family == "faithfulness"
    names = [n for n, method in METHODS.items() if method.needs.attention == attending]
    config = build_config(
        model=family, images=str(PHOTOS), out=tmp_path / "run", limit=2, batch_size=2,
        maps=("gradcam",) if measured else tuple(names),
        layers=("encoder.layers.encoder_layer_0",) if attending else ("1", "3"),
        preprocessing={"size": 32}, faithfulness=measured,
    )  # fmt: skip
    with without_float64(model, monkeypatch), bind(Recipe(config, module=model)) as job:
        parts = compute_shard(job, 0)
    rows = [row for part in parts for row in part.rows]
    assert len(rows) == 2
    assert all(row.maps and row.error is None for row in rows)
