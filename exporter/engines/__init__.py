"""Who computes which shard: ``local`` runs them all in this process."""

from __future__ import annotations

from exporter.engines.job import Job
from exporter.engines.local import compute_shards

__all__ = [
    "Job",
    "compute_shards",
]
