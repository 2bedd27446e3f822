"""The registry of faithfulness metrics: one function and one decorator each.

A metric is given a `RankedImage`: an image, and the order in which a map ranks its pixels. It runs
the model on variants of the image and returns one number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from exporter import doors
from exporter.errors import ConfigError


@dataclass(frozen=True)
class RankedImage:
    """What a metric is given: one image, and how a map ranks its pixels.

    Attributes:
        image: (C, H, W), the model's input, on its device; float32, or float64 for such a model.
        saliency: float32 (H, W), the map, enlarged bilinearly, rectified where its method says so.
        ranks: int64 (H, W), 0 the most salient pixel; of equals the first, row by row, leads.
        noise: (C, H, W), normal with standard deviation 1, the same for the image in every run.
        probability: from variants (V, C, H, W), of the image's type, to the probability of the
            explained class, float64 (V,) on the host.
    """

    image: Tensor
    saliency: Tensor
    ranks: Tensor
    noise: Tensor
    probability: Callable[[Tensor], Tensor]


Compute = Callable[[RankedImage], float]


@dataclass(frozen=True)
class Metric:
    """One registered metric.

    Attributes:
        name: registry name.
        about: what it is, its range and which values are better, in a line that reports show.
        compute: the function; where it returns a value that is not finite, nothing is stored.
    """

    name: str
    about: str
    compute: Compute


_REGISTERED: dict[str, Metric] = {}

METRICS: Mapping[str, Metric] = MappingProxyType(_REGISTERED)
"""Every metric by name, in the order in which reports list them."""


def metric(name: str, about: str) -> Callable[[Compute], Compute]:
    """Register a metric; used as a decorator, it returns the function unchanged.

    Args:
        name: such as ``deletion``.
        about: what it is, its range and which values are better.

    Raises:
        ConfigError: if the name is taken.
    """

    def register(compute: Compute) -> Compute:
        if name in _REGISTERED and _REGISTERED[name].compute is not compute:
            raise ConfigError(f"there is a metric called {name!r} already; choose another name")
        _REGISTERED[name] = Metric(name, about, compute)
        return compute

    return register


def load_metrics() -> tuple[Metric, ...]:
    """Return every metric, those of installed plug-ins (``exporter.metrics``) last.

    Raises:
        ConfigError: if a plug-in cannot be loaded, or registers no metric.
    """
    for entry in doors.plugins(doors.METRICS).values():
        compute = doors.load_plugin(entry)
        if all(known.compute is not compute for known in METRICS.values()):
            raise ConfigError(
                f"the plug-in {entry.name!r} ({entry.value}) is not a function with "
                "@exporter.faithfulness.metric above it; docs/add-a-metric.md says what is needed"
            )
    return tuple(METRICS.values())
