"""The writers of a comparison: TensorBoard, W&B and HTML, from its folder and its runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from exporter.comparison.folder import Comparison, open_comparison
from exporter.comparison.joining import Joined, join
from exporter.comparison.predictions import Predictions, predictions_of
from exporter.errors import ConfigError, RunError, choices
from exporter.store import refuse_damaged
from exporter.watch import Watch
from exporter.writers.options import HtmlSettings

WRITERS: Final = ("tensorboard", "wandb", "html")
"""What a comparison is written as."""


def render(
    folder: str | Path,
    *,
    writers: Collection[str] = WRITERS,
    single_file: bool = False,
    max_size: int | str = "20MB",
    watch: Watch | None = None,
) -> Comparison:
    """Write a comparison's folders again, from its tables and its runs.

    Args:
        folder: the comparison folder; its runs have to be where they were compared.
        writers: ``tensorboard``, ``wandb`` and ``html``.
        single_file: write the report as one file too.
        max_size: largest size of that file.
        watch: is told about progress.

    Raises:
        RunError: if it is damaged or anonymous, or a run is gone, is damaged or has changed.
        ConfigError: if there is no such writer, or the size is none.
        WriterError: if the single file does not fit.
    """
    watch = watch or Watch()
    most = refuse_writers(writers, single_file=single_file, max_size=max_size)
    comparison = open_comparison(folder)
    told = comparison.contents
    runs = [comparison.open(run) for run in told.runs]
    for run in runs:
        refuse_damaged(run, watch)
    watch.begin("joining")
    joined = join(runs, runs[told.baseline].path)
    same = (
        joined.names == tuple(run.name for run in told.runs)
        and joined.methods == told.methods
        and joined.ids == tuple(comparison.table("images").column("id").to_pylist())
    )
    if not same:
        raise RunError(
            f"the runs of {str(comparison.path)!r} have changed since they were compared; "
            "compare them again with --overwrite"
        )
    write_all(comparison, joined, predictions_of(joined), writers, most=most, watch=watch)
    return comparison


def refuse_writers(
    writers: Collection[str], *, single_file: bool, max_size: int | str
) -> int | None:
    """Refuse a writer that there is not, and return the bytes of the report as one file.

    Raises:
        ConfigError: if there is no such writer, or the size is none.
    """
    for name in writers:
        if name not in WRITERS:
            raise ConfigError(
                f"no writer of comparisons is called {name!r}; {choices(name, WRITERS)}"
            )
    if not single_file:
        return None
    try:
        return HtmlSettings.model_validate({"max_size": max_size}).max_size
    except ValidationError as error:
        said = error.errors()[0]
        raise ConfigError(str(said.get("ctx", {}).get("error", said["msg"]))) from None


def write_all(
    comparison: Comparison,
    joined: Joined,
    predicted: Sequence[Predictions],
    writers: Collection[str],
    *,
    most: int | None,
    watch: Watch,
) -> None:
    """Write what is asked for of a comparison whose tables are there.

    Args:
        comparison: the comparison.
        joined: its runs.
        predicted: what each of them predicts.
        writers: names of `WRITERS`.
        most: bytes of the report as one file, which is then written too.
        watch: is told about progress.
    """
    if "tensorboard" in writers:
        from exporter.comparison.tensorboard import write_log

        watch.begin("writing tensorboard")
        write_log(comparison, joined, watch)
    if "wandb" in writers:
        from exporter.comparison.wandb import write_wandb

        watch.begin("writing wandb")
        write_wandb(comparison, joined)
    if "html" in writers:
        from exporter.comparison.html import write_report

        watch.begin("writing html", len(joined.ids))
        write_report(comparison, joined, predicted, watch, most)
