"""What was compared, how far it was off at most, and what missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.parity.taking import Array, array


def difference(found: Tensor | Array, expected: Array) -> float:
    """Return the largest difference in units of the expected map's range.

    A map that is the same everywhere has no range: 0 where the two are equal, infinity otherwise.
    What is not a number is infinitely far off.
    """
    values = array(found) if isinstance(found, Tensor) else found
    if values.shape != expected.shape:
        return float("inf")
    span = float(np.ptp(expected))
    off = float(np.abs(values - expected).max())
    if np.isnan(off):
        return float("inf")
    if span == 0:
        return 0.0 if off == 0 else float("inf")
    return off / span


@dataclass
class Count:
    """The comparisons of one method, or of one thing that must not matter.

    Attributes:
        largest: difference, in units of the map's range.
        cases: maps compared.
        flat: maps without contrast that were equal, and not counted as cases.
        architectures: compared on.
    """

    largest: float = 0.0
    cases: int = 0
    flat: int = 0
    architectures: set[str] = field(default_factory=set)

    def add(self, error: float, architecture: str, *, flat: bool = False) -> None:
        """Count one map; an error that is not a number is the largest there is."""
        self.flat += flat
        self.cases += not flat
        self.architectures.add(architecture)
        self.largest = max(self.largest, float("inf") if np.isnan(error) else error)

    def json(self) -> dict[str, Any]:
        """Return the entry of the JSON."""
        return {
            "largest": finite(self.largest),
            "cases": self.cases,
            "flat": self.flat,
            "architectures": len(self.architectures),
        }


def finite(value: float) -> float | str:
    """Return a number that JSON can hold: three digits, or the word for infinity."""
    return float(f"{value:.3g}") if np.isfinite(value) else "infinite"


@dataclass
class Tally:
    """All counts of one part of the JSON, and the misses of every part.

    Attributes:
        part: its name in the JSON.
        missed: shared by all parts; a line of facts for each.
        counts: by method.
    """

    part: str
    missed: list[dict[str, Any]]
    counts: dict[str, Count] = field(default_factory=dict)

    def add(
        self,
        method: str,
        where: tuple[str, str],
        found: Tensor | Array | None,
        expected: Array,
        allowed: float,
    ) -> None:
        """Compare one map.

        Args:
            method: registry name, or what else is compared.
            where: architecture and layer.
            found: the package's map; None if it gave none.
            expected: the reference.
            allowed: difference, in units of the expected range.
        """
        error = float("inf") if found is None else difference(found, expected)
        flat = bool(np.ptp(expected) == 0) and error == 0
        self.counts.setdefault(method, Count()).add(error, where[0], flat=flat)
        if not error <= allowed:
            what = "gave no map" if found is None else f"off by {error:.3g} of the map's range"
            self.miss(method, where, f"{what}, {allowed:.3g} is allowed")

    def miss(self, method: str, where: tuple[str, str], why: str) -> None:
        """Write down that something is not as it has to be."""
        self.missed.append(
            {
                "part": self.part,
                "method": method,
                "architecture": where[0],
                "layer": where[1],
                "why": why,
            }
        )

    def json(self) -> dict[str, Any]:
        """Return the counts by method."""
        return {method: count.json() for method, count in self.counts.items()}

    def summary(self) -> dict[str, Any]:
        """Return one count of all methods together."""
        counts = self.counts.values()
        return {
            "largest": finite(max((one.largest for one in counts), default=0.0)),
            "cases": sum(one.cases for one in counts),
            "methods": len(counts),
            "architectures": len(set().union(*(one.architectures for one in counts))),
        }
