"""What people set for the writers, and what a writer is told beside the run itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_UNITS = {None: 1, "k": 1000, "M": 10**6, "G": 10**9}


class LinkSettings(BaseModel):
    """Where people will open what is written, for links between the writers.

    Attributes:
        report_url: where the HTML report will be published.
        tensorboard_url: where TensorBoard will be served.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    report_url: str | None = None
    tensorboard_url: str | None = None

    @field_validator("report_url", "tensorboard_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is not a web address; begin it with http:// or https://")
        return value


class TensorBoardSettings(BaseModel):
    """What only the TensorBoard writer reads.

    Attributes:
        step: step of the summaries, such as the checkpoint's epoch.
    """

    step: Annotated[int, Field(ge=0)] = 0


class WandbSettings(BaseModel):
    """What only the W&B writer reads, and the report, which names the project.

    Attributes:
        wandb: ``offline``, ``online`` or ``off``.
        wandb_project: project of the W&B run.
        wandb_entity: entity of the W&B run.
    """

    wandb: Literal["offline", "online", "off"] = "offline"
    wandb_project: str = "exporter"
    wandb_entity: str | None = None


class HtmlSettings(BaseModel):
    """What only the writer of the HTML report reads.

    Attributes:
        single_file: write the report as one file too, ``RUN/html/report.html``.
        max_size: most bytes of that file: a number, or text such as ``20MB``.
    """

    single_file: bool = False
    max_size: Annotated[int, Field(gt=0)] = 20_000_000

    @field_validator("max_size", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|M|G)?B?", value.strip())
        if parts is None:
            raise ValueError(f"{value!r} is not a size; write it like 500kB, 20MB or 1.5GB")
        return round(float(parts[1]) * _UNITS[parts[2]])


class WriterOptions(LinkSettings):
    """What every writer is told; a writer's own options are a subclass with more fields.

    A field that is called as a setting of ``exporter.config.WriterConfig`` is, is filled from it.

    Attributes:
        kept: ids of the images that TensorBoard and W&B show, and whose strongest channels the
            report shows, in plan order.
        kept_reason: the rule that chose each of them, in words.
        choose: returns the ids of so many images, in plan order, by the rules of ``kept_reason``;
            where it is None, the first of ``kept``.
    """

    kept: tuple[str, ...] = ()
    kept_reason: Mapping[str, str] = {}
    choose: Callable[[int], Sequence[str]] | None = None
