"""``kernels/``: a sheet and the raw weights of every layer whose kernels were asked for."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.records import KernelRecord
from exporter.store.checksums import record, settle, sum_of, verify
from exporter.store.documents import damaged, json_bytes, read_json, validated
from exporter.store.files import RunFiles
from exporter.store.layout import HEAD, KERNEL_LIST, KERNELS
from exporter.store.recipes import plan_again
from exporter.store.replacing import new_folder


@dataclass(frozen=True, slots=True)
class KernelSheet:
    """The kernels of one layer, float32 (O, I, kh, kw), and a sheet as PNG that shows some."""

    name: str
    type: str
    values: NDArray[np.float32]
    picture: bytes
    shown: int


def write_kernels(
    run: RunFiles, sheets: Sequence[KernelSheet], head: NDArray[np.float32] | None = None
) -> tuple[KernelRecord, ...]:
    """Write ``kernels/`` anew, swapped in as a whole; not where it is there and whole.

    ``head``, float32 (K, C + 1), is the rows of the linear head and their biases.

    Raises:
        RunError: if the folder cannot be written.
    """
    records = tuple(_record(number, sheet) for number, sheet in enumerate(sheets))
    if verify(run, KERNEL_LIST) is not None and read_kernels(run) == records:
        return records
    checksums = {}
    with new_folder(run, KERNELS) as (files, half):

        def write(name: str, content: bytes) -> None:
            files.write(f"{half}/{name}", content)
            checksums[f"{KERNELS}/{name}"] = sum_of(content)

        for kept, sheet in zip(records, sheets, strict=True):
            write(kept.values, _npy(sheet.values))
            write(kept.sheet, sheet.picture)
        if head is not None:
            write(HEAD.split("/")[1], _npy(head))
        write(KERNEL_LIST.split("/")[1], json_bytes([asdict(kept) for kept in records]))
        record(run, KERNEL_LIST, checksums)
    settle(run, KERNEL_LIST)
    return records


def _npy(values: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(values, dtype="<f4"))
    return file.getvalue()


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


def read_kernels(run: RunFiles) -> tuple[KernelRecord, ...]:
    """Return the sheets of a run, none where no kernels were asked for.

    Raises:
        RunError: if ``kernels.json`` is damaged.
    """
    if not run.exists(KERNEL_LIST):
        return ()
    remedy = plan_again(run)
    values = read_json(run, KERNEL_LIST, remedy, nan=True)
    return validated(run, KERNEL_LIST, tuple[KernelRecord, ...], values, remedy)


def read_npy(run: RunFiles, name: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """Return the float32 array in a file, of the given shape or, if None, of any.

    Raises:
        RunError: if the file is missing or holds something else.
    """
    with run.open(name) as file:
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("it is not a file of NumPy's version 1.0")
            there, by_columns, kind = np.lib.format.read_array_header_1_0(file)
            content = file.read()
            if by_columns or (there, kind) != (shape or there, np.dtype("<f4")):
                raise ValueError(f"it holds {kind} {there}, not float32 {shape or ''}".rstrip())
            return np.frombuffer(content, kind).reshape(there)
        except Exception as error:  # NumPy's parser of headers raises anything on damaged bytes
            raise damaged(run, name, error, plan_again(run)) from None
