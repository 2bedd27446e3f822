"""Models: resolve a spec; layers, outputs, targets, kernels and class names of what it gives."""

from exporter.models.choice import LayerChoice, choose_layers
from exporter.models.classes import check_classes, read_classes
from exporter.models.classifier import find_classifier
from exporter.models.detection import is_detections, watching
from exporter.models.factories import from_reference, load_attribute
from exporter.models.kernels import Kernels, collect_kernels
from exporter.models.labels import LabelMatch, match_labels
from exporter.models.layers import count_layers, layer_table
from exporter.models.layout import Layout, Reshape
from exporter.models.obstacles import is_quantised, is_scripted
from exporter.models.outputs import locate_output, say_guess
from exporter.models.readings import READINGS, Reading, rows_of
from exporter.models.resolve import ResolvedModel, adopt, resolve, with_output
from exporter.models.scorer import Scored, Scorer
from exporter.models.scripted import Retold, retell
from exporter.models.targets import Target, parse_target, target_indices

__all__ = [
    "READINGS",
    "Kernels",
    "LabelMatch",
    "LayerChoice",
    "Layout",
    "Reading",
    "Reshape",
    "ResolvedModel",
    "Retold",
    "Scored",
    "Scorer",
    "Target",
    "adopt",
    "check_classes",
    "choose_layers",
    "collect_kernels",
    "count_layers",
    "find_classifier",
    "from_reference",
    "is_detections",
    "is_quantised",
    "is_scripted",
    "layer_table",
    "load_attribute",
    "locate_output",
    "match_labels",
    "parse_target",
    "read_classes",
    "resolve",
    "retell",
    "rows_of",
    "say_guess",
    "target_indices",
    "watching",
    "with_output",
]
