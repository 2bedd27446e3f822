"""What must hold of every registered method, asked of each without its being named here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.maps import METHODS, Terms, channel_maps
from exporter.maps.registry import Method

# Those that run the model themselves have tests of their own: there is no formula of (A, g) alone.
LAYERED = {name: found for name, found in METHODS.items() if found.kind != "pass"}
every_method = pytest.mark.parametrize("method", LAYERED.values(), ids=LAYERED)
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31 - 1)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))

SCALED_BY_DEFINITION = {"gradcam++", "refinecam"}
"""Methods whose definition, not their code, makes the map depend on the scale of the logits."""


def layer(shape: tuple[int, ...], seed: int, *, signed: bool = True) -> tuple[Tensor, ...]:
    """Random activations, gradients and classifier rows in float64."""
    generator = torch.Generator().manual_seed(seed)
    activations, gradients = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    rows = torch.randn(shape[:2], generator=generator, dtype=torch.float64)
    return activations if signed else activations.relu(), gradients, rows


def compute(method: Method, activations: Tensor, gradients: Tensor, rows: Tensor) -> Tensor:
    return channel_maps([method], activations, gradients, rows)[method.name]


def normalised(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@every_method
@given(shape=shapes, seed=seeds)
@few
def test_one_map_an_image_each_by_itself(method: Method, shape: tuple[int, ...], seed: int) -> None:
    tensors = layer(shape, seed)
    together = compute(method, *tensors)
    assert together.shape == (shape[0], *shape[2:])
    assert together.isfinite().all()
    for index in range(shape[0]):
        alone = compute(method, *(tensor[index : index + 1] for tensor in tensors))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-9, atol=1e-9)


@every_method
@given(seed=seeds)
@few
def test_order_of_the_channels_does_not_matter(method: Method, seed: int) -> None:
    tensors = layer((2, 7, 3, 5), seed)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    shuffled = compute(method, *(tensor[:, order] for tensor in tensors))
    torch.testing.assert_close(shuffled, compute(method, *tensors), rtol=1e-6, atol=1e-8)


@every_method
@given(seed=seeds)
@few
def test_turning_the_image_turns_the_map(method: Method, seed: int) -> None:
    activations, gradients, rows = layer((2, 7, 3, 5), seed)
    turned = compute(method, activations.rot90(1, (2, 3)), gradients.rot90(1, (2, 3)), rows)
    expected = compute(method, activations, gradients, rows).rot90(1, (1, 2))
    torch.testing.assert_close(turned, expected, rtol=1e-6, atol=1e-8)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
def test_scale_of_the_logits_does_not_matter(
    method: Method, scale: float, dtype: torch.dtype
) -> None:
    tensors = [tensor.to(dtype) for tensor in layer((3, 40, 7, 7), 5, signed=False)]
    expected = normalised(compute(method, *tensors))
    activations, gradients, rows = tensors
    found = normalised(compute(method, activations, gradients * scale, rows * scale))
    error = (found - expected).abs().max().item()
    if method.name in SCALED_BY_DEFINITION:
        assert error > 1e-3
    else:
        assert error < (2e-5 if dtype == torch.float32 else 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradcam_plus_plus_neither_overflows_nor_vanishes(dtype: torch.dtype) -> None:
    """At small logits α is 1/2 everywhere; the paper's g² and g³ would be 0/0 there in float32."""
    activations, gradients, _ = (one.to(dtype) for one in layer((2, 9, 5, 5), 1, signed=False))
    weights = METHODS["gradcam++"](Terms(activations, gradients * 1e-25))
    expected = gradients.relu().sum((2, 3)) * 1e-25 / 2
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0)
    # And at large ones w is the number of places with a positive gradient, over Σ A.
    weights = METHODS["gradcam++"](Terms(activations, gradients * 1e25))
    expected = (gradients > 0).sum((2, 3)) / activations.sum((2, 3))
    torch.testing.assert_close(weights, expected.to(dtype), rtol=1e-5, atol=0)


@given(seed=seeds, factor=st.floats(1e-3, 1e3))
@few
def test_gradcam_plus_plus_sees_only_gradient_times_activation(seed: int, factor: float) -> None:
    activations, gradients, rows = layer((2, 5, 4, 4), seed, signed=False)
    method = METHODS["gradcam++"]
    expected = compute(method, activations, gradients, rows)
    found = compute(method, activations * factor, gradients / factor, rows)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_gradcam_plus_plus_is_zero_where_its_denominator_is() -> None:
    activations = torch.tensor([[[[-1.0, -1.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0]]]])  # 2 + g ΣA: 0 and -4
    weights = METHODS["gradcam++"](Terms(activations, gradients))
    assert weights.tolist() == [[-0.75]]
    maps = compute(METHODS["gradcam++"], activations, gradients, torch.zeros(1, 1))
    assert maps.tolist() == [[[0.75, 0.75]]]


@pytest.mark.parametrize("name", ["cam", "gradcam", "layercam", "hirescam"])
@given(seed=seeds, factor=st.floats(-10, 10))
@few
def test_linear_in_the_activations(name: str, seed: int, factor: float) -> None:
    method = METHODS[name]
    one, gradients, rows = layer((2, 6, 4, 4), seed)
    other = layer((2, 6, 4, 4), seed + 1)[0]
    found = compute(method, one + factor * other, gradients, rows)
    expected = compute(method, one, gradients, rows)
    expected = expected + factor * compute(method, other, gradients, rows)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@given(seed=seeds)
