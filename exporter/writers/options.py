"""What a writer is told beside the run itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """Choices that only the writers read.

    Attributes:
        kept: ids of the images that TensorBoard and W&B show, and whose strongest channels the
            report shows, in plan order.
        kept_reason: the rule that chose each of them, in words.
        report_url: web address of the published HTML report, or None.
        tensorboard_url: web address of the TensorBoard server, or None.
        wandb: ``offline``, ``online`` or ``off``.
        wandb_project: project of the W&B run.
        wandb_entity: entity of the W&B run, or None.
        step: step of the TensorBoard summaries (the checkpoint's epoch).
        single_file: write the HTML report as one file too.
        max_size: most bytes of that file.
        choose: returns the ids of so many images, in plan order, by the rules of ``kept_reason``;
            where it is None, the first of ``kept``.
    """

    kept: tuple[str, ...]
    kept_reason: Mapping[str, str] = field(default_factory=dict)
    report_url: str | None = None
    tensorboard_url: str | None = None
    wandb: Literal["offline", "online", "off"] = "offline"
    wandb_project: str = "exporter"
    wandb_entity: str | None = None
    step: int = 0
    single_file: bool = False
    max_size: int = 20_000_000
    choose: Callable[[int], Sequence[str]] | None = None
