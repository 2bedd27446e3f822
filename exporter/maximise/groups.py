"""Choose channels, and make the pictures that excite them, once the pass over the set is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from torch import nn

from exporter.guard import user_code
from exporter.maximise.ascent import TOGETHER, AscentSettings, maximise
from exporter.maximise.requests import Wanted
from exporter.records import OUTPUT, MaximisedPicture, ModelRecord, own_name
from exporter.render import encode_png
from exporter.watch import Watch

_TRIED_STEPS = 4
"""Steps that are made to say how long all would take."""


Make = Callable[[Wanted], list[MaximisedPicture]]
"""Makes the pictures of one group: `make_pictures` with everything but the group."""


def maximise_groups(
    make: Make,
    groups: Sequence[Wanted],
    missing: Sequence[int],
    write: Callable[[int, list[MaximisedPicture]], None],
    watch: Watch,
) -> None:
    """Make the pictures of the groups that are missing and hand each group, whole, to ``write``."""
    watch.begin("maximising channels", sum(len(groups[index].channels) for index in missing))
    for index in missing:
        write(index, make(groups[index]))
        watch.advance(len(groups[index].channels))


def estimate_maximised(make: Make, wanted: Sequence[Wanted]) -> float:
    """Return the seconds that all pictures asked for would take, from a few steps of each request.

    Which channels are the strongest is not known before the pass; the first ones are timed.
    """
    seconds = 0.0
    for asked in dict.fromkeys(wanted):
        count = asked.strongest or len(asked.channels)
        tried = (asked.channels or tuple(range(count)))[:TOGETHER]
        steps = min(_TRIED_STEPS, asked.settings.steps)
        start = time.perf_counter()
        settings = replace(asked.settings, steps=steps)
        make(replace(asked, channels=tried, settings=settings))
        taken = time.perf_counter() - start
        seconds += taken * asked.settings.steps / steps * count / len(tried)
    return seconds


def make_pictures(
    module: nn.Module, model: ModelRecord, group: Wanted, **options: Any
) -> list[MaximisedPicture]:
    """Make the pictures of one group, as they are stored.

    Raises:
        ModelError: if the model fails on the pictures.
    """
    preprocessing, classes = model.preprocessing, model.classes
    pictures, advice = f"the pictures made for {group.layer!r}", "fix it and go on with --resume"
    memory = (
        "not even one picture fits into memory: free some and go on with --resume, or give a "
        "smaller size to --maximise"
    )
    with user_code("the model", pictures, advice=advice, memory=memory):
        maximised = maximise(
            module,
            group.layer,
            group.channels,
            settings=group.settings,
            view=preprocessing.size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            **options,
        )
    height, width = maximised.pictures.shape[1:3]
    return [
        MaximisedPicture(
            layer=group.layer,
            channel=channel,
            name=classes[channel] if group.layer == OUTPUT and channel < len(classes) else "",
            before=float(maximised.before[n]),
            after=float(maximised.after[n]),
            peak=float(maximised.peak[n]),
            prior=group.settings.prior,
            settings=describe(group.settings),
            height=height,
            width=width,
            picture=encode_png(maximised.pictures[n]),
        )
        for n, channel in enumerate(group.channels)
    ]


def choose(
    wanted: Sequence[Wanted],
    means: Mapping[str, Mapping[int, float]],
    predicted: Mapping[int, float],
) -> tuple[Wanted, ...]:
    """Say which channels' pictures are made, now that the pass is done, and which together.

    Returns:
        Groups of at most `TOGETHER` channels by layer and settings, in the order in which these are
        first asked for, the same whatever the batches of the run: each is a file of the run folder,
        and a run may be resumed with smaller batches. The strongest channels of a layer have the
        largest mean over the set, the strongest classes the most predictions; of equals the lower
        number.
    """
    alike: dict[tuple[str, AscentSettings], dict[int, None]] = {}
    for asked in wanted:
        numbers = asked.channels
        if asked.strongest:
            known = predicted if asked.layer == OUTPUT else means[own_name(asked.layer)]
            # A mean that is not a number comes last.
            order = sorted((isnan(value), -value, number) for number, value in known.items())
            numbers = tuple(number for _, _, number in order[: asked.strongest])
        if numbers:
            alike.setdefault((asked.layer, asked.settings), {}).update(dict.fromkeys(numbers))
    return tuple(
        Wanted(layer, tuple(channels)[start : start + TOGETHER], 0, settings)
        for (layer, settings), channels in alike.items()
        for start in range(0, len(channels), TOGETHER)
    )


def describe_wanted(wanted: Wanted) -> str:
    """Say what is wanted of one layer.

    >>> describe_wanted(Wanted("layer4", (), 8, AscentSettings()))
    'layer4: 8 strongest channels, fourier prior, 128 steps of 0.05, shifted anywhere, zoomed up \
to 15 %, seed 0'
    """
    count = wanted.strongest or len(wanted.channels)
    channels = f"{count}{' strongest' if wanted.strongest else ''} channel{'s' * (count != 1)}"
    prior = "no" if wanted.settings.prior == "none" else wanted.settings.prior
    return f"{wanted.layer}: {channels}, {prior} prior, {describe(wanted.settings)}"


def describe(settings: AscentSettings) -> str:
    """Say how pictures are made, besides their prior: steps, shifts, zooms and seed."""
    shift = "anywhere" if settings.jitter is None else f"up to {settings.jitter} pixels"
    parts = [f"{settings.steps} steps of {settings.rate:g}", f"shifted {shift}"]
    parts.append(f"zoomed up to {100 * settings.zoom:g} %")
    if settings.prior == "total-variation":
        parts.append(f"weight {settings.weight:g}")
    return ", ".join([*parts, f"seed {settings.seed}"])
