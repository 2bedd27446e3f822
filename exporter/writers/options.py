"""What people set for the writers, and what a writer is told beside the run itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    field_serializer,
    field_validator,
)

from exporter.errors import kind_of

_UNITS = {None: 1, "k": 1000, "M": 10**6, "G": 10**9}


def bytes_of(text: str) -> int:
    """Return a size in bytes, as people write it.

    Raises:
        ValueError: if it is none.

    >>> bytes_of("500kB"), bytes_of("1.5 GB")
    (500000, 1500000000)
    """
    parts = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(k|M|G)?B?", text.strip())
    if parts is None:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(f"{shown!r} is not a size; write it like 500kB, 20MB or 1.5GB")
    return round(float(parts[1]) * _UNITS[parts[2]])


def setting(default: Any, text: str, metavar: str | None = None, shown: str | None = None) -> Any:
    """Declare a setting that the command line has a flag for.

    Args:
        default: its value where it is not given; ``...`` for one that has to be.
        text: what it does, a sentence or two: the flag's help.
        metavar: how the help calls the value.
        shown: how the help calls the default, where it is not the value itself.
    """
    return Field(default, description=text, json_schema_extra={"metavar": metavar, "shown": shown})


class ReviewSettings(BaseModel):
    """Who may know who made what is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    anonymous: bool = setting(
        False,
        "Write nothing about who made the run, where and with which files, for double-blind "
        "review: no command, paths, file names, addresses, times of day, authors, W&B's names.",
    )


