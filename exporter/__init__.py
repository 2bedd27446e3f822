"""See what a vision model sees, over a whole image set, in one pass.

The public interface is what this module names; torch is imported only by what needs it, so that
``open_run`` and the writers work without it. Type checkers and editors read ``__init__.pyi``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("exporter")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0.0.0"

_HOMES = {
    "Watcher": "exporter.training",
    "Comparison": "exporter.comparison",
    "compare": "exporter.comparison",
    "open_comparison": "exporter.comparison",
    "compute_maps": "exporter.explain",
    "export": "exporter.run",
    "figure": "exporter.publish",
    "finish": "exporter.run",
    "method": "exporter.maps",
    "pack": "exporter.publish",
    "plan": "exporter.run",
    "publish_site": "exporter.publish",
    "table": "exporter.publish",
    "wandb_report": "exporter.publish",
    "work": "exporter.run",
    "Run": "exporter.store",
    "open_run": "exporter.store",
}

__all__ = [
    "Comparison",
    "Run",
    "Watcher",
    "__version__",
    "compare",
    "compute_maps",
    "export",
    "figure",
    "finish",
    "method",
    "open_comparison",
    "open_run",
    "pack",
    "plan",
    "publish_site",
    "table",
    "wandb_report",
    "work",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'exporter' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
