"""Models: resolve a spec; layers, outputs, targets, kernels and class names of what it gives."""

from exporter.models.choice import LayerChoice, choose_layers
from exporter.models.classes import check_classes, read_classes
from exporter.models.classifier import find_classifier
from exporter.models.factories import from_reference
from exporter.models.kernels import Kernels, collect_kernels
from exporter.models.labels import LabelMatch, match_labels
from exporter.models.layers import count_layers, layer_table
from exporter.models.layout import Layout, Reshape
from exporter.models.outputs import locate_output
from exporter.models.resolve import ResolvedModel, adopt, resolve, with_output
from exporter.models.targets import Target, parse_target, target_indices

__all__ = [
    "Kernels",
    "LabelMatch",
    "LayerChoice",
    "Layout",
    "Reshape",
    "ResolvedModel",
    "Target",
    "adopt",
    "check_classes",
    "choose_layers",
    "collect_kernels",
    "count_layers",
    "find_classifier",
    "from_reference",
    "layer_table",
    "locate_output",
    "match_labels",
    "parse_target",
    "read_classes",
    "resolve",
    "target_indices",
    "with_output",
]
