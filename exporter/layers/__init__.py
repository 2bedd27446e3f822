"""Layers: which there are, how each lies in the plane, which are explained, their kernels."""

from __future__ import annotations

from exporter.layers.choice import LayerChoice, choose_layers
from exporter.layers.classifier import ClassifierError, find_classifier
from exporter.layers.encoder import Encoder
from exporter.layers.findings import find_out
from exporter.layers.further import try_images
from exporter.layers.kernels import Kernels, collect_kernels
from exporter.layers.layout import Layout, Reshape
from exporter.layers.reshape import GivenReshape
from exporter.layers.table import count_layers, layer_table, layout_records
from exporter.layers.trial import Trial, run_trial

__all__ = [
    "ClassifierError",
    "Encoder",
    "GivenReshape",
    "Kernels",
    "LayerChoice",
    "Layout",
    "Reshape",
    "Trial",
    "choose_layers",
    "collect_kernels",
    "count_layers",
    "find_classifier",
    "find_out",
    "layer_table",
    "layout_records",
    "run_trial",
    "try_images",
]
