"""Image sets of any size, made from the bundled photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from exporter.demo import photographs
from exporter.images import decode
from exporter.render import encode_jpeg


def make_photographs(folder: Path, count: int, *, side: int = 500, seed: int = 0) -> None:
    """Write ``count`` different JPEG files of ``side`` pixels, cut out of the bundled photographs.

    Args:
        folder: where they go; made if absent.
        count: how many.
        side: width and height in pixels.
        seed: decides the cuts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [decode(path.read_bytes()) for path in sorted(photographs().glob("*.jpg"))]
    random = np.random.default_rng(seed)
    for index in range(count):
        source = sources[index % len(sources)]
        height, width = source.shape[:2]
        cut = int(min(height, width) * random.uniform(0.7, 1.0))
        top, left = random.integers(height - cut + 1), random.integers(width - cut + 1)
        picture = cv2.resize(source[top : top + cut, left : left + cut], (side, side))
        if random.random() < 0.5:
            picture = picture[:, ::-1]
        (folder / f"{index:05d}.jpg").write_bytes(encode_jpeg(np.asarray(picture), 90))
