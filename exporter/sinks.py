"""Write the sinks of a run from its folder alone: no model, no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exporter.config import WriterConfig
from exporter.errors import RunError, WriterError
from exporter.records import Written
from exporter.store import Run
from exporter.store.files import write_whole
from exporter.store.layout import SINK_NOTE
from exporter.store.lock import RunLock
from exporter.summaries import keep_images
from exporter.watch import Silence, Watch
from exporter.writers import WriterOptions, write
from exporter.writers.montages import forget


def write_sinks(
    run: Run, config: WriterConfig, watch: Watch | None = None
) -> tuple[tuple[Written, ...], tuple[tuple[str, str], ...]]:
    """Write the sinks a configuration asks for, the report last so that it can link to the others.

    Args:
        run: the run, complete or not.
        config: the settings.
        watch: told how the work goes on.

    Returns:
        What was written, and (writer, reason) of each that failed.

    Raises:
        RunError: if another process is writing the run, or its folder cannot be written at all.
    """
    lock = RunLock(run.path)
    try:
        return _write(run, config, watch or Silence())
    finally:
        lock.release()


def _write(
    run: Run, config: WriterConfig, watch: Watch
) -> tuple[tuple[Written, ...], tuple[tuple[str, str], ...]]:
    try:
        _remember(run.path, config)
    except RunError as error:
        watch.say(f"exporter render will not know these writers' settings: {error}")
    options = writer_options(run, config)
    written: list[Written] = []
    failed: list[tuple[str, str]] = []
    for name in sorted(config.writers, key=lambda name: name == "html"):
        if name == "wandb" and config.wandb == "off":
            continue
        watch.begin(f"writing {name}")
        try:
            written.append(write(run, name, options))
        except WriterError as error:
            failed.append((name, str(error)))
    forget(run)
    return tuple(written), tuple(failed)


def writer_options(run: Run, config: WriterConfig) -> WriterOptions:
    """Choose the images that TensorBoard and W&B show, and say the rest of what writers read."""
    seed = run.settings.get("seed", 0)
    seed = seed if isinstance(seed, int) else 0
    agreement = {row.id: row.agreement for row in run.quality() if row.agreement is not None}
    kept = keep_images(run.index, config.keep, seed, agreement)

    def choose(number: int) -> tuple[str, ...]:
        return tuple(id for id, _ in keep_images(run.index, number, seed, agreement))

    return WriterOptions(
        kept=tuple(id for id, _ in kept),
        kept_reason=dict(kept),
        report_url=config.report_url,
        tensorboard_url=config.tensorboard_url,
        wandb=config.wandb,
        wandb_project=config.wandb_project,
        wandb_entity=config.wandb_entity,
        step=config.step,
        single_file=config.single_file,
        max_size=config.max_size,
        choose=choose,
    )


def remembered(path: Path) -> dict[str, Any]:
    """Return what a run's writers were last told; empty where nothing was written yet.

    What this version has no setting for is left out: another one may have written the note.

    Raises:
        RunError: if the note cannot be read.
    """
    note = path / SINK_NOTE
    if not note.exists():
        return {}
    try:
        values = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{str(note)!r} cannot be read ({error}); delete it to use the defaults"
        ) from None
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if name in WriterConfig.model_fields}


def _remember(path: Path, config: WriterConfig) -> None:
    """Note what the writers are told, so that ``exporter render`` repeats it."""
    values = config.model_dump(mode="json", include=set(WriterConfig.model_fields) - {"writers"})
    write_whole(path / SINK_NOTE, json.dumps(values, indent=1).encode())
