"""Capture: one forward and one backward for every layer at once, the model left as it was.

`guest` borrows a model and restores it; `capture` runs it once with hooks; `plan_passes` says which
passes a set of map methods takes; `channel_statistics` and `strongest_channels` reduce activations
on the device.
"""

from __future__ import annotations

from exporter.capture.guest import guest
from exporter.capture.passes import Captured, capture
from exporter.capture.planner import Pass, plan_passes
from exporter.capture.reduce import (
    Statistics,
    Strongest,
    channel_statistics,
    quantise,
    strongest_channels,
)

__all__ = [
    "Captured",
    "Pass",
    "Statistics",
    "Strongest",
    "capture",
    "channel_statistics",
    "guest",
    "plan_passes",
    "quantise",
    "strongest_channels",
]
