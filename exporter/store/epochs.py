"""The epochs of a training: a run folder each, ``epochs/00012/``, below one folder."""

from __future__ import annotations

import re
from typing import Final

from exporter.store.layout import TOTALS
from exporter.store.stored import run_files
from exporter.stores import Place

EPOCHS: Final = "epochs"
TRAINING: Final = "training.json"


def epoch_folder(epoch: int) -> str:
    """Return where the run of an epoch is: ``epochs/00012``."""
    return f"{EPOCHS}/{epoch:05d}"


def epochs_in(folder: Place) -> dict[int, Place]:
    """Return the finished runs of a training's folder by epoch, in order; none elsewhere."""
    files = run_files(folder)
    if not files.is_folder(EPOCHS):
        return {}
    numbers = sorted(int(name) for name in files.names(EPOCHS) if re.fullmatch(r"\d{5,9}", name))
    return {
        number: folder / epoch_folder(number)
        for number in numbers
        if files.is_folder(epoch_folder(number))
        and files.exists(f"{epoch_folder(number)}/{TOTALS}")
    }
