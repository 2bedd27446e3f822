"""The run folder: made by ``create_run``, read by ``open_run``, verified by ``check``."""

from exporter.store.anonymous import anonymous
from exporter.store.beginning import CODE_CHANGED, create_run, refuse_taken, reopen_run
from exporter.store.checking import check, refuse_damaged
from exporter.store.epochs import epoch_folder, epochs_in
from exporter.store.files import RunFiles
from exporter.store.folder import RunFolder
from exporter.store.kernels import KernelSheet
from exporter.store.layout import shards_there, written_at
from exporter.store.reader import Run, open_run
from exporter.store.recipes import forget_recipe, is_planned, read_recipe, write_recipe
from exporter.store.resuming import code_changed, plan_differences
from exporter.store.schema import LIGHT_COLUMNS, ROW_SCHEMA, schema_of
from exporter.store.tables import records_table, refuse_unfit, table_records

__all__ = [
    "CODE_CHANGED",
    "LIGHT_COLUMNS",
    "ROW_SCHEMA",
    "KernelSheet",
    "Run",
    "RunFiles",
    "RunFolder",
    "anonymous",
    "check",
    "code_changed",
    "create_run",
    "epoch_folder",
    "epochs_in",
    "forget_recipe",
    "is_planned",
    "open_run",
    "plan_differences",
    "read_recipe",
    "records_table",
    "refuse_damaged",
    "refuse_taken",
    "refuse_unfit",
    "reopen_run",
    "schema_of",
    "shards_there",
    "table_records",
    "write_recipe",
    "written_at",
]
