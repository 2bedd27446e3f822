"""The comparison folder: ``comparison.json`` and its tables, written once and read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa

from exporter.comparison.records import (
    SCHEMA_VERSION,
    ChannelDrift,
    ClassChange,
    Compared,
    ComparedRun,
    Contrast,
    Difference,
    ImageComparison,
    LayerDrift,
    Likeness,
    MissingImage,
    Shift,
    Stage,
)
from exporter.errors import RunError
from exporter.store import Run, open_run
from exporter.store.documents import read_json, validated
from exporter.store.files import RunFiles
from exporter.store.layout import COMPARISON
from exporter.store.tables import read_parquet, read_records
from exporter.stores import Place, on_disk, place_of
from exporter.writers.html.findings import Finding

IMAGES = "images.parquet"
TABLES: Mapping[str, type] = {
    "classes": ClassChange,
    "similarity": Likeness,
    "measures": Shift,
    "layers": LayerDrift,
    "channels": ChannelDrift,
    "missing": MissingImage,
}
"""Tables beside ``images.parquet``, by the name of their file, with what a row is."""

_AGAIN = "compare the runs again with --overwrite"
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Contents:
    """What ``comparison.json`` holds.

    Attributes:
        schema: version of the layout.
        axis: what the comparison is about, such as ``checkpoint``.
        baseline: place of the run that the others are held against.
        runs: the runs, in order.
        differences: in what they differ.
        methods: map methods that are compared.
        stages: where, shallow to deep; ``input`` for pixel methods.
        images: images that all runs have read.
        missing: images that are not in all.
        contrasts: each run's predictions against the baseline's.
        agreement: runs × runs, share of the images with the same prediction; empty where class
            names do not match.
        cka: by stage, runs × runs, linear CKA of the pooled responses.
        findings: what it shows.
        notes: what the reader should know.
        versions: of the exporter.
    """

    schema: int
    axis: str
    baseline: int
    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    methods: tuple[Compared, ...]
    stages: tuple[Stage, ...]
    images: int
    missing: int
    contrasts: tuple[Contrast, ...]
    agreement: tuple[tuple[float, ...], ...]
    cka: Mapping[str, tuple[tuple[float | None, ...], ...]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)


class Comparison:
    """A comparison folder as it is read.

    Attributes:
        path: the folder.
        contents: what ``comparison.json`` says.

    Examples:
        >>> import tempfile, exporter
        >>> from exporter.demo import example_run
        >>> comparison = exporter.compare(
        ...     example_run().path, example_run(1).path, out=tempfile.mkdtemp(), writers=()
        ... )
        >>> [run.name for run in comparison.contents.runs]
        ['step 0', 'step 1']
        >>> comparison.table("images").num_rows
        2
    """

    def __init__(self, files: RunFiles, contents: Contents) -> None:
        self.path = files.run
        self.files = files
        self.contents = contents
        self._records: dict[str, tuple[Any, ...]] = {}

    def __repr__(self) -> str:
        told = self.contents
        names = ", ".join(run.name for run in told.runs)
        return f"<Comparison {str(self.path)!r}: {names}; {told.images} images>"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the comparison shows, a sentence each."""
        return self.contents.findings

    @cached_property
    def _mapped(self) -> set[tuple[str, str]]:
        """(method, stage) of the maps that two runs have."""
        return {(row.method, row.stage) for row in self.records("similarity") if row.images}

    def stages_of(self, method: Compared) -> tuple[Stage, ...]:
        """Return where two runs have a method's maps of an image, shallow to deep."""
        stages = self.contents.stages
        return tuple(stage for stage in stages if (method.name, stage.name) in self._mapped)

    @property
    def anonymous(self) -> bool:
        """Whether it was made for double-blind review, and so does not say where its runs are."""
        return not any(run.path for run in self.contents.runs)

    def open(self, told: ComparedRun) -> Run:
        """Open a run that was compared.

        Raises:
            RunError: if the comparison is anonymous, or the run is not where it was compared.
        """
        if self.anonymous:
            raise RunError(
                f"the comparison {str(self.path)!r} is anonymous and does not say where its runs "
                "are; compare them again without --anonymous for this"
            )
        return open_run(place_of(told.path, self.path))

    def images(self) -> Iterator[ImageComparison]:
        """Yield every shared image with what each run predicts and how its maps moved."""
        from exporter.store.tables import open_parquet, table_records

        with open_parquet(self.files, IMAGES, remedy=_AGAIN) as file:
            for group in range(file.metadata.num_row_groups):
                yield from table_records(file.read_row_group(group), ImageComparison)

    def table(self, name: str) -> pa.Table:
        """Return a table: ``images``, ``classes``, ``similarity``, ``measures``, ``layers``,
        ``channels`` or ``missing``.

        Raises:
            RunError: if there is none of this name, or it is damaged.
        """  # noqa: D205
        self._known(name)
        return read_parquet(self.files, f"{name}.parquet", remedy=_AGAIN)

    def records(self, name: str) -> tuple[Any, ...]:
        """Return the rows of a table as records; a file is read once."""
        self._known(name)
        if name not in self._records:
            self._records[name] = tuple(read_records(self.files, f"{name}.parquet", TABLES[name]))
        return self._records[name]

    @staticmethod
    def _known(name: str) -> None:
        if name not in {"images", *TABLES}:
            raise RunError(
                f"a comparison has no table {name!r}; choose one of images, {', '.join(TABLES)}"
            )


def open_comparison(path: Place | str) -> Comparison:
    """Open a comparison folder.

    Raises:
        RunError: if there is none, it is damaged, or a newer exporter wrote it.

    Examples:
        >>> import tempfile, exporter
        >>> from exporter.demo import example_run
        >>> out = tempfile.mkdtemp()
        >>> _ = exporter.compare(example_run().path, example_run(1).path, out=out, writers=())
        >>> open_comparison(out).contents.images
        2
    """
    files = RunFiles(on_disk(path, "a comparison is read from the disk"))
    if not files.exists(COMPARISON):
        raise RunError(
            f"there is no comparison in {str(files.run)!r} (no {COMPARISON}); make one with "
            "exporter compare"
        )
    values = read_json(files, COMPARISON, _AGAIN)
    version = values.get("schema") if isinstance(values, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RunError(
            f"{str(files.run / COMPARISON)!r} has schema version {version} and this exporter reads "
            f"up to {SCHEMA_VERSION}; install a newer exporter"
        )
    return Comparison(files, validated(files, COMPARISON, Contents, values, _AGAIN))
