"""Reading a run folder, whole or partial.

The module is long because ``Run`` is the one public way in: a method per thing that is stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from exporter.errors import RunError, choices
from exporter.records import (
    COMBINED,
    ChannelRow,
    ClassMap,
    ClassRow,
    ConfusedPair,
    Faithfulness,
    ImageMeasures,
    ImageStage,
    KernelRecord,
    MaximisedPicture,
    MethodAgreement,
    MethodFaithfulness,
    MethodRow,
    MethodSanity,
    Plan,
    RedundantPair,
    Row,
    SanityStep,
    SetSummary,
    StageTime,
    StoredMap,
    Totals,
)
from exporter.store import layout
from exporter.store.checksums import noted
from exporter.store.documents import RESUME, read_json, read_totals, validated
from exporter.store.epochs import EPOCHS, epochs_in
from exporter.store.exchange import fiftyone_dataset, hugging_face, quantus_arrays
from exporter.store.files import RunFiles
from exporter.store.finding import find_image
from exporter.store.kernels import read_kernels, read_npy
from exporter.store.plans import PlanFile, read_plan
from exporter.store.recipes import plan_again
from exporter.store.schema import LIGHT_COLUMNS, ROW_SCHEMA, ROWS_PER_GROUP
from exporter.store.showing import overlaid, run_html
from exporter.store.stored import run_files
from exporter.store.tables import (
    Record,
    open_parquet,
    read_records,
    reading,
    table_records,
    wrong_sizes,
)
from exporter.stores import Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from pyarrow.parquet import FileMetaData, ParquetFile

_GROUPS_AT_ONCE = 8
_FOOTERS = 16
"""Shards whose footers are kept at most: one of 64 row groups takes about 1.5 MB."""
_LARGEST_SHEET = 1 << 28
"""Bytes of the largest picture of kernels."""
_IDENTITY = ("id", "key", "path")

DEEPEST = "deepest"
"""In the place of a layer's name, the deepest at which a method has a map."""


def open_run(path: Place | str) -> Run:
    """Open a run folder; one that is not complete is read as far as it goes.

    For the folder of a training (`exporter.Watcher`), the last epoch is opened. At an address, such
    as ``s3://bucket/run``, only what is needed is fetched: for a map, a part of its shard.

    Raises:
        RunError: if there is no run, its plan is damaged, or a newer exporter wrote it.

    Examples:
        >>> from exporter.demo import example_run
        >>> run = open_run(example_run().path)
        >>> first = next(iter(run.rows(["predictions", "maps"])))
        >>> stored = first.maps[0]
        >>> run.map(first.id, stored.method, stored.layer).shape == (stored.height, stored.width)
        True
        >>> run.overlay("astronaut.jpg", "gradcam").size  # a Pillow image
        (224, 224)
        >>> run.table().to_pandas()[["path", "error"]].shape
        (2, 2)
        >>> run.totals.images
        2
    """
    files = run_files(path)
    if not files.exists(layout.PLAN):
        epochs = epochs_in(files.run)
        files = run_files(next(reversed(epochs.values()))) if epochs else files
    refuse_no_run(files)
    return Run(files, read_plan(files))


def refuse_no_run(files: RunFiles) -> None:
    """Refuse a folder that holds no run, or one whose plan is gone.

    Raises:
        RunError: if there is no plan.
    """
    if files.exists(layout.PLAN):
        return
    if noted(files, layout.PLAN):
        raise RunError(
            f"the run {str(files.run)!r} lacks {layout.PLAN}, which is written again from the "
            f"settings it was begun with; {plan_again(files)}"
        )
    if epochs := epochs_in(files.run):
        raise RunError(
            f"{str(files.run)!r} is a training, and each of its epochs a run; give one, such as "
            f"{str(next(reversed(epochs.values())))!r}, or compare them: exporter compare"
        )
    raise RunError(
        f"there is no run in {str(files.run)!r} (no {layout.PLAN}); make one with exporter run"
    )


