"""One model's capture and maps together: `compute_maps` for Python, `Explainer` for a run."""

from __future__ import annotations

from exporter.explain.batches import DeviceBatch, HostActivation, HostBatch, HostChannels, HostMap
from exporter.explain.compute import compute_maps
from exporter.explain.explainer import Explainer
from exporter.explain.layers import choose_or_offer, fitting_methods
from exporter.explain.targets import PlannedTarget, plan_target

__all__ = [
    "DeviceBatch",
    "Explainer",
    "HostActivation",
    "HostBatch",
    "HostChannels",
    "HostMap",
    "PlannedTarget",
    "choose_or_offer",
    "compute_maps",
    "fitting_methods",
    "plan_target",
]
