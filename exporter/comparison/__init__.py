"""Several runs side by side: a comparison folder from run folders alone, and its report."""

from exporter.comparison.comparing import WRITERS, compare
from exporter.comparison.folder import Comparison, open_comparison

__all__ = ["WRITERS", "Comparison", "compare", "open_comparison"]
