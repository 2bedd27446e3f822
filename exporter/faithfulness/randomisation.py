"""The parameters of a model, randomised stage by stage from its output down.

A map that explains a model has to change with it (Adebayo et al., Sanity Checks for Saliency Maps,
NeurIPS 2018: cascading randomisation).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from exporter.capture import guest
from exporter.errors import NoLayerError
from exporter.layers import Trial
from exporter.layers.stages import choose_stages

Stages = Mapping[str, tuple[str, ...]]
"""By the name of a stage, the names of its parameters; the stage nearest to the output first."""


def stages_of(trial: Trial) -> Stages:
    """Cut a model's parameters into stages, where ``auto`` explains one.

    What runs behind the deepest of them is a stage of its own, the head. A parameter belongs to the
    stage in which its module, or the next one around it that is called, begins.

    Returns:
        The stages that have parameters, each called by its first and last module that has some.
    """
    names: tuple[str, ...] = ()
    with suppress(NoLayerError):
        names, _ = choose_stages(trial)
    ends = sorted(trial.planes[name].position for name in names)
    begins: dict[str, int] = {}
    for call in trial.calls:
        begins[call.layer.module] = min(call.start, begins.get(call.layer.module, call.start))
    cut: list[dict[str, list[str]]] = [{} for _ in range(len(ends) + 1)]
    for name, parameter in trial.module.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            owner = name.rpartition(".")[0]
            called = owner
            while called and called not in begins:  # a module whose parameters another one uses
                called = called.rpartition(".")[0]
            stage = cut[bisect_left(ends, begins.get(called, 0))]
            stage.setdefault(owner, []).append(name)
    return {
        _called(list(stage)): tuple(name for own in stage.values() for name in own)
        for stage in reversed(cut)
        if stage
    }


def _called(modules: Sequence[str]) -> str:
    first, last = modules[0] or "the model's own", modules[-1] or "the model's own"
    return first if first == last else f"{first} to {last}"


def drawn(module: nn.Module, stages: Stages, seed: int) -> list[list[tuple[nn.Parameter, Tensor]]]:
    """Draw new values for the parameters of every stage.

    Values are normal, with the mean and standard deviation of the trained ones, so that activations
    stay in range. They depend on the seed and the parameter's name alone.

    Returns:
        Of each stage its parameters, with what takes their place.
    """
    parameters = dict(module.named_parameters())
    return [
        [(parameters[name], _like(parameters[name], name, seed)) for name in names]
        for names in stages.values()
    ]


def _like(parameter: nn.Parameter, name: str, seed: int) -> Tensor:
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    trained = parameter.detach().double()
    spread = trained.std(correction=0)
    values = torch.randn(parameter.shape, generator=generator).to(trained.device)
    like = torch.empty_like(parameter, requires_grad=False)
    return like.copy_(values.double() * spread + trained.mean())


@contextmanager
def cascade(
    module: nn.Module, values: Sequence[Sequence[tuple[nn.Parameter, Tensor]]]
) -> Iterator[Iterator[int]]:
    """Randomise a model stage by stage; on leaving, also by an exception, it is as it was found.

    Values are copied into the parameters, so that whatever shares their memory changes with them.
    Run the model once before the first step: a guest learns then whether it writes to parameters.

    Yields:
        An iterator: at each step another stage is randomised, and it yields how many are.
    """
    trained: list[tuple[Tensor, Tensor]] = []

    def steps() -> Iterator[int]:
        for number, stage in enumerate(values, 1):
            for parameter, others in stage:
                # Through ``.data``, or the guest would count it as written, and put it back.
                place, own = parameter.data, parameter.detach().clone()
                place.copy_(own)  # one that cannot be written, such as an expanded one, fails here
                trained.append((place, own))
                place.copy_(others)
            yield number

    with guest(module):
        try:
            yield steps()
        finally:
            for place, own in reversed(trained):
                place.copy_(own)