@few
def test_methods_that_coincide_before_global_average_pooling(seed: int) -> None:
    """With S = Σ_c w_c mean(A_c) + b: CAM, Grad-CAM, HiResCAM and XGrad-CAM are one map."""
    activations, _, rows = layer((2, 6, 4, 5), seed, signed=False)
    gradients = (rows / 20)[..., None, None].expand_as(activations)
    maps = channel_maps(tuple(LAYERED.values()), activations, gradients, rows)
    for name in ("gradcam", "hirescam", "xgradcam"):
        torch.testing.assert_close(maps[name] * 20, maps["cam"], rtol=1e-9, atol=1e-9)
    # The map's mean is what the logit gains over the bias.
    logit = (activations.mean((2, 3)) * rows).sum(1)
    torch.testing.assert_close(maps["cam"].mean((1, 2)), logit, rtol=1e-9, atol=1e-9)


@given(seed=seeds)
@few
def test_xgradcam_conserves_the_sum_of_gradient_times_activation(seed: int) -> None:
    activations, gradients, rows = layer((2, 6, 4, 5), seed, signed=False)
    found = compute(METHODS["xgradcam"], activations, gradients, rows).sum((1, 2))
    torch.testing.assert_close(found, (activations * gradients).sum((1, 2, 3)))


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
@given(seed=seeds)
@few
def test_eigen_maps_follow_the_mean_of_the_channels(name: str, seed: int) -> None:
    activations, gradients, rows = layer((3, 6, 4, 5), seed)
    found = compute(METHODS[name], activations, gradients, rows)
    shown = (activations * gradients if name == "eigengradcam" else activations).mean(1)
    assert ((found * shown).sum((1, 2)) > 0).all()
    assert found.mean((1, 2)).abs().max() < 1e-12


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [3, 60])
def test_nothing_gives_zeros(method: Method, channels: int, dtype: torch.dtype) -> None:
    zeros = torch.zeros(2, channels, 5, 4, dtype=dtype)
    gradients = torch.randn(2, channels, 5, 4, dtype=dtype)
    rows = torch.randn(2, channels, dtype=dtype)
    assert (compute(method, zeros, gradients, rows) == 0).all()
    if method.needs.gradients:
        assert (compute(method, gradients, zeros, rows) == 0).all()


@every_method
def test_a_broken_image_spoils_no_other(method: Method) -> None:
    activations, gradients, rows = layer((3, 8, 4, 4), 3)
    expected = compute(method, activations, gradients, rows)
    activations[1, 2, 0, 0] = torch.nan
    found = compute(method, activations, gradients, rows)
    assert found[1].isnan().any()
    torch.testing.assert_close(found[::2], expected[::2], rtol=1e-12, atol=1e-12)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 12, 9, 10), (2, 150, 11, 11), (2, 48, 5, 5)])
def test_layout_in_memory_does_not_matter(
    method: Method, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    activations, gradients, rows = (one.to(dtype) for one in layer(shape, 7, signed=False))
    expected = compute(method, activations, gradients, rows)
    last = torch.channels_last
    places = activations.flatten(2)
    # (N, 1 + H·W, C), as a vision transformer gives them, the class token first.
    tokens = torch.cat([places[:, :, :1], places], 2).mT.contiguous()
    views = {
        "channels_last": (
            activations.contiguous(memory_format=last),
            gradients.contiguous(memory_format=last),
        ),
        "mixed": (activations.contiguous(memory_format=last), gradients),
        "tokens": (tokens[:, 1:].unflatten(1, shape[2:]).movedim(-1, 1), gradients),
        "transposed": (activations.mT.contiguous().mT, gradients),
    }
    for name, (one, other) in views.items():
        assert torch.equal(one, activations), name
        error = (compute(method, one, other, rows) - expected).abs().max() / expected.abs().max()
        assert error < (1e-4 if dtype == torch.float32 else 1e-11), name


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(method: Method, dtype: torch.dtype) -> None:
    tensors = [tensor.to(dtype) for tensor in layer((2, 20, 6, 6), 9, signed=False)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = compute(method, *tensors)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, compute(method, *(one.float() for one in tensors)))


class NoWaiting(TorchDispatchMode):
    """Refuse every operator for which CUDA would wait for the host."""

    refused = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "is_nonzero",
        "equal",
        "linalg_svd",
        "_linalg_svd",
        "linalg_eigh",
        "_linalg_eigh",
        "linalg_eig",
        "linalg_qr",
        "_linalg_det",
        "linalg_inv_ex",
        "unique",
        "unique2",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.refused, f"{name} makes CUDA wait"
        if name in {"index", "index_put", "index_put_"}:
            kinds = [one.dtype for one in args[1] if one is not None]
            assert torch.bool not in kinds, "indexing with a mask makes CUDA wait"
        if name == "_to_copy":
            assert not (kwargs or {}).get("device"), "a copy to another device"
        return func(*args, **(kwargs or {}))


@every_method
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("shape", [(2, 12, 9, 10), (2, 130, 11, 12), (2, 48, 5, 5)])
def test_nothing_waits_for_the_device(method: Method, shape: tuple[int, ...], device: str) -> None:
    tensors = [tensor.to(device, torch.float32) for tensor in layer(shape, 1)]
    with NoWaiting():
        found = compute(method, *tensors)
    assert found.device.type == device
    assert found.shape == (shape[0], *shape[2:])


@pytest.mark.gpu
@every_method
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_without_waiting(method: Method) -> None:
    tensors = layer((2, 150, 12, 12), 1)
    expected = compute(method, *tensors)
    there = [tensor.cuda() for tensor in tensors]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = compute(method, *there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)