class LinkSettings(BaseModel):
    """Where people will open what is written, for links between the writers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    report_url: str | None = setting(None, "Where the HTML report will be published.", "U")
    tensorboard_url: str | None = setting(None, "Where TensorBoard will be served.", "U")

    @field_validator("report_url", "tensorboard_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is not a web address; begin it with http:// or https://")
        return value


class TrainingSettings(BaseModel):
    """Where in a training the model stands."""

    step: Annotated[int, Field(ge=0)] | None = setting(
        None,
        "Step at which TensorBoard and W&B show this run, such as the epoch; by default the one "
        "recorded in the checkpoint, if any.",
        "N",
    )
    metrics: dict[str, FiniteFloat] = setting(
        {},
        "A number of your own at this step, such as a loss, which TensorBoard, W&B and the report "
        "show beside the run's own; repeatable.",
        "NAME=VALUE",
    )


class TensorBoardSettings(BaseModel):
    """What only the TensorBoard writer reads."""

    tensorboard_dir: Path | None = setting(
        None,
        "A TensorBoard log folder shared by several runs, to which this one is added: checkpoints "
        "of one model become its steps, other models stand next to it.",
        "LOGS",
    )

    embeddings: bool = setting(
        False,
        "Also write TensorBoard's projector, one point per kept image; this needs a linear head "
        "that reads the deepest layer's spatial means.",
    )
    uniform_opacity: bool = setting(
        False,
        "In TensorBoard and W&B, draw maps with half opacity everywhere; by default they fade "
        "where the map is low.",
    )
    summary_writer: Any = Field(
        default=None,
        description="Your own SummaryWriter: the run is added to its log, as with tensorboard_dir, "
        "and the writer stays open.",
    )

    @field_validator("summary_writer")
    @classmethod
    def _has_a_folder(cls, value: Any) -> Any:
        if value is not None and not callable(getattr(value, "get_logdir", None)):
            raise ValueError(f"{kind_of(value)} is not a SummaryWriter: it has no get_logdir()")
        return value

    @field_serializer("summary_writer")
    def _not_kept(self, _: Any) -> None:
        """What lives in this process only is no part of what is kept."""


class WandbSettings(BaseModel):
    """What only the W&B writer reads, and the report, which names the project."""

    wandb: Literal["offline", "online", "off"] = setting(
        "offline", "Write the W&B run offline, send it online, or leave it out."
    )
    wandb_project: str = setting("exporter", "Project of the W&B run.", "P")
    wandb_entity: str | None = setting(None, "Entity of the W&B run.", "E")
    wandb_name: str | None = setting(None, "Name of the W&B run.", "TEXT", "MODEL@CHECKPOINT")
    wandb_notes: str | None = setting(
        None, "Notes of the W&B run, in place of the notes made while planning.", "TEXT"
    )
    wandb_tags: str = setting("", "Extra tags for the W&B run, separated by commas.", "A,B")
    wandb_group: str | None = setting(None, "Group of the W&B run.", "G", "MODEL")
    wandb_job_type: str | None = setting(None, "Job type of the W&B run.", "T", "explain")
    wandb_run: Any = setting(
        None,
        "Id of an existing W&B run to continue, such as that of the training; in Python also a run "
        "object, which is logged to and left open.",
        "ID",
    )
    wandb_masks: bool = setting(
        False, "Also add each map to W&B's photographs as a mask with four levels."
    )
    wandb_artifacts: bool = setting(
        False, "Also log the run folder as an artifact, and the report with --single-file."
    )

    @field_validator("wandb_run")
    @classmethod
    def _an_id_or_a_run(cls, value: Any) -> Any:
        if value is None or callable(getattr(value, "log", None)):
            return value
        if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{1,64}", value):
            raise ValueError(f"{value!r} is not the id of a W&B run, such as 1a2b3c4d")
        return value

    @field_serializer("wandb_run")
    def _id_alone(self, value: Any) -> str | None:
        return value if isinstance(value, str) else None


PAGES = ("index", "images", "layers", "classes", "kernels", "methods", "concepts", "duplicates")
"""Pages of the report that a note can stand on."""


class ReportWords(BaseModel):
    """What the author says in the HTML report: plain text, in which blank lines part paragraphs.

    Attributes:
        title: instead of ``What MODEL looks at``.
        authors: their names.
        abstract: stands below them.
        pages: a note for a page, by its name.
        images: a note for an image, by its path or id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = None
    authors: tuple[str, ...] = ()
    abstract: str = ""
    pages: dict[str, str] = {}
    images: dict[str, str] = {}

    @field_validator("pages")
    @classmethod
    def _known_pages(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = next((name for name in value if name not in PAGES), None)
        if unknown is not None:
            raise ValueError(f"the report has no page {unknown!r}; choose from {', '.join(PAGES)}")
        return value


class HtmlSettings(BaseModel):
    """What only the writer of the HTML report reads; ``report`` has no flag."""

    report: ReportWords = Field(
        default=ReportWords(),
        description="What the author says in the report: title, authors, abstract, and notes for "
        "pages and images.",
    )

    title: str | None = setting(None, "Title of the report.", "TEXT", "What MODEL looks at")
    single_file: bool = setting(False, "Also write the report as a single file, html/report.html.")
    live: bool = setting(
        True,
        "Let the report show the map of any class, for the images that --keep selects; this needs "
        "a linear head that reads the deepest layer's spatial means.",
    )
    concepts: Annotated[int, Field(ge=0, le=64)] = setting(
        0,
        "Let the report factorise what the linear head reads, over the images that --keep selects, "
        "into N concepts; this needs scikit-learn.",
        "N",
    )
    strategies: bool = setting(
        False,
        "Let the report cluster each predicted class's maps; this needs scikit-learn.",
    )
    max_size: Annotated[int, Field(gt=0)] = setting(
        20_000_000,
        "Maximum size of that file, which includes as many images as fit.",
        "SIZE",
        "20MB",
    )

    @field_validator("concepts", "strategies")
    @classmethod
    def _with_scikit_learn(cls, value: int) -> int:
        if value and find_spec("sklearn") is None:
            raise ValueError("scikit-learn is not installed: pip install 'exporter[concepts]'")
        return value

    @field_validator("max_size", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        return bytes_of(value) if isinstance(value, str) else value


class WriterOptions(LinkSettings, ReviewSettings):
    """What every writer is told; a writer's own options are a subclass with more fields.

    A field with the name of a setting of ``exporter.config.WriterConfig`` is filled from it.

    Attributes:
        kept: ids of the images that TensorBoard and W&B show, and whose strongest channels the
            report shows, in plan order.
        kept_reason: the rule that chose each of them, in words.
        choose: returns the ids of so many images, in plan order, by the rules of ``kept_reason``;
            where it is None, the first of ``kept``.

    Examples:
        >>> class SheetOptions(WriterOptions):
        ...     columns: int = 4
        >>> SheetOptions(columns="6", report_url="https://example.org/report").columns
        6
    """

    kept: tuple[str, ...] = ()
    kept_reason: Mapping[str, str] = {}
    choose: Callable[[int], Sequence[str]] | None = None


class TensorBoardOptions(WriterOptions, TrainingSettings, TensorBoardSettings):
    """What the TensorBoard writer is told."""


class WandbOptions(WriterOptions, TrainingSettings, TensorBoardSettings, WandbSettings):
    """What the W&B writer is told."""


class HtmlOptions(WriterOptions, TrainingSettings, HtmlSettings, WandbSettings):
    """What the writer of the HTML report is told; it names the W&B project, and shows metrics.

    Attributes:
        alone: whether the report leaves the run folder, so that nothing leads to what is beside it.
        pictured: ids of the images whose photographs and maps are in it; all if None. Numbers
            are those of every image in any case.
    """

    alone: bool = False
    pictured: frozenset[str] | None = None
