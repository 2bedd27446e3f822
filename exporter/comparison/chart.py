"""Lines over the runs of a comparison, in the unit of a chart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHART = (100, 44)
"""Width and height of a chart, in its own unit."""

_NAME = 4.0
"""Height of the name at the end of a line."""


def chart_lines(
    lines: Sequence[tuple[str, Sequence[float | None]]],
) -> tuple[list[tuple[str, str, list[tuple[float, float, float, int]], float]], float]:
    """Return each line's name, path, points (x, y, value, run) and where its name stands; the low.

    Names stand below one another as far as the chart has room for all of them.
    """
    width, height = CHART
    values = [v for _, line in lines for v in line if v is not None]
    low = float(np.floor(5 * min(0.0, *values)) / 5)
    drawn = []
    for name, line in lines:
        points = [
            (width * at / (len(line) - 1), height * (1 - (v - low) / (1 - low)), v, at)
            for at, v in enumerate(line)
            if v is not None
        ]
        path = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y, _, _ in points)
        drawn.append((name, path, points))
    room = _NAME if len(drawn) * _NAME <= height else 0.0
    places: dict[str, float] = {}
    for name, _, points in sorted(drawn, key=lambda line: line[2][-1][1]):
        places[name] = max([points[-1][1], *(place + room for place in places.values())])
    return [(*line, places[line[0]]) for line in drawn], low
