"""Making a run folder: begin or resume it, write shards, finish it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import RunError
from exporter.records import KernelRecord, MaximisedPicture, Plan, Row, Totals
from exporter.store import kernels, layout
from exporter.store.files import parquet_bytes, remove, sha256, sync_folder, write_whole
from exporter.store.lock import RunLock
from exporter.store.maximised import maximised_files, maximised_table
from exporter.store.plans import plan_bytes, plan_document, read_document, read_plan
from exporter.store.resuming import differences
from exporter.store.rows import rows_to_table
from exporter.store.schema import parquet_options
from exporter.store.sets import set_is_there
from exporter.store.totals import count_totals, totals_bytes

_AFTER_FOOTER = 8
"""Bytes of a Parquet file after its footer: the footer's length, and ``PAR1``."""


def create_run(
    path: Path | str,
    plan: Plan,
    *,
    overwrite: bool = False,
    resume: bool = False,
    parts: Sequence[str] = (),
) -> RunFolder:
    """Begin a run in a new or empty folder, or go on with one.

    Args:
        path: the run folder; made where it is not there.
        plan: what the run will do.
        overwrite: remove the run that is there, and nothing else of the folder.
        resume: go on with the run that is there, if its plan is the same; or begin one.
        parts: names of what a shard adds to the set besides its channels; a shard that lacks one
            is missing.

    Returns:
        The folder, locked against other writers until it is finished or closed.

    Raises:
        RunError: if the folder holds something else, a run and neither flag is given, a run of
            another plan (each difference is named), or is being written by another process.
    """
    run = Path(path)
    _make_folder(run)
    refuse_taken(run, overwrite=overwrite, resume=resume)
    lock = RunLock(run)
    try:
        plan = _begin(run, plan, overwrite=overwrite, resume=resume)
    except BaseException:
        lock.release()
        raise
    return RunFolder(run, plan, lock, parts)


