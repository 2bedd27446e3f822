"""Image sets of any size, made from the bundled photographs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
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

    def write(index: int, cut: int, top: int, left: int, mirrored: bool) -> None:
        source = sources[index % len(sources)]
        picture = cv2.resize(source[top : top + cut, left : left + cut], (side, side))
        pixels = np.asarray(picture[:, ::-1] if mirrored else picture, np.uint8)
        (folder / f"{index:05d}.jpg").write_bytes(encode_jpeg(pixels, 90))

    with ThreadPoolExecutor() as pool:
        written = []
        for index in range(count):
            height, width = sources[index % len(sources)].shape[:2]
            cut = int(min(height, width) * random.uniform(0.7, 1.0))
            top, left = random.integers(height - cut + 1), random.integers(width - cut + 1)
            mirrored = random.random() < 0.5
            written.append(pool.submit(write, index, cut, int(top), int(left), mirrored))
        for each in written:
            each.result()
