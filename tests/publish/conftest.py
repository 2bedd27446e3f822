"""What is published: the runs and the comparison that tests/comparison makes."""

from tests.comparison.conftest import build, checkpoints, comparison

__all__ = ["build", "checkpoints", "comparison"]