def refuse_taken(path: Path | str, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a folder that ``create_run`` would refuse for what is in it; nothing is written.

    Args:
        path: the run folder, which need not be there.
        overwrite: whether the run that is there may be removed.
        resume: whether it may be gone on with.

    Raises:
        RunError: if the folder holds something else, or a run and neither flag is given.
    """
    run = Path(path)
    if overwrite and resume:
        raise RunError("--resume and --overwrite contradict each other; give one of them")
    if run.exists():
        _refuse_foreign(run)
    _refuse_run(run, overwrite=overwrite, resume=resume)


def _refuse_run(run: Path, *, overwrite: bool, resume: bool) -> None:
    if (run / layout.PLAN).exists() and not overwrite and not resume:
        raise RunError(
            f"the folder {str(run)!r} already holds a run; "
            "give --resume to go on with it or --overwrite to start again"
        )


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"the run folder {str(run)!r} cannot be made: {error.strerror or error}"
        ) from error


def _refuse_foreign(run: Path) -> None:
    try:
        names = [entry.name for entry in run.iterdir()]
        if layout.PLAN in names or all(_is_leftover(run / name) for name in names):
            return
    except OSError as error:
        raise RunError(
            f"the run folder {str(run)!r} cannot be read: {error.strerror or error}"
        ) from error
    raise RunError(
        f"the folder {str(run)!r} is not empty and is not a run (it has no {layout.PLAN}); "
        "give --out a new folder"
    )


def _is_leftover(path: Path) -> bool:
    """Say whether a run that was killed before its plan was there has left this."""
    if path.name == layout.LOCK or layout.is_temporary(path.name):
        return True
    folders = {layout.SHARDS, layout.SUMMARIES}
    return path.name in folders and path.is_dir() and not any(path.iterdir())


def _begin(run: Path, plan: Plan, *, overwrite: bool, resume: bool) -> Plan:
    file = run / layout.PLAN
    document = plan_document(plan)
    if file.exists():
        # Another process may have begun a run since the folder was looked at.
        _refuse_run(run, overwrite=overwrite, resume=resume)
        if resume:
            begun = read_document(file)
            stored = read_plan(begun, file)
            clauses = differences(begun, document)
            if clauses:
                raise RunError(
                    f"the run {str(run)!r} was begun with other settings: {'; '.join(clauses)}; "
                    "give it the same settings, --overwrite, or another --out"
                )
            _remove_leftovers(run)
            return stored
        for name in layout.own_names():
            remove(run / name)
    _remove_leftovers(run)
    for name in (layout.SHARDS, layout.SUMMARIES):
        _make_folder(run / name)
    write_whole(file, plan_bytes(document))
    return read_plan(document, file)


def _remove_leftovers(run: Path) -> None:
    for folder in (run, *(run / name for name in layout.FILLED)):
        if folder.is_dir():
            for entry in list(folder.iterdir()):
                if layout.is_temporary(entry.name):
                    remove(entry)


class RunFolder:
    """A run that is being made; ``create_run`` gives it.

    A shard is written in two steps, ``write_summary`` and then ``write_shard``, and is there with
    the second. Use it as a context manager, so that the folder is unlocked also after an exception.

    Attributes:
        path: the run folder.
        plan: what the run does; of a resumed run, the plan it was begun with.
    """

    def __init__(self, path: Path, plan: Plan, lock: RunLock, parts: Sequence[str] = ()) -> None:
        self.path = path
        self.plan = plan
        self._lock = lock
        self._parts = tuple(parts)
        self._checksums: dict[str, str] = {}
        if self._unmerged() or self.missing():
            remove(path / layout.TOTALS)  # its presence says that all is there

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unlock the folder; what is there stays and can be resumed."""
        self._lock.release()

    def _unmerged(self) -> bool:
        """Say whether something that is merged from the shards is not there."""
        if self.plan.recorded and not (self.path / layout.CHANNELS).exists():
            return True
        return bool(self._parts) and not set_is_there(self.path)

    def missing(self) -> list[int]:
        """Return the shards that are still to be computed, in order."""
        return [
            index
            for index in range(len(self.plan.shards))
            if not all(map(_is_whole, (layout.shard_file(self.path, index), *self._added(index))))
        ]

    def _added(self, index: int) -> list[Path]:
        """Return the files of what a shard adds to the set."""
        parts = (*([""] if self.plan.recorded else []), *self._parts)
        return [layout.summary_file(self.path, index, part) for part in parts]

    def write_summary(self, index: int, table: pa.Table, part: str = "") -> None:
        """Write what a shard adds to the set's statistics, before the shard itself.

        Args:
            index: number of the shard.
            table: as the summaries give it.
            part: its name; of the channels, nothing.

        Raises:
            RunError: if it cannot be written.
        """
        # Sums of maps are mostly zero bytes; what the channels add is not.
        compression = "ZSTD" if part else "NONE"
        content = parquet_bytes(table, compression=compression, write_statistics=False)
        self._write(layout.summary_file(self.path, index, part), content)

    def write_shard(self, index: int, rows: Sequence[Row]) -> None:
        """Write the rows of a shard, which commits it and its summary.

        Args:
            index: number of the shard.
            rows: one for each of its images, in plan order.

        Raises:
            RunError: if it cannot be written.
            ValueError: if the rows are not those of the plan.
        """
        start, stop = self.plan.shards[index]
        if [row.id for row in rows] != [image.id for image in self.plan.images[start:stop]]:
            raise ValueError(f"the rows of shard {index} are not the images {start} to {stop - 1}")
        content = parquet_bytes(rows_to_table(rows), **parquet_options())
        self._write(layout.shard_file(self.path, index), content)

    def _write(self, file: Path, content: memoryview) -> None:
        write_whole(file, content)
        name = file.relative_to(self.path).as_posix()
        self._checksums[name] = hashlib.sha256(content).hexdigest()

    def summaries(self, part: str = "", columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield what every shard adds to the statistics, in shard order.

        Args:
            part: its name; of the channels, nothing.
            columns: to be read, or leaves of them; all of them where None.

        Raises:
            RunError: if one cannot be read.
        """
        if not part and not self.plan.recorded:
            return
        asked = None if columns is None else list(columns)
        for index in range(len(self.plan.shards)):
            file = layout.summary_file(self.path, index, part)
            try:
                with pq.ParquetFile(file) as parquet:
                    yield parquet.read(columns=asked, use_threads=False)
            except (OSError, pa.ArrowException):
                raise RunError(
                    f"{str(file)!r} is missing or damaged; remove shard {index} and go on "
                    "with --resume"
                ) from None

    def write_kernels(self, sheets: Sequence[kernels.KernelSheet]) -> tuple[KernelRecord, ...]:
        """Write ``kernels/``: sheets, raw values and their list; replaces what was there.

        Raises:
            RunError: if it cannot be written.
        """
        return kernels.write_kernels(self.path, sheets)

    def missing_maximised(self, groups: int) -> list[int]:
        """Return the groups of maximised channels that are still to be made, in order."""
        files = (layout.maximised_file(self.path, index) for index in range(groups))
        return [index for index, file in enumerate(files) if not _is_whole(file)]

    def write_maximised(self, index: int, pictures: Sequence[MaximisedPicture]) -> None:
        """Write the pictures of a group of channels, which commits them.

        Args:
            index: number of the group.
            pictures: of its channels, in order.

        Raises:
            RunError: if it cannot be written.
        """
        _make_folder(self.path / layout.MAXIMISED)
        content = parquet_bytes(maximised_table(pictures), compression="NONE")
        self._write(layout.maximised_file(self.path, index), content)

    def write_set(self, tables: Mapping[str, pa.Table], summary: Mapping[str, object]) -> None:
        """Write ``set/``, what is merged from the named parts; ``set/summary.json`` last.

        Args:
            tables: by the name of their file.
            summary: JSON values.

        Raises:
            RunError: if it cannot be written.
        """
        _make_folder(self.path / layout.SET)
        for name, table in tables.items():
            content = parquet_bytes(table, compression="ZSTD")
            self._write(layout.set_table(self.path, name), content)
        text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        self._write(self.path / layout.SET / layout.SET_SUMMARY, memoryview(text.encode()))

    def finish(self, seconds: float, channels: pa.Table | None = None) -> Totals:
        """Write what the whole set gives, ``run.json`` last, and unlock the folder.

        Args:
            seconds: wall-clock time of this session's computing.
            channels: rows of ``channels.parquet``, merged from ``summaries()``.

        Returns:
            The totals of the run.

        Raises:
            RunError: if a shard is missing, or the disk refuses.
        """
        missing = self.missing()
        if missing:
            raise RunError(
                f"the run {str(self.path)!r} lacks {len(missing)} of {len(self.plan.shards)} "
                "shards; go on with --resume"
            )
        if channels is not None:
            content = parquet_bytes(channels, compression="NONE")
            self._write(self.path / layout.CHANNELS, content)
        shards = [layout.shard_file(self.path, n) for n in range(len(self.plan.shards))]
        summaries = [file for n in range(len(self.plan.shards)) for file in self._added(n)]
        merged = (self.path / layout.SET).iterdir() if self._parts else ()
        for file in (*shards, *summaries, *merged, *maximised_files(self.path)):
            name = file.relative_to(self.path).as_posix()
            if name not in self._checksums and file.exists():
                self._checksums[name] = sha256(file)
        totals = count_totals(len(self.plan.images), shards, self._checksums, seconds)
        sync_folder(self.path)
        write_whole(self.path / layout.TOTALS, totals_bytes(totals))
        self.close()
        return totals


def _is_whole(file: Path) -> bool:
    """Say whether the file's footer can be read and lies where its columns end.

    A crash of the machine can cut a file, also in its middle. The values themselves are not read:
    that is ``check``'s work.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            metadata = parquet.metadata
            ends = file.stat().st_size - metadata.serialized_size - _AFTER_FOOTER
            if metadata.num_row_groups == 0:
                return True
            last = metadata.row_group(metadata.num_row_groups - 1)
            columns = [last.column(index) for index in range(last.num_columns)]
    except (OSError, pa.ArrowException):
        return False
    return all(_start(column) + column.total_compressed_size <= ends for column in columns)


def _start(column: pq.ColumnChunkMetaData) -> int:
    """Return where a column's bytes begin: with its dictionary, where it has one."""
    first: int | None = column.dictionary_page_offset
    return int(column.data_page_offset) if first is None else min(first, column.data_page_offset)
