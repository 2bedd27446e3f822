"""Who computes which shard: the `Engine` protocol, and ``local``, which does it in this process."""

from __future__ import annotations

from exporter.engines.engine import Engine, find_engine
from exporter.engines.job import Job, Store
from exporter.engines.local import compute_shard
from exporter.engines.recipe import Recipe
from exporter.engines.replicas import with_replicas
from exporter.explain import Computed

__all__ = [
    "Computed",
    "Engine",
    "Job",
    "Recipe",
    "Store",
    "compute_shard",
    "find_engine",
    "with_replicas",
]
