"""Whether a model is as often right as it says: reliability bins and their error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from exporter.records import CalibrationBin, ratio
from exporter.summaries.predictions import Outcomes
from exporter.summaries.sums import BinSums

BINS: Final = 15
"""Bins of equal width that confidences are counted in."""


def bin_sums(seen: Outcomes) -> list[BinSums]:
    """Count a shard's labelled images by confidence.

    Returns:
        Sums of each bin that has images; bin b holds confidences in (b / 15, (b + 1) / 15].
    """
    known = seen.labelled & ~np.isnan(seen.confidence)
    confidence, right = seen.confidence[known], seen.right[known]
    bins = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
    return [
        BinSums(
            number,
            int((bins == number).sum()),
            int(right[bins == number].sum()),
            float(confidence[bins == number].sum()),
        )
        for number in np.unique(bins).tolist()
    ]


def diagram(sums: Mapping[tuple[int], BinSums]) -> tuple[CalibrationBin, ...]:
    """Return the reliability diagram: bounds, images, mean confidence and accuracy per bin."""
    counts = [sums.get((number,), BinSums(number)) for number in range(BINS)]
    return tuple(
        CalibrationBin(
            lower=part.bin / BINS,
            upper=(part.bin + 1) / BINS,
            images=part.images,
            confidence=ratio(part.confidence, part.images),
            accuracy=ratio(part.correct, part.images),
        )
        for part in counts
    )


def calibration_error(sums: Mapping[tuple[int], BinSums]) -> float | None:
    """Return the expected calibration error; None without labelled images.

    ECE = Σ_b n_b / n · |accuracy_b - confidence_b| (Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017), with 15 bins of equal width.
    """
    gaps = sum(abs(part.correct - part.confidence) for part in sums.values())
    return ratio(gaps, sum(part.images for part in sums.values()))
