"""A folder to run the command line in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch, photographs: int) -> None:
    """Go to a folder with photographs of noise, 32 pixels wide and high, and a configuration."""
    (folder / "photos").mkdir()
    (folder / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    noise = np.random.default_rng(0)
    for index in range(photographs):
        pixels = noise.integers(0, 255, (32, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"photos/{index}.png"), pixels)
    monkeypatch.chdir(folder)
