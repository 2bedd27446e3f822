"""One model's capture and maps together: `compute_maps` for Python, `Explainer` for a run."""

from __future__ import annotations

from exporter.explain.compute import compute_maps
from exporter.explain.described import describe_passes
from exporter.explain.explainer import Explainer
from exporter.explain.fusion import FUSED
from exporter.explain.layers import choose_or_offer, classifiers_at, fitting_methods
from exporter.explain.rows import Computed, Pending, compute, launch, rows
from exporter.explain.sanity import Sanity
from exporter.explain.transfer import transfer_for
from exporter.explain.work import BatchWork, Loaded, Staged, inputs, lay_masks, load, stage

__all__ = [
    "FUSED",
    "BatchWork",
    "Computed",
    "Explainer",
    "Loaded",
    "Pending",
    "Sanity",
    "Staged",
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
    "stage",
    "transfer_for",
]
