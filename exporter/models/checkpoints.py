"""Checkpoints: read without running code, laid over a model that must fit."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exporter.errors import ModelError, kind_of, one_line

_HOLDERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_NAMED = 4
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_DENSENET_OLD = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")


def digest(file: Path) -> str:
    """Return the first 12 hexadecimal digits of a checkpoint's BLAKE2b hash.

    Raises:
        ModelError: if the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            hashed = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
    except OSError as error:
        raise ModelError(_unreadable(file, error)) from None
    return hashed.hexdigest()[:12]


def state_digest(module: nn.Module) -> str:
    """Return the first 12 hexadecimal digits of the BLAKE2b hash of a model's tensors.

    Names, shapes, types and bytes of the state dict count, so that two models that differ in
    their numbers alone are told apart. Tensors without bytes (meta) count by name.
    """
    hashed = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        hashed.update(f"{name}\0".encode())
        with contextlib.suppress(RuntimeError, NotImplementedError, AttributeError):
            plain = value.detach().to("cpu").contiguous().flatten()
            content = memoryview(plain.view(torch.uint8).numpy())
            hashed.update(f"{tuple(value.shape)} {value.dtype}\0".encode())
            hashed.update(content)
    return hashed.hexdigest()[:12]


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint; nothing in it is run.

    A state dict may lie in the file itself or under ``state_dict``, ``model_state_dict`` or
    ``model``.

    Args:
        file: ``.safetensors``, or anything that ``torch.save`` wrote (read with weights_only).

    Raises:
        ModelError: if it cannot be read, holds objects other than tensors and plain values, or
            holds no state dict.
    """
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {str(file)!r}; give an existing file")
    content = _safetensors(file) if file.suffix.lower() == ".safetensors" else _torch(file)
    held = content if isinstance(content, Mapping) else {}
    for state in (held, *(held.get(holder) for holder in _HOLDERS)):
        if isinstance(state, Mapping) and state:
            tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
            if len(tensors) == len(state) or (state is not held and tensors):
                return {_DENSENET_OLD.sub(r"\1\2", key): value for key, value in tensors.items()}
    holds = f"has {', '.join(map(str, list(held)[:6]))}" if held else f"holds {kind_of(content)}"
    raise ModelError(
        f"the checkpoint {str(file)!r} holds no state dict, neither by itself nor under "
        f"{', '.join(_HOLDERS)}; it {holds}"
    )


def fit_keys(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Strip the prefixes that training wrappers put before every key, where the model has none."""
    own = module.state_dict().keys()
    fitted = dict(state)
    while own.isdisjoint(fitted):
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in fitted)), None)
        if prefix is None:
            break
        fitted = {key.removeprefix(prefix): value for key, value in fitted.items()}
    return fitted


def head_size(state: Mapping[str, Tensor], module: nn.Module) -> int | None:
    """Return the number of classes of a checkpoint that differs from the model only in them.

    Returns:
        The new size where all keys agree and every differing shape differs in one and the same
        way, in its first dimension; otherwise None.
    """
    own = module.state_dict()
    if not all(map(_optional, own.keys() ^ state.keys())):
        return None
    shapes = ((own[key].shape, state[key].shape) for key in own.keys() & state.keys())
    changed = {
        (ours[:1], theirs[:1], ours[1:] == theirs[1:]) for ours, theirs in shapes if ours != theirs
    }
    if len(changed) != 1:
        return None
    ((_, theirs, alike),) = changed
    return theirs[0] if alike and theirs else None


def load_state(module: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Lay a state dict over a model, in place; every tensor must have its place and shape.

    BatchNorm counters and auxiliary heads, which only training reads, may be missing or too many.

    Raises:
        ModelError: naming a few missing keys, unexpected keys and differing shapes.
    """
    own = module.state_dict()
    wrong = {
        "missing ": [key for key in own if key not in state and not _optional(key)],
        "unexpected ": [key for key in state if key not in own and not _optional(key)],
        "shapes: ": [
            f"{key} is {tuple(state[key].shape)} in the file and {tuple(ours.shape)} in the model"
            for key, ours in own.items()
            if key in state and ours.shape != state[key].shape
        ],
    }
    said = "; ".join(word + _some(keys) for word, keys in wrong.items() if keys)
    if not said:
        try:
            module.load_state_dict(dict(state), strict=False)
            return
        except Exception as error:
            said = one_line(error)
    raise ModelError(f"the checkpoint {str(file)!r} does not fit {type(module).__name__}: {said}")


def _optional(key: str) -> bool:
    return key.endswith("num_batches_tracked") or key.casefold().startswith("aux")


def _safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(_unreadable(file, error)) from None


def _torch(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(_unreadable(file, error)) from None
    except Exception as error:
        named = _GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if named is not None:
            raise ModelError(
                f"the checkpoint {str(file)!r} holds Python code or objects ({named[1]}), which "
                "are not loaded; save model.state_dict() alone, or a .safetensors file"
            ) from None
        raise ModelError(
            f"the checkpoint {str(file)!r} is damaged, or not a file of tensors that torch.save "
            "wrote; give a .pt, .pth or .safetensors file"
        ) from None


def _unreadable(file: Path, error: BaseException) -> str:
    return f"the checkpoint {str(file)!r} cannot be read: {one_line(error)}"


def _some(keys: Iterable[str]) -> str:
    named = list(keys)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
