"""What ROAD's imputation costs beside the forwards that it is for, and how near it comes.

    python -m benchmarks.road [--model resnet18] [--json]

Time is that of one processor (``time.process_time`` with one torch thread), so that other work on
the machine does not count. Needs SciPy for the exact solution.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from exporter.demo import photographs
from exporter.faithfulness.imputation import impute
from exporter.faithfulness.measure import enlarge, ranks
from exporter.faithfulness.metrics import ROAD_SHARES, STEPS
from exporter.images.decode import decode

SIDE = 224


def exact(image: NDArray[Any], removed: NDArray[np.bool_]) -> NDArray[Any]:
    """Solve the system of (C, H, W) with SciPy's sparse LU, in float64."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    if not removed.any():
        return image.astype(np.float64)
    number = np.full(removed.shape, -1)
    rows, columns = np.nonzero(removed)
    number[removed] = np.arange(len(rows))
    degree, right = np.zeros(len(rows)), np.zeros((len(rows), len(image)))
    parts = []
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    for down, across in steps:
        weight = 1 / 12 if down and across else 1 / 6
        y, x = rows + down, columns + across
        inside = (y >= 0) & (y < removed.shape[0]) & (x >= 0) & (x < removed.shape[1])
        own, y, x = np.nonzero(inside)[0], y[inside], x[inside]
        degree[own] += weight
        other = number[y, x]
        right[own[other < 0]] += weight * image[:, y[other < 0], x[other < 0]].T
        parts.append((own[other >= 0], other[other >= 0], -weight))
    diagonal = np.arange(len(rows))
    cells = (
        np.concatenate([*(np.full(len(own), weight) for own, _, weight in parts), degree]),
        (
            np.concatenate([*(own for own, _, _ in parts), diagonal]),
            np.concatenate([*(other for _, other, _ in parts), diagonal]),
        ),
    )
    solved = image.astype(np.float64)
    solved[:, rows, columns] = splu(sparse.csc_matrix(cells)).solve(right).T
    return solved


def _seconds(work: Callable[[], Any]) -> float:
    work()
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def _removed(cells: int) -> torch.Tensor:
    """Return what ROAD removes for a random map of so many cells a side, bool (8, H, W)."""
    values = np.random.default_rng(cells).random((cells, cells)).astype(np.float32)
    order = ranks(torch.from_numpy(enlarge(values, SIDE, SIDE)))
    counts = torch.tensor([int(share * SIDE**2) for share in ROAD_SHARES])[:, None, None]
    return torch.cat((order >= SIDE**2 - counts, order < counts))


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pixels = decode((photographs() / "astronaut.jpg").read_bytes())
    pixels = cv2.resize(pixels, (SIDE, SIDE)).astype(np.uint8)
    image = (torch.from_numpy(pixels).float().permute(2, 0, 1) / 255 - 0.45) / 0.225
    still = torch.zeros_like(image)
    model = torchvision.models.get_model(asked.model, weights=None).eval()
    model = model.to(memory_format=torch.channels_last)
    # A forward of 17 variants for deletion, another for insertion, 8 for ROAD.
    batch = image[None].repeat(STEPS + 1, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        forwards = _seconds(
            lambda: (model(batch), model(batch), model(batch[: 2 * len(ROAD_SHARES)]))
        )
        found: dict[str, Any] = {"model": asked.model, "forwards": forwards}
        for cells in (7, 14, 28, SIDE):
            removed = _removed(cells)
            seconds = _seconds(partial(impute, image, removed, still))
            filled = impute(image, removed, still).numpy()
            errors = [
                np.abs(one - exact(image.numpy(), hole)).max()
                for one, hole in zip(filled, removed.numpy(), strict=True)
            ]
            error = float(max(errors))
            found[f"{cells}×{cells}"] = {
                "seconds": seconds, "share": seconds / forwards, "largest error": error
            }  # fmt: skip
    print(json.dumps(found, indent=1) if asked.json else _table(found))


def _table(found: dict[str, Any]) -> str:
    lines = [f"42 forwards of {found['model']}: {found['forwards']:.2f} s of one processor"]
    for name, row in list(found.items())[2:]:
        lines.append(
            f"map of {name}: {row['seconds']:.3f} s to impute 8 variants, {row['share']:.2f} of "
            f"the forwards; largest error {row['largest error']:.0e}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
