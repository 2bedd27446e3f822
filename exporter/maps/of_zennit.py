"""Composites of zennit as pixel maps: ``zennit:epsilon_plus_flat``, layer-wise relevance.

zennit (LGPL-3.0-or-later) is imported when such a name is first looked up. Its rules and canonizers
change the model that they are given, so they are given a copy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from exporter.errors import MapError, choices
from exporter.maps.borrowed import (
    as_arguments,
    borrowed,
    lent_to,
    library,
    on_a_copy,
    simple_settings,
)
from exporter.maps.context import PassContext
from exporter.maps.needs import Passes, Setting, Value
from exporter.maps.registry import Method
from exporter.records import MethodRecord

_GIVEN = frozenset(("self", "low", "high", "layer_map", "first_map", "zero_params", "canonizers"))

BOUND = 3.0
"""Largest and, below zero, least value of a pixel in normalised space, where a rule asks for it."""

TOLERANCE = 0.01
"""Of the largest score, what a canonizer may change: each normalisation that it merges, 1e-5."""


@lru_cache
def method_named(name: str) -> Method:
    """Return the map of a composite.

    Raises:
        MapError: if zennit is not installed or has no such composite.
    """
    composites = library("zennit.composites", "zennit").COMPOSITES
    spelt = name.strip().lower().replace("-", "_")
    if spelt not in composites:
        raise MapError(f"zennit has no composite {name!r}; {choices(spelt, composites, limit=20)}")
    canonizer = library("zennit.torchvision", "zennit").ResNetCanonizer
    kind: Any = composites[spelt]
    own = simple_settings(kind.__init__, without=_GIVEN)
    bound = {"bound": Setting(BOUND)} if spelt == "epsilon_gamma_box" else {}
    declared = {**own, **bound, "canonizer": Setting("auto", ("auto", "none"))}

    def compute(context: PassContext, **settings: Value) -> Tensor:
        options = as_arguments(settings, declared)
        if options.pop("canonizer") == "auto":
            options["canonizers"] = [canonizer()]
        if bound:
            at = options.pop("bound")
            options |= {"low": -at, "high": at}
        with lent_to(f"zennit's {kind.__name__}", context):
            return _relevance(context, kind(**options))

    return borrowed(_record(spelt), compute, declared, Passes(backwards=1), "sum")


def names() -> tuple[str, ...]:
    """Return the composites.

    Raises:
        MapError: if zennit is not installed.
    """
    return tuple(library("zennit.composites", "zennit").COMPOSITES)


def _relevance(context: PassContext, composite: Any) -> Tensor:
    own = on_a_copy(context)
    with composite.context(own.module):
        said, after = context.values(context.inputs), own.values(own.inputs)
        if not (said - after).abs().max() <= TOLERANCE * said.abs().max():
            raise MapError(
                "zennit's canonizer changes this model's output, for example because its modules "
                "do not run in the order in which they were added: give canonizer=none"
            )
        rows = []
        for target in range(context.count):
            # A forward for each: the rules keep what a backward needs for one.
            start = own.inputs.detach().clone().requires_grad_()
            score = own.summed_scores(start)[target]
            rows.append(torch.autograd.grad(score, start)[0])
    return torch.stack(rows, 1)


def _record(name: str) -> MethodRecord:
    return MethodRecord(
        name=f"zennit:{name}",
        title=f"{name} (zennit)",
        shows="How relevant each pixel is for the target: relevance passed back layer by layer.",
        formula=f"M = the gradient ∂S/∂I_c with the backward rules of zennit's {name}; stored: "
        "Σ_c M_c",
        paper="Anders, Neumann, Samek, Müller, Lapuschkin: Software for Dataset-wide XAI: From "
        "Local Explanations to Global Insights with Zennit, CoRelAy, and ViRelAy, arXiv 2021",
        url="https://arxiv.org/abs/2106.13200",
        cost="two forward passes, and one forward and one backward pass per target, on a copy of "
        "the model",
        caveats="Computed by zennit (LGPL-3.0-or-later). Its rules are for linear and convolution "
        "layers, pooling and activations; everything else, such as attention, passes the plain "
        "gradient. Sums of branches are split only in torchvision's ResNets.",
        relu=False,
    )
