"""Make the pictures that excite channels, once the pass over the set is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.maximise.ascent import TOGETHER, Recipe, maximise
from exporter.maximise.requests import Group, Wanted
from exporter.records import OUTPUT, MaximisedPicture
from exporter.render import encode_png
from exporter.watch import Watch

if TYPE_CHECKING:
    from exporter.engines.job import Job

_TRIED_STEPS = 4
"""Steps that are made to say how long all would take."""


def maximise_groups(
    job: Job,
    groups: Sequence[Group],
    missing: Sequence[int],
    write: Callable[[int, list[MaximisedPicture]], None],
    watch: Watch,
) -> None:
    """Make the pictures of the groups that are missing and hand each group, whole, to ``write``.

    Args:
        job: the work.
        groups: channels whose pictures are stored together.
        missing: numbers of the groups to make.
        write: stores one group.
        watch: told of every picture made.
    """
    watch.begin("maximising channels", sum(len(groups[index].channels) for index in missing))
    for index in missing:
        write(index, _pictures(job, groups[index]))
        watch.advance(len(groups[index].channels))


def estimate_maximised(job: Job) -> float:
    """Return the seconds that all pictures asked for would take, from a few steps of each request.

    Which channels are the strongest is not known before the pass; the first ones are timed.
    """
    seconds = 0.0
    for wanted in dict.fromkeys(job.maximised):
        count = wanted.strongest or len(wanted.channels)
        tried = (wanted.channels or tuple(range(count)))[: min(job.batch_size, TOGETHER)]
        recipe = replace(wanted.recipe, steps=min(_TRIED_STEPS, wanted.recipe.steps))
        start = time.perf_counter()
        _pictures(job, Group(wanted.layer, tried, recipe))
        taken = time.perf_counter() - start
        seconds += taken * wanted.recipe.steps / recipe.steps * count / len(tried)
    return seconds


def _pictures(job: Job, group: Group) -> list[MaximisedPicture]:
    preprocessing, classes = job.plan.model.preprocessing, job.plan.model.classes
    made = maximise(
        job.module,
        group.layer,
        group.channels,
        recipe=group.recipe,
        together=min(job.batch_size, TOGETHER),
        view=preprocessing.size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        output=job.output,
        reshape=job.reshape,
    )
    height, width = made.pictures.shape[1:3]
    return [
        MaximisedPicture(
            layer=group.layer,
            channel=channel,
            name=classes[channel] if group.layer == OUTPUT and channel < len(classes) else "",
            before=float(made.before[place]),
            after=float(made.after[place]),
            peak=float(made.peak[place]),
            prior=group.recipe.prior,
            settings=describe(group.recipe),
            height=height,
            width=width,
            picture=encode_png(made.pictures[place]),
        )
        for place, channel in enumerate(group.channels)
    ]


def describe_wanted(wanted: Wanted) -> str:
    """Say what is wanted of one layer.

    >>> describe_wanted(Wanted("layer4", (), 8, Recipe()))
    'layer4: 8 strongest channels, fourier prior, 128 steps of 0.05, shifted anywhere, zoomed up \
to 15 %, seed 0'
    """
    count = wanted.strongest or len(wanted.channels)
    channels = f"{count}{' strongest' if wanted.strongest else ''} channel{'s' * (count != 1)}"
    prior = "no" if wanted.recipe.prior == "none" else wanted.recipe.prior
    return f"{wanted.layer}: {channels}, {prior} prior, {describe(wanted.recipe)}"


def describe(recipe: Recipe) -> str:
    """Say how pictures are made, besides their prior.

    >>> describe(Recipe())
    '128 steps of 0.05, shifted anywhere, zoomed up to 15 %, seed 0'
    """
    shift = "anywhere" if recipe.jitter is None else f"up to {recipe.jitter} pixels"
    parts = [f"{recipe.steps} steps of {recipe.rate:g}", f"shifted {shift}"]
    parts.append(f"zoomed up to {100 * recipe.zoom:g} %")
    if recipe.prior == "total-variation":
        parts.append(f"weight {recipe.weight:g}")
    return ", ".join([*parts, f"seed {recipe.seed}"])
