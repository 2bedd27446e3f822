"""One model's capture and maps together: `compute_maps` for Python, `Explainer` for a run."""

from __future__ import annotations

from exporter.explain.batches import DeviceBatch, HostActivation, HostBatch, HostChannels, HostMap
from exporter.explain.compute import compute_maps
from exporter.explain.explainer import Explainer
from exporter.explain.fusion import FUSED
from exporter.explain.layers import choose_or_offer, fitting_methods
from exporter.explain.maximise import TOGETHER, Maximised, Recipe, maximise
from exporter.explain.requests import Group, Request, Wanted, choose, parse_request, settle
from exporter.explain.targets import PlannedTarget, plan_target

__all__ = [
    "FUSED",
    "TOGETHER",
    "DeviceBatch",
    "Explainer",
    "Group",
    "HostActivation",
    "HostBatch",
    "HostChannels",
    "HostMap",
    "Maximised",
    "PlannedTarget",
    "Recipe",
    "Request",
    "Wanted",
    "choose",
    "choose_or_offer",
    "compute_maps",
    "fitting_methods",
    "maximise",
    "parse_request",
    "plan_target",
    "settle",
]
