"""The small models of the layers' tests."""

from __future__ import annotations

from tests.layers.conftest import example, make_small, small

__all__ = ["example", "make_small", "small"]
