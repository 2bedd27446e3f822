"""Map methods: pure functions over captured tensors, a file a family.

Importing this package registers every method; `METHODS` lists them, `get_methods` finds them by
name, and `channel_maps` computes all methods asked for at one layer together.
"""

from __future__ import annotations

# isort: off
# The order of these is the order in which the methods are listed to people.
from exporter.maps import gradient_weighted as _gradient_weighted  # noqa: F401
from exporter.maps import elementwise as _elementwise  # noqa: F401
from exporter.maps import eigen as _eigen  # noqa: F401
from exporter.maps import contrast as _contrast  # noqa: F401
from exporter.maps import perturbation as _perturbation  # noqa: F401
from exporter.maps import attention as _attention  # noqa: F401
from exporter.maps import pixels as _pixels  # noqa: F401
from exporter.maps import averaged as _averaged  # noqa: F401
from exporter.maps import fullgrad as _fullgrad  # noqa: F401
from exporter.maps import occlusion as _occlusion  # noqa: F401
# isort: on

from exporter.maps.context import Attended, PassContext
from exporter.maps.light import count_forwards, lightest
from exporter.maps.needs import Needs, Passes
from exporter.maps.registry import (
    METHODS,
    Method,
    all_methods,
    borrowed_methods,
    get_methods,
    method,
)
from exporter.maps.terms import Terms
from exporter.maps.tiles import channel_maps

__all__ = [
    "METHODS",
    "Attended",
    "Method",
    "Needs",
    "PassContext",
    "Passes",
    "Terms",
    "all_methods",
    "borrowed_methods",
    "channel_maps",
    "count_forwards",
    "get_methods",
    "lightest",
    "method",
]
