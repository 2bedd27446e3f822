"""What the maps of other libraries have in common: how they run here as guests."""

from __future__ import annotations

import copy
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporter.capture import random_states, restore_random
from exporter.errors import MapError
from exporter.guard import FAILURES, told, user_code
from exporter.maps.context import PassContext
from exporter.maps.needs import Needs, Passes, Setting, Value, store_settings
from exporter.maps.registry import Method
from exporter.records import MethodRecord

_TURN = RLock()
"""Held while a library runs: warning filters and the global generators are the process's."""


def library(module: str, extra: str) -> Any:
    """Import a library of other people's methods.

    Raises:
        MapError: if it is not installed or cannot be imported.
    """
    name = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except FAILURES as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise MapError(
                f"maps of {name} need {name}, which is not installed: pip install "
                f"'exporter[{extra}]'"
            ) from None
        raise MapError(f"{name} cannot be imported: {told(error)}") from error


def simple_settings(*functions: Callable[..., Any], without: frozenset[str]) -> dict[str, Setting]:
    """Return as settings what functions take whose default is a number, a word or a yes or no.

    Args:
        functions: of a library's.
        without: names of parameters that are no settings.
    """
    settings = {}
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            default = parameter.default
            if name not in without and isinstance(default, bool | int | float | str):
                yes_or_no = ("true", "false") if isinstance(default, bool) else ()
                settings[name] = Setting(str(default).lower() if yes_or_no else default, yes_or_no)
    return settings


def as_arguments(settings: Mapping[str, Value], declared: Mapping[str, Setting]) -> dict[str, Any]:
    """Return settings as a library's function takes them: a yes or no is a bool."""
    return {
        name: value == "true" if declared[name].words == ("true", "false") else value
        for name, value in settings.items()
    }


def borrowed(
    record: MethodRecord,
    compute: Callable[..., Tensor],
    declared: Mapping[str, Setting],
    passes: Passes,
    reduce: str,
) -> Method:
    """Return a library's method as a map of the input.

    Args:
        record: what is said of it; the settings are added.
        compute: called as ``compute(context, **settings)``; it gives (N, T, C, H, W).
        declared: its settings.
        passes: what it runs.
        reduce: how the channels become the one that is stored.
    """
    declared = {**declared, **store_settings(reduce)}
    settings = {name: entry.default for name, entry in declared.items()}
    text = {name: str(value) for name, value in settings.items()}
    return Method(
        record.name,
        replace(record, pixel=True, settings=text),
        Needs(activations=False, passes=passes),
        "pass",
        compute,
        declared=declared,
        settings=settings,
    )


@contextmanager
def lent_to(who: str, context: PassContext) -> Iterator[None]:
    """Run a library's code: its failures are its own, and its random numbers those of the seed.

    Torch's and NumPy's generators are seeded and put back; warnings meant for whoever calls the
    library are not shown.

    Raises:
        MapError: if the library, or the model inside it, fails.
    """
    inputs = context.inputs
    seed = context.generator.initial_seed() if context.generator else 0
    with _TURN, warnings.catch_warnings(), user_code(who, error=MapError):
        warnings.simplefilter("ignore")
        states = random_states([inputs.get_device()] if inputs.is_cuda else [])
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            restore_random(states)


def on_a_copy(context: PassContext) -> PassContext:
    """Return the context with a copy of the model, for a library that changes what it is given.

    Raises:
        MapError: if the model cannot be copied.
    """
    with user_code("copying the model, which this map modifies,", error=MapError):
        return replace(context, module=copy.deepcopy(context.module), memo={})
