"""A run folder that is being made: shards are written and the run is finished.

The module is longer than 300 lines so that what is there, and what is written, is one class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.errors import RunError
from exporter.records import SCHEMA_VERSION, KernelRecord, MaximisedPicture, Plan, Row, Totals
from exporter.store import kernels, layout
from exporter.store.checksums import (
    VERIFYING,
    altered,
    commit,
    is_altered,
    noted,
    settle_interrupted,
    sum_of,
    verify,
)
from exporter.store.documents import AGAIN, json_bytes, read_totals
from exporter.store.files import RunFiles, sync_folder
from exporter.store.lock import RunLock
from exporter.store.recipes import launch_note, plan_again, way_on
from exporter.store.schema import parquet_options, schema_of
from exporter.store.tables import (
    Record,
    parquet_bytes,
    read_parquet,
    read_records,
    records_table,
    rows_to_table,
)
from exporter.store.totals import count_totals
from exporter.watch import Watch


class RunFolder:
    """A run that is being made; ``create_run`` and ``reopen_run`` give it.

    Use it as a context manager, so that the folder is unlocked also after an exception.
    """

    def __init__(
        self, files: RunFiles, plan: Plan, lock: RunLock, watch: Watch | None = None
    ) -> None:
        self.path = files.run
        self.files = files
        self.plan = plan
        self._lock = lock
        self._watch = watch or Watch()
        self._checksums: dict[str, dict[str, str]] = {}
        self._complete: bool | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def share(self) -> None:
        """Let other workers write shards beside this process.

        Raises:
            RunError: if another process took the folder meanwhile.
        """
        self._lock.hold(shared=True)

    def claim(self) -> None:
        """Hold the folder alone again.

        Raises:
            RunError: if a worker is still writing.
        """
        self._lock.hold(shared=False)
        settle_interrupted(self.files)
        # A worker may have written a shard of ours once more, and bytes rot: all is read again.
        self._checksums.clear()

    def close(self) -> None:
        """Unlock the folder; what is there stays and can be gone on with."""
        self._lock.release()

    @property
    def complete(self) -> bool:
        """Whether the run was finished and every byte is as it was then; it is verified once."""
        if self._complete is None:
            self._complete = self._is_finished()
        return self._complete

    def _is_finished(self) -> bool:
        try:
            totals = read_totals(self.files)
            return totals is not None and not any(
                altered(self.files, totals.checksums, self._watch)
            )
        except RunError:
            return False

    def elapsed(self) -> float:
        """Return the seconds from the plan to the last shard, whoever computed them."""
        names = (layout.PLAN, *map(layout.shard_file, range(len(self.plan.shards))))
        begun, *written = (at / 1e9 for at in map(self.files.modified, names) if at is not None)
        return max(0.0, max(written) - begun)

    def missing(self, shards: Iterable[int] | None = None) -> list[int]:
        """Return the shards that are still to be computed, in order.

        A shard is there if no byte of it has changed since it was written.

        Args:
            shards: those to look at; all of them if None.
        """
        asked = range(len(self.plan.shards)) if shards is None else tuple(shards)
        there = layout.shards_there(self.files)
        files = (layout.shard_file(n) for n in asked if n in there)
        unread = [file for file in files if file not in self._checksums]
        if unread:
            self._watch.begin(VERIFYING, len(unread))
        for file in unread:
            self._is_there(file)
            self._watch.advance()
        return [n for n in asked if layout.shard_file(n) not in self._checksums]

    def first_stored(self) -> int | None:
        """Return the first shard that is there, or None."""
        files = enumerate(map(layout.shard_file, range(len(self.plan.shards))))
        return next((n for n, file in files if self._is_there(file) or self._is_older(file)), None)

    def older(self, shards: Iterable[int]) -> list[int]:
        """Return of some shards those that lack only what was added to the run, in order."""
        if not self.plan.added:
            return []
        return [n for n in shards if self._is_older(layout.shard_file(n))]

    def _is_older(self, file: str) -> bool:
        return not self._is_noted(file) and verify(self.files, file) is not None

    def _is_noted(self, file: str) -> bool:
        shard = file.startswith(layout.SHARDS)
        return not shard or noted(self.files, file) == self.plan.added

    def _is_there(self, file: str) -> bool:
        checksums = self._checksums.get(file)
        if checksums is None and self._is_noted(file):
            checksums = verify(self.files, file)
        if checksums is not None:
            self._checksums[file] = checksums
        return checksums is not None

    def write_shard(self, index: int, rows: Sequence[Row], parts: Mapping[str, pa.Table]) -> None:
        """Write a shard: what it adds to the set first, then its rows, which commit it.

        ``parts`` is what it adds, by name; ``""`` is what it adds to the channels.

        Raises:
            RunError: if it cannot be written.
            ValueError: if the rows are not those of the plan.
        """
        start, stop = self.plan.shards[index]
        if [row.id for row in rows] != [image.id for image in self.plan.images[start:stop]]:
            raise ValueError(f"the rows of shard {index} are not the images {start} to {stop - 1}")
        self._complete = False
        files = {
            # Sums of maps are mostly zero bytes; what the channels add is not.
            layout.summary_file(index, name): parquet_bytes(
                table, compression="ZSTD" if name else "NONE", write_statistics=False
            )
            for name, table in parts.items()
        }
        file = layout.shard_file(index)
        files[file] = parquet_bytes(rows_to_table(rows), **parquet_options())
        for folder in (layout.SUMMARIES, layout.SHARDS):  # there from the start, but for harm
            self.files.make_folder(folder)
        self._checksums[file] = commit(self.files, files, self.plan.added)

    def records(self, index: int, part: str, record: type[Record]) -> Iterator[Record]:
        """Yield the rows of what a shard adds to the set; none where there is no such part.

        Raises:
            RunError: if it cannot be read.
        """
        name = layout.summary_file(index, part)
        name = name if self.files.exists(name) else layout.former(name)
        if self.files.exists(name):
            yield from read_records(self.files, name, record)

    def summaries(self, part: str = "", columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield what every shard adds to the statistics, in shard order.

        Raises:
            RunError: if one cannot be read.
        """
        if not part and not self.plan.recorded:
            return
        for index in range(len(self.plan.shards)):
            yield read_parquet(self.files, layout.summary_file(index, part), columns, AGAIN)

    def summary(self, index: int, part: str) -> pa.Table | None:
        """Return what a shard adds to the set; None where it is not known to be there.

        Raises:
            RunError: if it cannot be read.
        """
        if layout.shard_file(index) not in self._checksums:
            return None
        return read_parquet(self.files, layout.summary_file(index, part), remedy=AGAIN)

    def write_kernels(
        self, sheets: Sequence[kernels.KernelSheet], head: NDArray[np.float32] | None = None
    ) -> tuple[KernelRecord, ...]:
        """Write ``kernels/``: sheets, raw values and their list; replaces what was there.

        Raises:
            RunError: if it cannot be written.
        """
        return kernels.write_kernels(self.files, sheets, head)

    def missing_maximised(self, groups: int) -> list[int]:
        """Return the groups of maximised channels that are still to be made, in order."""
        return [n for n in range(groups) if not self._is_there(layout.maximised_file(n))]

    def write_maximised(self, index: int, pictures: Sequence[MaximisedPicture]) -> None:
        """Write the pictures of a group of channels, which commits them.

        Raises:
            RunError: if it cannot be written.
        """
        self.files.make_folder(layout.MAXIMISED)
        table = records_table(pictures, schema_of(MaximisedPicture))
        file = layout.maximised_file(index)
        self._checksums[file] = commit(self.files, {file: parquet_bytes(table, compression="NONE")})

    def finish(
        self,
        seconds: float,
        tables: Mapping[str, pa.Table] | None = None,
        summary: Mapping[str, object] | None = None,
        channels: pa.Table | None = None,
    ) -> Totals:
        """Write what the whole set gives, ``run.json`` last.

        Returns:
            The totals of the run.

        Raises:
            RunError: if a shard is missing or has other columns, or the disk refuses.
        """
        self.refuse_missing()
        merged = {
            layout.set_table(name): parquet_bytes(table, compression="ZSTD")
            for name, table in (tables or {}).items()
        }
        if summary is not None:
            try:
                told = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
                merged[layout.SET_SUMMARY] = memoryview(told.encode())
            except ValueError as error:
                raise RunError(
                    f"a number of the whole set is not finite ({error}); {AGAIN}"
                ) from None
        if channels is not None:
            merged[layout.CHANNELS] = parquet_bytes(channels, compression="NONE")
        self.files.make_folder(layout.SET)
        for name, content in merged.items():
            self.files.write(name, content)
        checksums = {name: sum_of(content) for name, content in merged.items()}
        shards = map(layout.shard_file, range(len(self.plan.shards)))
        for name in (*shards, *layout.maximised_files(self.files), layout.PLAN, layout.KERNEL_LIST):
            checksums |= self._checksums.get(name) or verify(self.files, name) or {}
        totals = count_totals(self.files, self.plan, checksums, seconds)
        if isinstance(self.path, Path):
            sync_folder(self.path)
        text = json_bytes({"schema": SCHEMA_VERSION} | asdict(totals))
        commit(self.files, {layout.TOTALS: text}, launch_note(self.files))
        self._complete = True
        return totals

    def refuse_missing(self) -> None:
        """Refuse a run whose shards are not all there, or whose kernels have changed since.

        Raises:
            RunError: if one is missing or damaged; it names the command that mends it.
        """
        missing = self.missing()
        if missing:
            named = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
            raise RunError(
                f"the run {str(self.path)!r} lacks {len(missing)} of {len(self.plan.shards)} "
                f"shards ({named}); go on with {way_on(self.files, missing=True)}"
            )
        if is_altered(self.files, layout.KERNEL_LIST):
            raise RunError(
                f"the kernels of the run {str(self.path)!r} have changed since they were written; "
                f"{plan_again(self.files)}"
            )
