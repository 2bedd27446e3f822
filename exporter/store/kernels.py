"""``kernels/``: a sheet and the raw weights of every layer whose kernels were asked for."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.errors import RunError
from exporter.records import KernelRecord
from exporter.store.files import remove, sync_folder, write_whole, writing
from exporter.store.layout import KERNEL_LIST, KERNELS, temporary
from exporter.store.plans import validated


@dataclass(frozen=True, slots=True)
class KernelSheet:
    """The kernels of one layer, ready to be stored.

    Attributes:
        name: layer or parameter name.
        type: class name of the module that holds them.
        values: float32 (O, I, kh, kw).
        picture: the sheet, PNG.
        shown: how many kernels it shows.
    """

    name: str
    type: str
    values: NDArray[np.float32]
    picture: bytes
    shown: int


def write_kernels(run: Path, sheets: Sequence[KernelSheet]) -> tuple[KernelRecord, ...]:
    """Write ``kernels/`` anew, swapped in as a whole.

    Raises:
        RunError: if the folder cannot be written.
    """
    folder = run / KERNELS
    half = temporary(folder)
    records = tuple(_record(number, sheet) for number, sheet in enumerate(sheets))
    with writing(folder, half):
        half.mkdir()
        for record, sheet in zip(records, sheets, strict=True):
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(sheet.values, dtype="<f4"))
            write_whole(half / record.values, content.getvalue())
            write_whole(half / record.sheet, sheet.picture)
        text = json.dumps([asdict(record) for record in records], indent=1) + "\n"
        write_whole(half / KERNEL_LIST, text.encode("ascii"))
        remove(folder)
        half.replace(folder)
        sync_folder(run)
    return records


def _record(number: int, sheet: KernelSheet) -> KernelRecord:
    # Names of parameters become file names: only what every file system takes, and numbered.
    stem = f"{number:03d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', sheet.name)[:80]}"
    return KernelRecord(
        name=sheet.name,
        type=sheet.type,
        shape=tuple(sheet.values.shape),
        lo=float(sheet.values.min()),
        hi=float(sheet.values.max()),
        sheet=f"{stem}.png",
        values=f"{stem}.npy",
        shown=sheet.shown,
        total=int(sheet.values.shape[0]),
    )


def read_kernels(run: Path) -> tuple[KernelRecord, ...]:
    """Return the sheets of a run, none where no kernels were asked for.

    Raises:
        RunError: if ``kernels.json`` is damaged.
    """
    path = run / KERNELS / KERNEL_LIST
    if not path.exists():
        return ()
    remedy = "make the run again with --overwrite"
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} is damaged ({error}); {remedy}") from None
    return validated(tuple[KernelRecord, ...], values, path, remedy)
