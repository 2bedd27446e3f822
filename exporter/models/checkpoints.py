"""Checkpoints: read without running code, laid over a model that must fit."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path, PosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from exporter.errors import ModelError, kind_of, one_line

# Averaged weights (EMA) are taken where there are no others.
_HOLDERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
_PLAIN = (argparse.Namespace, PosixPath, np.float64(0).__reduce__()[0], np.dtype)
_NUMBERS = tuple(type(np.dtype(code)) for code in "?bhilqBHILQefd")
"""Settings and numbers that training scripts keep beside the weights; reading them runs nothing."""
_STEPS = ("global_step", "step", "iteration", "iter", "epoch")
_DEEPEST = 4
_START = [re.compile(rf"(?:[^.]+\.){{{n + 1}}}") for n in range(_DEEPEST)]
_NAMED = 4
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_DENSENET_OLD = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")


def digest(file: Path) -> str:
    """Return the first 12 hexadecimal digits of a checkpoint's BLAKE2b hash."""
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


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        states: every state dict, by what holds it: one of the usual names (`_HOLDERS`), or ``""``
            for the file itself, whose other values are left alone; or else any name.
        step: how far it was trained, or None.
        step_key: the key that says so.
    """

    states: dict[str, dict[str, Tensor]]
    step: int | None = None
    step_key: str = ""


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a file of safetensors or of ``torch.save``; nothing in it is run."""
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {str(file)!r}; give an existing file")
    content = _safetensors(file) if file.suffix.lower() == ".safetensors" else _torch(file)
    held = content if isinstance(content, Mapping) else {}
    # The usual ones first: where several hold the model, the first is meant.
    usual = {"": held, **{name: held.get(name) for name in _HOLDERS}}
    states = _states(usual | {str(name): state for name, state in held.items()})
    if states:
        return Checkpoint(states, *_trained(held))
    holds = f"has {', '.join(map(str, list(held)[:6]))}" if held else f"holds {kind_of(content)}"
    raise ModelError(
        f"the checkpoint {str(file)!r} holds no state dict, neither by itself nor under "
        f"{', '.join(_HOLDERS)}; it {holds}"
    )


def _trained(held: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return how far a checkpoint was trained and the key that says so; the finest unit counts."""
    for key in _STEPS:
        value = held.get(key)
        if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
            value = value.item()
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
            return value, key
    return None, ""


def _states(held: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors in each mapping that holds some."""
    states = {
        holder: {
            _DENSENET_OLD.sub(r"\1\2", str(key)): value
            for key, value in state.items()
            if isinstance(value, Tensor)
        }
        for holder, state in held.items()
        if isinstance(state, Mapping)
    }
    return {holder: tensors for holder, tensors in states.items() if tensors}


def fit_keys(
    states: Mapping[str, Mapping[str, Tensor]], module: nn.Module, file: Path
) -> tuple[dict[str, Tensor], str]:
    """Choose the state dict, and the prefix before its keys, that has most of a model's tensors.

    Where none of the model's is missing, what is no part of it (the loss's weights, a counter) is
    left out.

    Returns:
        The tensors under the model's own names, and a note on what was left out, or ``""``.

    Raises:
        ModelError: if the whole model is there under several prefixes, as of student and teacher.
    """
    own = module.state_dict().keys()
    needed = [key for key in own if not _optional(key)]
    covered = {
        (holder, prefix): sum(prefix + key in state for key in needed)
        for holder, state in states.items()
        for prefix in _prefixes(state)
    }
    holder, prefix = max(covered, key=lambda choice: covered[choice])
    state, whole = states[holder], covered[holder, prefix] == len(needed)
    if whole:
        # Of the usual holders the first is meant; of others nothing says which.
        complete = [
            (h, p)
            for (h, p), n in covered.items()
            if n == len(needed) and (h == holder or not {h, holder} & {"", *_HOLDERS})
        ]
        plain = [(h, p) for h, p in complete if "ema" not in (h + p).casefold()] or complete
        if len(plain) > 1:
            names = (repr(p if h in ("", *_HOLDERS) else f"{h}.{p}") for h, p in plain)
            raise ModelError(
                f"the checkpoint {str(file)!r} holds the model {len(plain)} times, under "
                f"{' and '.join(names)}; save the one that is meant"
            )
        ((holder, prefix),) = plain
        state = states[holder]
    inside = {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}
    left = [key for key in state if not key.startswith(prefix)]
    if whole:
        parts = {name.partition(".")[0] for name in own}
        foreign = [key for key in inside if key.partition(".")[0] not in parts]
        left += [prefix + key for key in foreign if not _optional(key)]
        inside = {key: value for key, value in inside.items() if key not in foreign}
    left += [f"all under {name!r}" for name in states if name not in (holder, "")]
    under = f"under {holder!r}" if holder else "in the file itself"
    taken = f"of the checkpoint {file.name!r} the weights {under} are taken"
    return inside, f"{taken}; left out: {_some(left)}" if left else ""


def _prefixes(state: Iterable[str]) -> list[str]:
    """Return what wrappers may have put before a state dict's keys, the shortest first."""
    starts = {
        match.group() for key in state for n in range(_DEEPEST) if (match := _START[n].match(key))
    }
    return ["", *sorted(starts, key=lambda start: (len(start), start))]


def head_size(state: Mapping[str, Tensor], module: nn.Module) -> int | None:
    """Return the number of classes of a checkpoint that differs from the model only in it.

    That is where all keys agree and every differing shape differs in one and the same way, in its
    first dimension; otherwise None.
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
    raise ModelError(
        f"the checkpoint {str(file)!r} does not fit {type(module).__name__}: {said}; give --model "
        "the model that it was saved from, or another checkpoint"
    )


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
    # Before PyTorch 2.5 there is no list.
    allowed = getattr(torch.serialization, "safe_globals", contextlib.nullcontext)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with allowed([*_PLAIN, *_NUMBERS]):
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
