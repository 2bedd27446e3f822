"""Faithfulness: maps held against the model on variants of each image, or of the model."""

from __future__ import annotations

from exporter.faithfulness import metrics as _metrics  # noqa: F401 — registers the built-in ones
from exporter.faithfulness.measure import measure
from exporter.faithfulness.randomisation import stages_of
from exporter.faithfulness.registry import METRICS, Metric, RankedImage, load_metrics, metric

__all__ = ["METRICS", "Metric", "RankedImage", "load_metrics", "measure", "metric", "stages_of"]
