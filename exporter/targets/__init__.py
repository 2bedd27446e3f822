"""Targets: outputs and how they are read, what is explained, and its score."""

from __future__ import annotations

from exporter.records import Target, parse_target
from exporter.targets.detection import all_shares, is_detections, watching
from exporter.targets.outputs import check_rows, locate_output, say_guess
from exporter.targets.planned import PlannedTarget, plan_target, settle_reading
from exporter.targets.probabilities import last_function
from exporter.targets.readings import rows_of
from exporter.targets.scorer import Scored, Scorer, target_indices

__all__ = [
    "PlannedTarget",
    "Scored",
    "Scorer",
    "Target",
    "all_shares",
    "check_rows",
    "is_detections",
    "last_function",
    "locate_output",
    "parse_target",
    "plan_target",
    "rows_of",
    "say_guess",
    "settle_reading",
    "target_indices",
    "watching",
]
