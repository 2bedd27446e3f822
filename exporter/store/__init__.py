"""The run folder: made by ``create_run``, read by ``open_run``, verified by ``check``."""

from exporter.store.checking import check
from exporter.store.folder import RunFolder, create_run, refuse_taken
from exporter.store.kernels import KernelSheet
from exporter.store.packing import pack_activation, pack_map
from exporter.store.reader import Run, open_run
from exporter.store.schema import LIGHT_COLUMNS, ROW_SCHEMA

__all__ = [
    "LIGHT_COLUMNS",
    "ROW_SCHEMA",
    "KernelSheet",
    "Run",
    "RunFolder",
    "check",
    "create_run",
    "open_run",
    "pack_activation",
    "pack_map",
    "refuse_taken",
]
