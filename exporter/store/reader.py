"""Reading a run folder, whole or partial.

The module is long because ``Run`` is the one public way in: a method per thing that is stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exporter.errors import RunError, choices
from exporter.records import (
    ChannelRow,
    ClassMap,
    ClassRow,
    ConfusedPair,
    Faithfulness,
    ImageMeasures,
    KernelRecord,
    MaximisedPicture,
    MethodAgreement,
    MethodFaithfulness,
    MethodRow,
    Plan,
    RedundantPair,
    Row,
    SetSummary,
    Totals,
)
from exporter.store import layout
from exporter.store.kernels import read_kernels
from exporter.store.plans import image_ids, read_document, read_plan
from exporter.store.schema import LIGHT_COLUMNS, ROW_SCHEMA, ROWS_PER_GROUP
from exporter.store.tables import Record, damaged, read_records, table_to_rows
from exporter.store.totals import read_summary, read_totals

_GROUPS_AT_ONCE = 8
_IDENTITY = ("id", "key", "path")


def open_run(path: Path | str) -> Run:
    """Open a run folder; one that is not complete is read as far as it goes.

    Raises:
        RunError: if there is no run, its plan is damaged, or a newer exporter wrote it.

    Examples:
        >>> import tempfile, torch, exporter
        >>> from exporter.demo import photographs
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Flatten(),
        ...     torch.nn.LazyLinear(3))
        >>> _ = model(torch.zeros(1, 3, 224, 224))
        >>> out = tempfile.mkdtemp() + "/run"
        >>> _ = exporter.export(model, photographs(), out=out, maps=["gradcam"], limit=2,
        ...     writers=())
        >>> run = open_run(out)
        >>> first = next(iter(run.rows(["predictions", "maps"])))
        >>> stored = first.maps[0]
        >>> run.map(first.id, stored.method, stored.layer).shape == (stored.height, stored.width)
        True
        >>> run.totals.images
        2
    """
    run = Path(path)
    file = run / layout.PLAN
    if not file.exists():
        raise RunError(
            f"there is no run in {str(run)!r} (no {layout.PLAN}); make one with exporter run"
        )
    return Run(run, read_document(file))


class Run:
    """A run folder as it is read: by the writers, and by whoever calls ``exporter.open_run``.

    Attributes:
        path: the run folder.
    """

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self._document = document
        self._footers: dict[int, pq.FileMetaData] = {}

    @cached_property
    def plan(self) -> Plan:
        """What the run does: model, layers, methods, images in order."""
        return read_plan(self._document, self.path / layout.PLAN)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the run, by the long flags' names."""
        return self._document["settings"]  # type: ignore[no-any-return]

    @property
    def complete(self) -> bool:
        """Whether the run was finished."""
        return (self.path / layout.TOTALS).exists()

    @property
    def totals(self) -> Totals | None:
        """What ``run.json`` says, or None for a partial run."""
        file = self.path / layout.TOTALS
        return read_totals(file) if file.exists() else None

    @property
    def shards(self) -> tuple[int, ...]:
        """Numbers of the shards that are there."""
        return tuple(
            index
            for index in range(len(self._document["shards"]))
            if layout.shard_file(self.path, index).exists()
        )

    def __repr__(self) -> str:
        images, shards = len(self._document["images"]["key"]), len(self._document["shards"])
        state = "complete" if self.complete else f"{len(self.shards)} of {shards} shards"
        explained = ", ".join(name or "input" for name in self.plan.explained)
        methods = ", ".join(method.name for method in self.plan.methods)
        return (
            f"<Run {str(self.path)!r}: {self.plan.model.name}, {images} images, "
            f"layers {explained}, methods {methods}, {state}>"
        )

    # ------------------------------------------------------------ rows

    def rows(self, columns: Iterable[str] | None = None) -> Iterator[Row]:
        """Yield the images that are there, in plan order, a few row groups in memory at a time.

        Args:
            columns: names of ``Row``'s fields to read, all of them where None; the others have
                their defaults. ``id``, ``key`` and ``path`` are always read.

        Raises:
            RunError: if a column is unknown, or a shard is damaged.
        """
        names = self._columns(ROW_SCHEMA.names if columns is None else columns)
        for index in self.shards:
            groups = range(self._footer(index).num_row_groups)
            for first in range(0, len(groups), _GROUPS_AT_ONCE):
                part = groups[first : first + _GROUPS_AT_ONCE]
                yield from table_to_rows(self._read(index, names, part))

    @property
    def index(self) -> Iterator[Row]:
        """Every image that is there without its picture, maps and activations."""
        for index in self.shards:
            yield from table_to_rows(self._read(index, LIGHT_COLUMNS))

    def row(self, id: str) -> Row:
        """Return one image with everything stored of it.

        Args:
            id: its id, which is its key unless the contents are repeated.

        Raises:
            RunError: if the run has no such image, or its shard is not there.
        """
        return self._row(id, ROW_SCHEMA.names)

    def map(
        self, id: str, method: str, layer: str, target: str | None = None
    ) -> NDArray[np.float32]:
        """Return one map: raw, signed, at its layer's own resolution.

        Args:
            id: the image's id.
            method: name of the method.
            layer: qualified name of the layer, ``""`` for a pixel method.
            target: such as ``class:281``; the first stored where None.

        Returns:
            float32 (height, width).

        Raises:
            RunError: if the run has no such image or map.
        """
        row = self._row(id, ["maps", "error"])
        if row.error is not None:
            raise RunError(f"the image {id!r} has no maps: {row.error}")
        for stored in row.maps:
            if (stored.method, stored.layer) == (method, layer) and target in {
                None,
                stored.target,
            }:
                return stored.array()
        methods = [stored.method for stored in row.maps]
        layers = [stored.layer for stored in row.maps if stored.method == method]
        if not layers:
            raise RunError(f"the run has no maps of {method!r}; {choices(method, methods)}")
        if layer not in layers:
            raise RunError(f"{method!r} has no map at {layer!r}; {choices(layer, layers)}")
        targets = [stored.target for stored in row.maps if stored.layer == layer]
        raise RunError(f"no map of {id!r} explains {target!r}; {choices(str(target), targets)}")

    def image(self, id: str) -> bytes:
        """Return the model's view of an image, JPEG.

        Raises:
            RunError: if the run has no such image, or it could not be read.
        """
        row = self._row(id, ["image", "error"])
        if row.image is None:
            raise RunError(f"the image {id!r} has no picture: {row.error}")
        return row.image

    def table(self, columns: Sequence[str] = LIGHT_COLUMNS) -> pa.Table:
        """Return columns of all images that are there.

        Args:
            columns: names in the row schema, or leaves such as ``maps.list.element.flags``;
                pictures, maps and activations of a whole set may not fit in memory.

        Raises:
            RunError: if a column is unknown, or a shard is damaged.
        """
        for name in columns:
            self._columns([name.split(".")[0]])
        parts = [self._read(index, columns) for index in self.shards]
        if not parts:
            return ROW_SCHEMA.empty_table().select([n for n in columns if n in ROW_SCHEMA.names])
        return pa.concat_tables(parts)

    # ------------------------------------------------------------ the set

    def channels(self, layer: str | None = None) -> tuple[ChannelRow, ...]:
        """Return what the whole set shows of each channel; nothing for a partial run.

        Args:
            layer: only this layer's channels.

        Raises:
            RunError: if the file is damaged, or has no such layer.
        """
        rows = tuple(read_records(self.path / layout.CHANNELS, ChannelRow, layer=layer))
        if layer is not None and not rows and layer not in self.plan.recorded:
            raise RunError(
                f"no channels were recorded at {layer!r}; {choices(layer, self.plan.recorded)}"
            )
        return rows

    @property
    def summary(self) -> SetSummary | None:
        """The numbers and strips of the whole set; None for a partial run, or one without them."""
        return read_summary(self.path)

    def classes(self) -> tuple[ClassRow, ...]:
        """Return the classes that are a label or a prediction, by index; none for a partial run."""
        return self._set("classes", ClassRow)

    def confusion(self, limit: int | None = None) -> tuple[ConfusedPair, ...]:
        """Return the confused pairs, the most frequent first.

        Args:
            limit: so many at most; a run keeps 10,000.
        """
        return self._set("confusion", ConfusedPair)[:limit]

    def methods(self) -> tuple[MethodRow, ...]:
        """Return each (method, layer): methods in the order asked for, layers shallow to deep."""
        return self._set("methods", MethodRow)

    def agreement(self) -> tuple[MethodAgreement, ...]:
        """Return how two methods agree at each layer: every pair in the order asked for."""
        return self._set("agreement", MethodAgreement)

    def class_maps(self, index: int | None = None) -> tuple[ClassMap, ...]:
        """Return mean maps of classes, by class and method.

        Args:
            index: only this class's; nothing where its maps are not kept.
        """
        return self._set("class-maps", ClassMap, index=index)

    def redundant(self, layer: str | None = None) -> tuple[RedundantPair, ...]:
        """Return pairs of redundant channels, the strongest of each layer first.

        Args:
            layer: only this layer's.
        """
        return self._set("redundant", RedundantPair, layer=layer)

    def measures(self) -> Iterator[ImageMeasures]:
        """Yield what is measured of each image, in plan order; also of a partial run."""
        for index in self.shards:
            yield from read_records(layout.summary_file(self.path, index, "images"), ImageMeasures)

    def faithfulness(self) -> tuple[MethodFaithfulness, ...]:
        """Return deletion, insertion and ROAD of each method, if they were asked for."""
        return self._set("faithfulness", MethodFaithfulness)

    def image_faithfulness(self) -> Iterator[Faithfulness]:
        """Yield the same of each image and method, in plan order; also of a partial run."""
        for index in self.shards:
            file = layout.summary_file(self.path, index, "faithfulness")
            yield from read_records(layout.as_written(file), Faithfulness)

    def maximised(self, layer: str | None = None) -> Iterator[MaximisedPicture]:
        """Yield the pictures that excite a channel or a class, in the order asked for.

        Args:
            layer: only this layer's; ``output`` for classes.

        Raises:
            RunError: if a file is damaged.
        """
        for file in layout.maximised_files(self.path):
            yield from read_records(file, MaximisedPicture, layer=layer)

    def kernels(self) -> tuple[KernelRecord, ...]:
        """Return the sheets of kernels, in the order asked for."""
        return read_kernels(self.path)

    def kernel_sheet(self, record: KernelRecord) -> bytes:
        """Return the picture of a sheet of kernels, PNG.

        Raises:
            RunError: if the file is missing.
        """
        return self._kernel_file(record.sheet).read_bytes()

    def kernel_values(self, record: KernelRecord) -> NDArray[np.float32]:
        """Return the raw weights of a sheet of kernels, float32 (O, I, kh, kw).

        Raises:
            RunError: if the file is missing.
        """
        values: NDArray[np.float32] = np.load(self._kernel_file(record.values), allow_pickle=False)
        return values

    def _kernel_file(self, name: str) -> Path:
        file = self.path / layout.KERNELS / name
        if not file.is_file():
            raise RunError(f"{str(file)!r} is missing; make the run again with --overwrite")
        return file

    # ------------------------------------------------------------ files

    @cached_property
    def _positions(self) -> dict[str, int]:
        ids = image_ids(self._document)
        return dict(zip(ids, range(len(ids)), strict=True))

    def _columns(self, names: Iterable[str]) -> list[str]:
        asked = list(names)
        for name in asked:
            if name not in ROW_SCHEMA.names:
                raise RunError(f"a run has no column {name!r}; {choices(name, ROW_SCHEMA.names)}")
        return [name for name in ROW_SCHEMA.names if name in asked or name in _IDENTITY]

    def _row(self, id: str, columns: Sequence[str]) -> Row:
        """Read columns of one image, with its row group alone."""
        place = self._positions.get(id)
        if place is None:
            raise RunError(f"the run {str(self.path)!r} has no image {id!r}")
        cuts: list[list[int]] = self._document["shards"]
        index = bisect_right(cuts, place, key=lambda cut: cut[0]) - 1
        if not layout.shard_file(self.path, index).exists():
            raise RunError(
                f"the image {id!r} is in shard {index}, which is not there yet; go on with --resume"
            )
        group, number = divmod(place - cuts[index][0], ROWS_PER_GROUP)
        table = self._read(index, self._columns(columns), [group])
        row = next(table_to_rows(table.slice(number, 1).combine_chunks()), None)
        if row is None or row.id != id:
            raise self._damaged(index, "its rows are not those of the plan")
        return row

    def _set(self, name: str, record: type[Record], **where: Any) -> tuple[Record, ...]:
        file = layout.as_written(layout.set_table(self.path, name))
        return tuple(read_records(file, record, **where))

    def _footer(self, index: int) -> pq.FileMetaData:
        if index not in self._footers:
            self._read(index, ["id"], [])
        return self._footers[index]

    def _read(
        self, index: int, columns: Sequence[str], groups: Iterable[int] | None = None
    ) -> pa.Table:
        try:
            with pq.ParquetFile(
                layout.shard_file(self.path, index), metadata=self._footers.get(index)
            ) as file:
                self._footers[index] = file.metadata
                if groups is None:
                    return file.read(columns=list(columns), use_threads=False)
                return file.read_row_groups(list(groups), list(columns), use_threads=False)
        except (OSError, pa.ArrowException, IndexError) as error:
            raise self._damaged(index, error) from None

    def _damaged(self, index: int, error: object) -> RunError:
        return damaged(layout.shard_file(self.path, index), error)
