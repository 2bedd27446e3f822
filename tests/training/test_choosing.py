"""The images of a training: drawn once, evenly over the labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from exporter.images import open_images
from exporter.training.choosing import choose


def photographs(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 3), dtype=np.uint8)
    for at, picture in enumerate(pixels):
        path = folder / ("rare" if at < 3 else "common") / f"{at:02d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
    return folder


def test_of_files_each_label_has_its_part_and_the_order_stays(tmp_path: Path) -> None:
    images, rule = choose(photographs(tmp_path), 8, seed=0)
    assert rule == "8 of 20: as many of each label as possible, at random with seed 0"
    entries = open_images(images).entries
    assert Counter(entry.label for entry in entries) == {"rare": 3, "common": 5}
    paths = [entry.path for entry in entries]
    assert paths == sorted(paths)
    assert open_images(choose(tmp_path, 8, seed=0).images).entries == entries
    assert open_images(choose(tmp_path, 8, seed=1).images).entries != entries


def test_a_set_that_is_small_enough_is_taken_whole(tmp_path: Path) -> None:
    assert choose(photographs(tmp_path), 20, seed=0) == (tmp_path, "all 20")


def test_the_targets_of_a_data_set_are_its_labels() -> None:
    items = TensorDataset(torch.rand(50, 3, 8, 8))
    assert choose(items, 4, seed=3).rule == "4 of 50: at random with seed 3"
    items.targets = [7] * 48 + [1, 2]  # type: ignore[attr-defined]
    images, rule = choose(items, 3, seed=0)
    assert isinstance(images, Subset)
    assert len(images) == 3
    assert set(images.indices) >= {48, 49}
    assert "as many of each label as possible" in rule
