"""One model's capture and maps together: `compute_maps` for Python, `Explainer` for a run."""

from __future__ import annotations

from exporter.explain.compute import compute_maps
from exporter.explain.explainer import Explainer, describe_passes
from exporter.explain.fusion import FUSED
from exporter.explain.layers import choose_or_offer, classifiers_at, fitting_methods
from exporter.explain.rows import Computed, HostBatch, Pending, compute, launch, rows
from exporter.explain.work import BatchWork, Loaded, inputs, lay_masks, load

__all__ = [
    "FUSED",
    "BatchWork",
    "Computed",
    "Explainer",
    "HostBatch",
    "Loaded",
    "Pending",
    "choose_or_offer",
    "classifiers_at",
    "compute",
    "compute_maps",
    "describe_passes",
    "fitting_methods",
    "inputs",
    "launch",
    "lay_masks",
    "load",
    "rows",
]
