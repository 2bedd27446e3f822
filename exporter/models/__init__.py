"""Models: a spec becomes a module with its preprocessing and class names."""

from __future__ import annotations

from exporter.models.adapting import adapt
from exporter.models.classes import check_classes, match_labels, read_classes
from exporter.models.placement import (
    choose_device,
    float_type,
    has_convolutions,
    has_format,
    refuse_precision,
)
from exporter.models.resolve import ResolvedModel, adopt, resolve
from exporter.models.texts import embed_text, refuse_classes

__all__ = [
    "ResolvedModel",
    "adapt",
    "adopt",
    "check_classes",
    "choose_device",
    "embed_text",
    "float_type",
    "has_convolutions",
    "has_format",
    "match_labels",
    "read_classes",
    "refuse_classes",
    "refuse_precision",
    "resolve",
]
