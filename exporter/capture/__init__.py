"""Capture: one forward and one backward for every layer at once, the model left as it was.

`guest` borrows a model and restores it; `capture` runs it once with hooks; `plan_passes` says which
passes a set of map methods takes; `channel_statistics` and `strongest_channels` reduce activations
on the device.
"""

from __future__ import annotations

from exporter.capture.attention import AttentionPass, SelfAttention, attention_pass, find_attention
from exporter.capture.guest import guest
from exporter.capture.passes import Captured, capture
from exporter.capture.reduce import (
    Statistics,
    Strongest,
    channel_statistics,
    quantise,
    strongest_channels,
)
from exporter.capture.rerun import follows_alone, run_from
from exporter.capture.rules import relu_rule

__all__ = [
    "AttentionPass",
    "Captured",
    "SelfAttention",
    "Statistics",
    "Strongest",
    "attention_pass",
    "capture",
    "channel_statistics",
    "find_attention",
    "follows_alone",
    "guest",
    "quantise",
    "relu_rule",
    "run_from",
    "strongest_channels",
]
