"""Whether a model is as often right as it says: reliability bins and their error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.summaries.predictions import Outcomes
from exporter.summaries.tally import UNIT_BITS, share, whole

BINS: Final = 15
"""Bins of equal width that confidences are counted in."""


def reliability(seen: Outcomes) -> NDArray[np.int64]:
    """Count a shard's labelled images by confidence.

    Returns:
        int64 (15, 3): images, those that are right, and the sum of confidences in units of 2**-32.
        Bin b holds confidences in (b / 15, (b + 1) / 15].
    """
    known = seen.labelled & ~np.isnan(seen.confidence)
    confidence = seen.confidence[known]
    bins = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
    counts = np.zeros((BINS, 3), dtype=np.int64)
    values = np.stack(
        [np.ones(len(bins), np.int64), seen.right[known].astype(np.int64), whole(confidence)], 1
    )
    np.add.at(counts, bins, values)
    return counts


def diagram(counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the reliability diagram: a bin's bounds, images, mean confidence and accuracy."""
    return [
        {
            "lower": number / BINS,
            "upper": (number + 1) / BINS,
            "images": images,
            "confidence": share(total, images),
            "accuracy": right / images if images else None,
        }
        for number, (images, right, total) in enumerate(counts.tolist())
    ]


def calibration_error(counts: NDArray[np.int64]) -> float | None:
    """Return the expected calibration error; None without labelled images.

    ECE = Σ_b n_b / n · |accuracy_b - confidence_b| (Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017), with 15 bins of equal width.
    """
    rows: Sequence[Sequence[int]] = counts.tolist()
    images = sum(row[0] for row in rows)
    # |n_b accuracy_b - n_b confidence_b| is a whole number of units, so that the sum is exact.
    gaps = sum(abs((right << UNIT_BITS) - total) for _, right, total in rows)
    return share(gaps, images)