class Run:
    """A run folder as it is read: by the writers, and by whoever calls ``exporter.open_run``.

    Attributes:
        path: the run folder.
        files: opens what is in it.
        settings: the settings of the run, by the long flags' names.

    Examples:
        >>> from exporter.demo import example_run
        >>> run = example_run()
        >>> run.complete, run.shards, run.plan.explained
        (True, (0,), ('1',))
        >>> [(row.path, len(row.maps)) for row in run.rows(["maps"])]
        [('astronaut.jpg', 1), ('brick.jpg', 1)]
        >>> run.map("brick.jpg", "gradcam").shape
        (28, 28)
    """

    def __init__(self, files: RunFiles, planned: PlanFile) -> None:
        self.path = files.run
        self.files = files
        self.settings: Mapping[str, Any] = planned.plan.settings
        self._planned = planned
        self._cuts = planned.plan.shards
        self._footers: dict[int, FileMetaData] = {}
        self.footers_kept = _FOOTERS

    @cached_property
    def plan(self) -> Plan:
        """What the run does: model, layers, methods, images in order."""
        return self._planned.whole()

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return self.path.resolve().name

    @property
    def complete(self) -> bool:
        """Whether the run was finished."""
        return self.files.exists(layout.TOTALS)

    @property
    def totals(self) -> Totals | None:
        """What ``run.json`` says, or None for a partial run."""
        return read_totals(self.files)

    @property
    def epochs(self) -> Mapping[int, Run]:
        """The finished runs of the same training, by epoch; empty where this is not one of them."""
        watched = self.path.parent.name == EPOCHS
        epochs = epochs_in(self.path.parent.parent) if watched else {}
        return {epoch: open_run(path) for epoch, path in epochs.items()}

    @property
    def shards(self) -> tuple[int, ...]:
        """Numbers of the shards that are there."""
        there = layout.shards_there(self.files)
        return tuple(n for n in range(len(self._cuts)) if n in there)

    def __repr__(self) -> str:
        plan, images = self._planned.plan, len(self._planned.images.key)
        state = "complete" if self.complete else f"{len(self.shards)} of {len(self._cuts)} shards"
        explained = ", ".join(name or "input" for name in plan.explained)
        methods = ", ".join(method.name for method in plan.methods)
        return (
            f"<Run {str(self.path)!r}: {plan.model.title}, {images} images, "
            f"layers {explained}, methods {methods}, {state}>"
        )

    def _repr_html_(self) -> str:
        """Show a notebook what the run is, with a few of its images."""
        return run_html(self, self._planned)

    # ------------------------------------------------------------ rows

    def rows(self, columns: Iterable[str] | None = None) -> Iterator[Row]:
        """Yield the images that are there, in plan order, a few row groups in memory at a time.

        Args:
            columns: names of ``Row``'s fields to read, all of them if None; the others have
                their defaults. ``id``, ``key`` and ``path`` are always read.

        Raises:
            RunError: if a column is unknown, or a shard is damaged.
        """
        names = self._columns(ROW_SCHEMA.names if columns is None else columns)
        for index in self.shards:
            start, stop = self._cuts[index]
            groups = range(-(-(stop - start) // ROWS_PER_GROUP))
            for first in range(0, len(groups), _GROUPS_AT_ONCE):
                part = groups[first : first + _GROUPS_AT_ONCE]
                yield from self._rows(index, self._read(index, names, part))

    def chosen(self, ids: Sequence[str], columns: Iterable[str] | None = None) -> Iterator[Row]:
        """Yield some of the images, in the order given, a few row groups in memory at a time.

        Of images that lie together in the run each row group is read once.

        Args:
            ids: of images whose shards are done.
            columns: as for ``rows``.

        Raises:
            RunError: if a column is unknown, or a shard is damaged.
        """
        names = self._columns(ROW_SCHEMA.names if columns is None else columns)
        for begin in range(0, len(ids), _GROUPS_AT_ONCE * ROWS_PER_GROUP):
            part = ids[begin : begin + _GROUPS_AT_ONCE * ROWS_PER_GROUP]
            places = [self._positions[id] for id in part]
            groups: dict[int, set[int]] = {}
            for place in places:
                index = bisect_right(self._cuts, place, key=lambda cut: cut[0]) - 1
                group = (place - self._cuts[index][0]) // ROWS_PER_GROUP
                groups.setdefault(index, set()).add(group)
            rows = {
                row.id: row
                for index, wanted in groups.items()
                for row in self._rows(index, self._read(index, names, sorted(wanted)))
            }
            yield from (rows[id] for id in part)

    @property
    def index(self) -> Iterator[Row]:
        """Every image that is there without its picture, maps and activations."""
        for index in self.shards:
            yield from self._rows(index, self._read(index, LIGHT_COLUMNS))

    def row(self, id: str | PathLike[str]) -> Row:
        """Return one image with everything stored of it.

        Args:
            id: its id, which is its key unless the contents are repeated; or its path: that in the
                image set, one that ends with it, or the end of it.

        Raises:
            RunError: if the run has no such image, or several, or its shard is not there.
        """
        return self._row(id, ROW_SCHEMA.names)

    def map(
        self,
        id: str | PathLike[str],
        method: str,
        layer: str = "deepest",
        target: str | None = None,
    ) -> NDArray[np.float32]:
        """Return one map: raw, signed, at its layer's own resolution.

        Args:
            id: the image's id or path, as for ``row``.
            method: name of the method.
            layer: qualified name of the layer, ``""`` for a pixel method; ``deepest`` is the
                deepest at which the method has a map.
            target: such as ``class:281``; the first stored if None.

        Returns:
            float32 (height, width).

        Raises:
            RunError: if the run has no such image or map.
        """
        return self.stored(self._row(id, ["maps", "error"]), method, layer, target).array()

    def overlay(
        self,
        id: str | PathLike[str],
        method: str,
        layer: str = "deepest",
        target: str | None = None,
        *,
        opacity: float | None = None,
        colormap: str = "viridis",
    ) -> Image:
        """Return one map, coloured, over the model's view of the image.

        Args:
            id: the image's id or path, as for ``row``.
            method: name of the method.
            layer: as for ``map``.
            target: as for ``map``.
            opacity: where the map is largest, 0 to 1; as in montages if None.
            colormap: name of a table of colours, such as ``turbo`` or ``diverging``.

        Returns:
            A Pillow image, RGB, of the view's size; a notebook shows it.

        Raises:
            RunError: if the run has no such image or map.
            ConfigError: if there is no such colour map, or the opacity is invalid.
        """
        row = self._row(id, ["image", "maps", "error"])
        stored = self.stored(row, method, layer, target)
        return overlaid(row, stored, self._planned.plan, opacity=opacity, colormap=colormap)

    def image(self, id: str | PathLike[str]) -> bytes:
        """Return the model's view of an image, JPEG.

        Args:
            id: the image's id or path, as for ``row``.

        Raises:
            RunError: if the run has no such image, or it could not be read.
        """
        row = self._row(id, ["image", "error"])
        if row.image is None:
            raise RunError(f"the image {row.path!r} has no picture: {row.error}")
        return row.image

    def stored(
        self, row: Row, method: str, layer: str = DEEPEST, target: str | None = None
    ) -> StoredMap:
        """Return a map of a row as it is stored: its levels, their range and its flags.

        Args:
            row: an image of this run, with its maps.
            method: name of the method.
            layer: as for ``map``.
            target: as for ``map``.

        Raises:
            RunError: if the row has no such map.
        """
        if row.error is not None:
            raise RunError(f"the image {row.path!r} has no maps: {row.error}")
        stored = [kept for kept in row.maps if kept.method == method]
        layers = [kept.layer for kept in stored]
        if not stored:
            methods = [kept.method for kept in row.maps]
            raise RunError(f"the run has no maps of {method!r}; {choices(method, methods)}")
        if layer == DEEPEST and layer not in layers:
            order = ("", *COMBINED, *self._planned.plan.layers_of_the_model)
            layer = next((name for name in reversed(order) if name in layers), layers[-1])
        if layer not in layers:
            raise RunError(f"{method!r} has no map at {layer!r}; {choices(layer, layers)}")
        targets = [kept.target for kept in stored if kept.layer == layer]
        for kept in stored:
            if kept.layer == layer and target in (None, kept.target):
                return kept
        raise RunError(
            f"no map of {row.path!r} explains {target!r}; {choices(str(target), targets)}"
        )

    def table(self, columns: Sequence[str] = LIGHT_COLUMNS) -> pa.Table:
        """Return columns of all images that are there, as an Arrow table.

        ``run.table().to_pandas()`` is a data frame, where pandas is installed.

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
        # Shards of an earlier version lack its later columns.
        return pa.concat_tables(parts, promote_options="default")

    def to_quantus(
        self, method: str, layer: str = DEEPEST, *, limit: int = 256
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Return the arguments of Quantus's metrics, for the first images that could be read.

        ``metric(model=model, x_batch=x, y_batch=y, a_batch=a)``. The inputs are made of the model's
        views, which are kept as JPEG: they differ from what the model was given by its rounding.

        Args:
            method: name of the method.
            layer: as for ``map``.
            limit: images at most; all of them are in memory.

        Returns:
            x, the normalised inputs, float32 (N, C, H, W); y, the classes explained, int64 (N,); a,
            the maps at the inputs' size, float32 (N, 1, H, W), rectified where the method is.

        Raises:
            RunError: if an image has no such map, or one explains no class; if inputs differ in
                size, or hold bands that are not shown.
        """
        return quantus_arrays(self, method, layer, limit)

    def to_datasets(self) -> Any:
        """Return the run as a Hugging Face data set, which needs ``exporter[datasets]``.

        A row per image: ``id``, ``path``, ``image`` (the model's view), ``label``, ``predicted``
        and ``score`` of the best prediction, ``target`` (the first explained) and ``error``; per
        method its map at the deepest layer, raw and signed, as lists, and an image ``… overlay``.

        Returns:
            A `datasets.Dataset`, written to its cache, so that memory does not limit it.

        Raises:
            RunError: if datasets is not installed, or a shard is damaged.
        """
        return hugging_face(self)

    def to_fiftyone(self, folder: str | PathLike[str], name: str | None = None) -> Any:
        """Return the run as a FiftyOne data set; fiftyone has to be installed separately.

        A sample per image that could be read: the model's view, ``ground_truth`` and
        ``prediction`` as classifications, ``ground_truth_boxes`` and ``predicted_boxes`` as
        detections in the view where there are any, and per method its map at the deepest layer as a
        heatmap, raw and signed; ``run_id`` is the image's id here.

        Args:
            folder: where the views are written, ID.jpg each; the data set leads to them.
            name: of the data set; FiftyOne chooses one if None.

        Returns:
            A `fiftyone.Dataset`; it is not persistent.

        Raises:
            RunError: if fiftyone is not installed or has no database, the name is taken, the folder
                cannot be written to, or a shard is damaged.
        """
        return fiftyone_dataset(self, folder, name)

    # ------------------------------------------------------------ the set

    def channels(self, layer: str | None = None) -> tuple[ChannelRow, ...]:
        """Return what the whole set shows of each channel; nothing for a partial run.

        Args:
            layer: only this layer's channels.

        Raises:
            RunError: if the file is damaged, or has no such layer.
        """
        # The file of a partial run is an earlier finish's, and no checksum speaks for it.
        there = read_records(self.files, layout.CHANNELS, ChannelRow, layer=layer)
        rows = tuple(there) if self.complete else ()
        if layer is not None and not rows and layer not in self.plan.recorded:
            raise RunError(
                f"no channels were recorded at {layer!r}; {choices(layer, self.plan.recorded)}"
            )
        return rows

    @property
    def summary(self) -> SetSummary | None:
        """The numbers and strips of the whole set; None for a partial run, or one without them."""
        name = layout.SET_SUMMARY
        if not (self.complete and self.files.exists(name)):
            return None
        return validated(self.files, name, SetSummary, read_json(self.files, name, RESUME), RESUME)

    def profile(self) -> tuple[StageTime, ...]:
        """Return how long each stage took, if the run was made with ``--profile``.

        Raises:
            RunError: if the file is damaged.
        """
        name = layout.PROFILE
        if not self.files.exists(name):
            return ()
        again = "remove it"
        values = read_json(self.files, name, again)
        return validated(self.files, name, tuple[StageTime, ...], values, again)

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
            file = layout.summary_file(index, "images")
            yield from read_records(self.files, file, ImageMeasures)

    def faithfulness(self) -> tuple[MethodFaithfulness, ...]:
        """Return deletion, insertion and ROAD of each method, if they were asked for."""
        return self._set("faithfulness", MethodFaithfulness)

    def image_faithfulness(self) -> Iterator[Faithfulness]:
        """Yield the same of each image and method, in plan order; also of a partial run."""
        for index in self.shards:
            yield from self._records(layout.summary_file(index, "faithfulness"), Faithfulness)

    def sanity(self) -> tuple[MethodSanity, ...]:
        """Return how similar each method's maps stay to the trained model's as it is randomised.

        By method and step, if it was asked for.
        """
        return self._set("sanity", MethodSanity)

    def image_sanity(self) -> Iterator[SanityStep]:
        """Yield the same of each image, method and step, in plan order; also of a partial run."""
        for index in self.shards:
            yield from self._records(layout.summary_file(index, "sanity"), SanityStep)

    def maximised(self, layer: str | None = None) -> Iterator[MaximisedPicture]:
        """Yield the pictures that excite a channel or a class, in the order asked for.

        Args:
            layer: only this layer's; ``output`` for classes.

        Raises:
            RunError: if a file is damaged.
        """
        for file in layout.maximised_files(self.files):
            yield from read_records(self.files, file, MaximisedPicture, layer=layer)

    def kernels(self) -> tuple[KernelRecord, ...]:
        """Return the sheets of kernels, in the order asked for."""
        return read_kernels(self.files)

    def kernel_sheet(self, record: KernelRecord) -> bytes:
        """Return the picture of a sheet of kernels, PNG.

        Raises:
            RunError: if the file is missing.
        """
        return self.files.read(f"{layout.KERNELS}/{record.sheet}", _LARGEST_SHEET)

    def kernel_values(self, record: KernelRecord) -> NDArray[np.float32]:
        """Return the raw weights of a sheet of kernels, float32 (O, I, kh, kw).

        Raises:
            RunError: if the file is missing or damaged.
        """
        return read_npy(self.files, f"{layout.KERNELS}/{record.values}", record.shape)

    def head(self) -> NDArray[np.float32] | None:
        """Return the rows of the linear head and, last, their biases, float32 (K, C + 1).

        None where ``plan.head`` names no layer that such a head reads.

        Raises:
            RunError: if the file is damaged.
        """
        return read_npy(self.files, layout.HEAD) if self.files.exists(layout.HEAD) else None

    def stages(self, ids: Set[str] | None = None) -> Iterator[ImageStage]:
        """Yield all channels of the layer that the head reads, of the images that have them.

        These are the images that ``--keep`` selects, and some that it might have selected.

        Args:
            ids: only of these images; of all that have them if None.

        Raises:
            RunError: if a file is damaged.
        """
        for index in self.shards:
            name = layout.summary_file(index, "stage")
            yield from read_records(self.files, name, ImageStage, id=ids)

    # ------------------------------------------------------------ files

    @cached_property
    def _ids(self) -> list[str]:
        return self._planned.images.ids

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {id: position for position, id in enumerate(self._ids)}

    def _columns(self, names: Iterable[str]) -> list[str]:
        asked = list(names)
        for name in asked:
            if name not in ROW_SCHEMA.names:
                raise RunError(f"a run has no column {name!r}; {choices(name, ROW_SCHEMA.names)}")
        return [name for name in ROW_SCHEMA.names if name in asked or name in _IDENTITY]

    def _row(self, id: str | PathLike[str], columns: Sequence[str]) -> Row:
        """Read columns of one image, with its row group alone."""
        place = self._positions.get(str(id))
        if place is None:
            hashed = "ids" not in self._planned.plan.execution
            place = find_image(id, self._planned.images, hashed=hashed)
        index = bisect_right(self._cuts, place, key=lambda cut: cut[0]) - 1
        if not self.files.exists(layout.shard_file(index)):
            raise RunError(
                f"the image {id!r} is in shard {index}, which is not computed yet; "
                "go on with --resume"
            )
        group, number = divmod(place - self._cuts[index][0], ROWS_PER_GROUP)
        table = self._read(index, self._columns(columns), range(group, group + 1))
        return next(self._rows(index, table.slice(number, 1).combine_chunks()))

    def _set(self, name: str, record: type[Record], **where: Any) -> tuple[Record, ...]:
        rows = self._records(layout.set_table(name), record, **where)
        return tuple(rows) if self.complete else ()

    def _records(self, name: str, record: type[Record], **where: Any) -> Iterator[Record]:
        """Read a table whose name may be that of an earlier version."""
        if not self.files.exists(name):
            name = layout.former(name)
        yield from read_records(self.files, name, record, **where)

    def _rows(self, index: int, table: pa.Table) -> Iterator[Row]:
        with reading(self.files, layout.shard_file(index)):
            yield from table_records(table, Row)

    def _read(
        self, index: int, columns: Sequence[str], groups: Sequence[int] | None = None
    ) -> pa.Table:
        """Read columns of a shard, or of some of its row groups; its rows are those of the plan."""
        start, stop = self._cuts[index]
        ids = self._ids[start:stop]
        with open_parquet(self.files, layout.shard_file(index), self._footers.get(index)) as file:
            if index not in self._footers:
                _refuse_other_rows(file, len(ids))
                self._footers[index] = file.metadata
                if len(self._footers) > self.footers_kept:
                    del self._footers[next(iter(self._footers))]
            if groups is None:
                table = file.read(columns=list(columns), use_threads=False)
            else:
                table = file.read_row_groups(list(groups), list(columns), use_threads=False)
                cuts = (slice(n * ROWS_PER_GROUP, (n + 1) * ROWS_PER_GROUP) for n in groups)
                ids = [id for cut in cuts for id in ids[cut]]
            if "id" in columns:
                if table.column("id").to_pylist() != ids:
                    raise ValueError("its rows are not those of the plan")
                for problem in wrong_sizes(table):
                    raise ValueError(problem)
        return table


def _refuse_other_rows(file: ParquetFile, count: int) -> None:
    """Refuse a shard that is not cut into row groups as it was written, or has other columns."""
    groups = (file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups))
    if list(groups) != [min(ROWS_PER_GROUP, count - n) for n in range(0, count, ROWS_PER_GROUP)]:
        raise ValueError(f"it does not have the {count} rows of the plan")
    for field in file.schema_arrow:
        if field.name in ROW_SCHEMA.names and field.type != ROW_SCHEMA.field(field.name).type:
            raise ValueError(f"the column {field.name!r} is of type {field.type}")
