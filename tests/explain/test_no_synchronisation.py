"""Hold everything before the one copy to the GPU's rules, without a GPU (docs/capture.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exporter.explain import Explainer
from exporter.maps import METHODS
from exporter.targets import Target

DENIED = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "linalg_svd",
    "_linalg_svd",
    "linalg_eigh",
    "_linalg_eigh",
    "linalg_eig",
    "linalg_qr",
    "linalg_lu",
    "linalg_inv_ex",
    "linalg_solve_ex",
    "_linalg_solve_ex",
    "lstsq",
    "equal",
    "is_nonzero",
    "repeat_interleave",
    "bincount",
    "histc",
)


class NoWaiting(TorchDispatchMode):
    """Refuse what passes on `meta` but would make CUDA wait, and whatever leaves the device."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name.startswith(DENIED):
            raise AssertionError(f"{name} waits for the device")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        given = {tensor.device.type for tensor in tensors if tensor.ndim}
        if len(given) > 1:
            raise AssertionError(f"{name} mixes {sorted(given)}")
        if name.startswith("index") and any(t.dtype == torch.bool for t in tensors):
            raise AssertionError(f"{name} selects by a mask")
        made = func(*args, **(kwargs or {}))
        out = {leaf.device.type for leaf in tree_leaves(made) if isinstance(leaf, Tensor)}
        if "meta" in given and out - {"meta"}:
            raise AssertionError(f"{name} leaves the device")
        return made


@pytest.fixture
def on_meta(model: nn.Module) -> Iterator[Callable[..., Any]]:
    model = model.to("meta")
    images = torch.empty(3, 3, 12, 16, device="meta")
    labels = torch.empty(3, dtype=torch.int64, device="meta")

    def run(names: list[str], target: Target, **options: Any) -> Any:
        explainer = Explainer(
            model,
            [METHODS[name] for name in names],
            ["stem", "stage1", "stage2"],
            target=target,
            recorded=["relu", "stage2"],
            classifiers={"stage2": model.head.weight.detach()},
            **options,
        )
        with NoWaiting():
            return explainer(images, labels)

    yield run


CONVOLUTIONAL = [name for name, found in METHODS.items() if not found.needs.attention]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize(
    "target",
    [
        Target("top", k=2),
        *(pytest.param(Target(kind), marks=pytest.mark.slow) for kind in ("predicted", "label")),
    ],
)
def test_no_map_waits_for_the_device(
    on_meta: Callable[..., Any], name: str, target: Target
) -> None:
    batch = on_meta([name], target)
    assert batch.packed.device.type == "meta"
    everywhere = ["stage2"] if name == "cam" else ["stem", "stage1", "stage2"]
    if METHODS[name].record.pixel:
        everywhere = [""]
    if METHODS[name].fuse:
        everywhere = ["fused"]
    assert [block.layer for block in batch.outline.maps] == everywhere


@pytest.mark.slow
def test_all_maps_together_do_not_either(on_meta: Callable[..., Any]) -> None:
    batch = on_meta(list(METHODS), Target("predicted"))
    layers = [block.layer for block in batch.outline.maps]
    assert layers == ["stem", "stage1", "stage2", "fused", ""]
    assert sum(len(block.names) for block in batch.outline.maps) > len(METHODS)
    assert all(
        "no self-attention" in batch.outline.missing[f"{name} at attention"] for name in ATTENDING
    )


@pytest.mark.slow
def test_running_on_from_a_layer_that_a_function_reads_does_not_wait(
    on_meta: Callable[..., Any],
) -> None:
    batch = on_meta(["ablationcam", "finercam"], Target("predicted"), reshape=lambda t: t.flip(-1))
    assert [block.layer for block in batch.outline.maps] == ["stem", "stage1", "stage2"]


ATTENDING = [name for name, found in METHODS.items() if found.needs.attention]


@pytest.mark.slow
def test_attention_maps_do_not_either() -> None:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, 3, 4, 24, 48, num_classes=5).to("meta")
    explainer = Explainer(
        model,
        [METHODS[name] for name in (*ATTENDING, "gradcam")],
        ["encoder.layers.encoder_layer_1"],
        target=Target("top", k=2),
        fuse="mean",
    )
    with NoWaiting():
        batch = explainer(
            torch.empty(3, 3, 32, 32, device="meta"),
            torch.empty(3, dtype=torch.int64, device="meta"),
        )
    layers = [block.layer for block in batch.outline.maps]
    assert layers == ["encoder.layers.encoder_layer_1", "attention", "fused"]
    assert tuple(batch.outline.maps[1].levels.shape) == (2 * len(ATTENDING), 3, 4, 4)


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: t.sum().item(),
        lambda t: t.cpu(),
        lambda t: bool(t.sum() > 0),
        lambda t: t[t > 0],
        lambda t: t.nonzero(),
        lambda t: t[torch.tensor([0, 1])],
        torch.linalg.svd,
        torch.linalg.eigh,
        lambda t: t.unique(),
        lambda t: t.masked_select(t > 0),
        lambda t: torch.equal(t, t),
    ],
)
def test_the_net_catches_what_waits(wait: Callable[[Tensor], Any]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NoWaiting():
        wait(torch.empty(4, 4, device="meta"))
