"""Capture: one forward and one backward for every layer at once, the model left as it was.

`guest` borrows a model and restores it; `capture` runs it once with hooks; `channel_statistics` and
`strongest_channels` reduce activations on the device. No other room registers hooks: they hand
`hooked` their functions.
"""

from __future__ import annotations

from exporter.capture.attention import AttentionPass, SelfAttention, attention_pass, find_attention
from exporter.capture.chance import random_states, restore_random
from exporter.capture.compiled import CompiledCapture
from exporter.capture.graphs import derived_once, graph_nodes
from exporter.capture.guest import Changes, guest, lent, watch_changes
from exporter.capture.hooks import After, hooked, on_gradient, record_layers
from exporter.capture.modes import BiasTerms, Stepping, TwiceDifferentiable, relu_rule
from exporter.capture.names import (
    QUOTED,
    LayerName,
    expand,
    find_layer,
    first_names,
    is_pattern,
    named_layers,
    parse_name,
    quoted,
    unquoted,
)
from exporter.capture.passes import Captured, capture
from exporter.capture.precision import (
    FLOAT32,
    TYPES,
    Precision,
    held_in,
    in_full_float32,
    precision_of,
    rounds_to_tf32,
    run_in,
    tf32_environment,
    unscaled_in,
)
from exporter.capture.reduce import (
    Statistics,
    Strongest,
    all_channels,
    channel_statistics,
    magnitudes,
    quantise,
    strongest_channels,
    unless_narrow,
)
from exporter.capture.rerun import agrees_alone, all_close, close, follows_alone, run_from
from exporter.capture.unfit import refuse_unfit, unwrapped

__all__ = [
    "FLOAT32",
    "QUOTED",
    "TYPES",
    "After",
    "AttentionPass",
    "BiasTerms",
    "Captured",
    "Changes",
    "CompiledCapture",
    "LayerName",
    "Precision",
    "SelfAttention",
    "Statistics",
    "Stepping",
    "Strongest",
    "TwiceDifferentiable",
    "agrees_alone",
    "all_channels",
    "all_close",
    "attention_pass",
    "capture",
    "channel_statistics",
    "close",
    "derived_once",
    "expand",
    "find_attention",
    "find_layer",
    "first_names",
    "follows_alone",
    "graph_nodes",
    "guest",
    "held_in",
    "hooked",
    "in_full_float32",
    "is_pattern",
    "lent",
    "magnitudes",
    "named_layers",
    "on_gradient",
    "parse_name",
    "precision_of",
    "quantise",
    "quoted",
    "random_states",
    "record_layers",
    "refuse_unfit",
    "relu_rule",
    "restore_random",
    "rounds_to_tf32",
    "run_from",
    "run_in",
    "strongest_channels",
    "tf32_environment",
    "unless_narrow",
    "unquoted",
    "unscaled_in",
    "unwrapped",
    "watch_changes",
]
