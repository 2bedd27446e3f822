"""Number formats: a model that runs in 16 bits, and takes and gives float32 all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from exporter.capture.hooks import hooked
from exporter.containers import rebuild

TYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The 16-bit formats by the names of the setting ``precision``."""

_SCALES = (2.0**14, 2.0**10, 2.0**6, 2.0**2, 1.0)


@contextmanager
def in_full_float32() -> Iterator[None]:
    """Let a card multiply float32 as it is, where torch's settings let it round to TF32.

    TF32 keeps 10 bits, and how a product is rounded then depends on how many images share a batch.
    Passes that are held against one another would differ though the model does the same.
    """
    switches = [(*each, getattr(*each[:2])) for each in _switches()]
    on = [each for each in switches if each[2] != each[3]]
    try:
        for backend, name, exact, _ in on:
            setattr(backend, name, exact)
        yield
    finally:
        for backend, name, _, before in on:
            setattr(backend, name, before)


def rounds_to_tf32(device: torch.device) -> bool:
    """Say whether a device rounds factors in float32 to TF32, as torch is set now."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return any(_allowed())


def tf32_environment(device: torch.device) -> dict[str, str] | None:
    """Return the variables with which another process allows TF32 where this one does, if any do.

    None where TF32 is allowed in products of matrices and not in convolutions: none say that.
    """
    if device.type != "cuda":
        return {}
    allowed = _allowed()
    if not any(allowed):
        return {"NVIDIA_TF32_OVERRIDE": "0"}
    matrices, convolutions = allowed[:2]
    if not convolutions:
        return None
    return {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if matrices else {}


def _allowed() -> list[bool]:
    return [getattr(backend, name) in (True, "tf32") for backend, name, _ in _switches()]


def _switches() -> list[tuple[Any, str, object]]:
    """Return where torch is told whether TF32 is allowed, and what says that it is not.

    Products of matrices come first, then convolutions.
    """
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    by_operation = getattr(torch.backends, "fp32_precision", "none") != "none"
    try:
        _ = matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:  # torch 2.9 and later can be told for each operation
        by_operation = True
    if by_operation:
        return [(each, "fp32_precision", "ieee") for each in (matmul, cudnn.conv, cudnn.rnn)]
    return [(each, "allow_tf32", False) for each in (matmul, cudnn)]


@dataclass(frozen=True)
class Precision:
    """The format that a model computes in, by autocast: parameters stay what they are.

    Attributes:
        name: ``float32``, ``bf16`` or ``fp16``.
        scale: what gradients are multiplied by while they are inside the model, a power of two:
            small ones would be zero in float16.
    """

    name: str = "float32"
    scale: float = 1.0

    @classmethod
    def candidates(cls, name: str) -> Iterator[Precision]:
        """Yield a format with the scales to try: the first that nothing overflows with is best."""
        for scale in _SCALES if name == "fp16" else (1.0,):
            yield cls(name, scale)

    @property
    def lowered(self) -> bool:
        """Whether the model computes in another format than its own."""
        return self.name in TYPES

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context that a forward runs in."""
        return torch.autocast(device.type, TYPES.get(self.name), enabled=self.lowered)

    def enter(self, value: Tensor) -> Tensor:
        """Return float32 that is given to the model: its gradient comes out unscaled."""
        return _Scaled.apply(value, 1 / self.scale) if self._scales(value) else value

    def leave(self, output: Any) -> Any:
        """Return what the model gave in float32; gradients that go in there are scaled."""

        def widened(_path: str, tensor: Tensor) -> Tensor:
            wide = tensor.float() if tensor.dtype in TYPES.values() else tensor
            return _Scaled.apply(wide, self.scale) if self._scales(wide) else wide

        return rebuild(output, widened) if self.lowered else output

    def unscaled(self, gradient: Tensor) -> Tensor:
        """Return a gradient that was taken inside the model as it is, in float32."""
        return gradient.float() / self.scale if self.lowered else gradient

    def _scales(self, value: Tensor) -> bool:
        return self.scale != 1 and value.requires_grad and value.is_floating_point()


class _Scaled(torch.autograd.Function):
    """A value as it is, whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


FLOAT32 = Precision()
_RUN_IN: WeakKeyDictionary[nn.Module, Precision] = WeakKeyDictionary()
"""Models that run in another format now."""


def precision_of(model: nn.Module) -> Precision:
    """Return the format that a model is run in now."""
    return _RUN_IN.get(model, FLOAT32)


@contextmanager
def run_in(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Run every forward of a model in a format, whoever calls it; by hooks on the model itself.

    The model is given float32 and gives it, and so are gradients at its input and of its output;
    what is captured inside (`exporter.capture.capture`, `exporter.capture.run_from`, …) too.
    """
    if not precision.lowered:
        yield
        return
    entered: list[ExitStack] = []

    def begin(_module: nn.Module, inputs: Any) -> Any:
        where = next((v.device for v in inputs if isinstance(v, Tensor)), torch.device("cpu"))
        entered.append(ExitStack())
        now = precision_of(model)
        entered[-1].enter_context(now.autocast(where))
        return tuple(now.enter(v) if isinstance(v, Tensor) else v for v in inputs)

    def end(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if entered:
            entered.pop().close()
        return None if output is None else precision_of(model).leave(output)

    try:
        with held_in(model, precision), hooked([(model, end)], [(model, begin)], always=True):
            yield
    finally:
        while entered:  # a forward that was interrupted
            entered.pop().close()


@contextmanager
def held_in(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Run a model that `run_in` runs in another format, or with another scale, for now."""
    before = precision_of(model)
    _RUN_IN[model] = precision
    try:
        yield
    finally:
        _RUN_IN[model] = before


def unscaled_in(model: nn.Module) -> AbstractContextManager[None]:
    """Scale no gradient inside a model for now: second derivatives would be scaled unequally."""
    return held_in(model, replace(precision_of(model), scale=1.0))
