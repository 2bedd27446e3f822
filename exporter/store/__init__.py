"""The run folder: made by ``create_run``, read by ``open_run``, verified by ``check``."""

from exporter.store.checking import check
from exporter.store.folder import RunFolder, create_run, refuse_taken, reopen_run
from exporter.store.kernels import KernelSheet
from exporter.store.packing import pack_activation, pack_map
from exporter.store.reader import Run, open_run
from exporter.store.recipes import forget_recipe, read_recipe, write_recipe
from exporter.store.resuming import plan_differences
from exporter.store.schema import LIGHT_COLUMNS, ROW_SCHEMA

__all__ = [
    "LIGHT_COLUMNS",
    "ROW_SCHEMA",
    "KernelSheet",
    "Run",
    "RunFolder",
    "check",
    "create_run",
    "forget_recipe",
    "open_run",
    "pack_activation",
    "pack_map",
    "plan_differences",
    "read_recipe",
    "refuse_taken",
    "reopen_run",
    "write_recipe",
]
