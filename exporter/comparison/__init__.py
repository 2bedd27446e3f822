"""Several runs side by side: a comparison folder from run folders alone, and its report."""

from exporter.comparison.checking import check
from exporter.comparison.comparing import compare
from exporter.comparison.folder import Comparison, open_comparison
from exporter.comparison.rendering import WRITERS, render
from exporter.store.layout import is_comparison

__all__ = [
    "WRITERS",
    "Comparison",
    "check",
    "compare",
    "is_comparison",
    "open_comparison",
    "render",
]
