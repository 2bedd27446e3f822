"""One model's capture and maps together: `compute_maps` for Python, `Explainer` for a run."""

from __future__ import annotations

from exporter.explain.batches import DeviceBatch, HostActivation, HostBatch, HostChannels, HostMap
from exporter.explain.compute import compute_maps
from exporter.explain.explainer import Explainer
from exporter.explain.fusion import FUSED
from exporter.explain.maximise import Maximised, maximise

__all__ = [
    "FUSED",
    "DeviceBatch",
    "Explainer",
    "HostActivation",
    "HostBatch",
    "HostChannels",
    "HostMap",
    "Maximised",
    "compute_maps",
    "maximise",
]
