"""Several runs side by side: a comparison folder from run folders alone, and its report."""

from exporter.comparison.comparing import compare
from exporter.comparison.folder import Comparison, open_comparison

__all__ = ["Comparison", "compare", "open_comparison"]
