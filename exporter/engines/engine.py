"""The seam between a run and whoever computes its shards."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol

from exporter import doors
from exporter.engines.job import Job, Store
from exporter.errors import ConfigError, choices
from exporter.watch import Watch

OWN: Final = ("local", "ray")
"""Engines of this room, a module each; Ray is imported by what uses it."""


class Engine(Protocol):
    """Gets the shards of a run computed: a module, or an object, with this one function.

    Examples:
        >>> from exporter.engines import compute_shard
        >>> from exporter.demo import example_recipe
        >>> from exporter.planning import bind
        >>> class Here:
        ...     def run(self, job, missing, store, watch):
        ...         for shard in missing:
        ...             store(shard, compute_shard(job, shard))
        >>> stored = []
        >>> with bind(example_recipe()) as job:
        ...     Here().run(job, [0], lambda shard, batches: stored.append(shard), Watch())
        >>> stored
        [0]
    """

    def run(self, job: Job, missing: Sequence[int], store: Store, watch: Watch) -> None:
        """Return when every missing shard is in the run folder.

        A shard that is computed in this process (`compute_shard`) is handed to ``store``. Other
        processes bind ``job.recipe``, which can be pickled, to ``job.plan``, and write their shards
        into the run folder themselves: ``exporter.work(run, shards)`` is all of that. Of shards
        that are missing afterwards the run says so, and ``--resume`` computes them.

        Args:
            job: the recipe and the plan, and what they are bound to in this process.
            missing: numbers of the shards to compute.
            store: writes a shard; calls for several shards may overlap.
            watch: told of every image done.

        Raises:
            ExporterError: if it cannot go on; what is written stays.
        """


def find_engine(name: str) -> Engine:
    """Return an engine by its name: one of `OWN`, or a plug-in's.

    Raises:
        ConfigError: if there is none, or it cannot be loaded.
    """
    engine: Engine
    if name in OWN:
        engine = import_module(f"exporter.engines.{name}")
        return engine
    installed = doors.plugins(doors.ENGINES)
    if name not in installed:
        raise ConfigError(
            f"no engine is called {name!r}; {choices(name, (*OWN, *sorted(installed)))}"
        )
    engine = doors.load_plugin(installed[name])
    if not callable(getattr(engine, "run", None)):
        raise ConfigError(
            f"the engine {name!r} ({installed[name].value}) has no function run; "
            "docs/add-an-engine.md says what is needed"
        )
    return engine
