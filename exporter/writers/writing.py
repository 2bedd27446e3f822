"""Write what is asked for from a run folder alone, with no model and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from exporter.config import WriterConfig, build_writer_config
from exporter.errors import ConfigError, ExporterError, RunError
from exporter.records import Written
from exporter.store import Run, anonymous
from exporter.store.checksums import commit, is_altered
from exporter.store.documents import damaged, json_bytes, read_json
from exporter.store.files import RunFiles
from exporter.store.layout import WRITER_NOTE, checksum_file
from exporter.summaries import keep_images
from exporter.watch import Watch
from exporter.writers import WriterOptions, find_writer, write
from exporter.writers.montages import forget
from exporter.writers.options import LinkSettings, WandbSettings
from exporter.writers.reading import seed_of


def write_all(
    run: Run, config: WriterConfig, watch: Watch | None = None
) -> tuple[tuple[Written, ...], tuple[tuple[str, str], ...]]:
    """Run the writers a configuration asks for.

    Nobody else may be writing the run: `exporter.store.reopen_run` sees to that.

    Returns:
        What was written, and (writer, reason) of each that failed.
    """
    watch = watch or Watch()
    try:
        values = config.model_dump(mode="json", include=set(_REMEMBERED))
        commit(run.files, {WRITER_NOTE: json_bytes(values)})
    except RunError as error:
        watch.say(f"exporter render cannot repeat these settings: {error}")
    if config.anonymous:
        run, config = anonymous(run), without_names(config)
        watch.say("written for double-blind review; --no-anonymous names people and places again")
    written: list[Written] = []
    failed: list[tuple[str, str]] = []
    options = writer_options(run, config)
    # The report links to the others; where W&B takes the report, it has to be there.
    last = ("html", "wandb") if config.wandb_artifacts else ("html",)
    for name in sorted(options, key=lambda name: last.index(name) + 1 if name in last else 0):
        watch.begin(f"writing {name}")
        try:
            written.append(write(run, name, options[name]))
        except ExporterError as error:
            failed.append((name, str(error)))
    forget(run)
    return tuple(written), tuple(failed)


def writer_options(run: Run, config: WriterConfig) -> Mapping[str, WriterOptions]:
    """Return the options of each writer that runs; the images that TensorBoard and W&B show too."""
    seed = seed_of(run)
    agreement = {row.id: row.agreement for row in run.measures() if row.agreement is not None}
    classifies = run.plan.classifies

    def keep(number: int | Literal["all"]) -> tuple[tuple[str, str], ...]:
        return keep_images(run.index, number, seed, agreement, classifies=classifies)

    kept = keep(config.keep)

    options = {}
    for name in config.writers:
        if name == "wandb" and config.wandb == "off":
            continue
        model = find_writer(name).options
        settings = {
            setting: getattr(config, setting)
            for setting in WriterConfig.model_fields
            if setting in model.model_fields
        }
        options[name] = model.model_validate(
            {
                **settings,
                "kept": tuple(id for id, _ in kept),
                "kept_reason": dict(kept),
                "choose": lambda number: tuple(id for id, _ in keep(number)),
                **config.writer_options.get(name, {}),
            }
        )
    return options


def without_names(config: WriterConfig) -> WriterConfig:
    """Return settings that name no author, address or project.

    Raises:
        ConfigError: if W&B is written into a run that has a name there already, is sent there, or
            is to have the run folder.
    """
    if config.wandb == "online" or config.wandb_run is not None or config.wandb_artifacts:
        raise ConfigError(
            "what is sent to W&B appears under its user's name; with --anonymous write it offline, "
            "without --wandb-run and --wandb-artifacts"
        )
    named = [*LinkSettings.model_fields, *WandbSettings.model_fields]
    kept = {"wandb", "wandb_masks"}
    defaults = {n: WriterConfig.model_fields[n].default for n in named if n not in kept}
    report = config.report.model_copy(update={"authors": ()})
    return config.model_copy(update={**defaults, "report": report})


_REMEMBERED = (
    "writers", "keep", "step", "metrics",
    "title", "report", "live", "concepts", "strategies", "single_file", "max_size", "anonymous",
)  # fmt: skip
"""What a run folder may say to whoever renders it: no network, no address, no plug-in's options."""


def remembered(run: RunFiles, watch: Watch | None = None) -> dict[str, Any]:
    """Return what a run's writers were last told; empty where nothing was written yet.

    A run folder may come from somebody else, so this is only how much is shown: whether and where
    W&B sends, and every address, come from whoever renders. What is not known here is left out.

    Raises:
        RunError: if the note cannot be read.
    """
    if not run.exists(WRITER_NOTE):
        if watch is not None and run.exists(checksum_file(WRITER_NOTE)):
            watch.say(
                f"{WRITER_NOTE} is missing: the writers use their defaults for what is not given"
            )
        return {}
    remedy = "remove it, and run exporter render with the writers' flags again"
    if is_altered(run, WRITER_NOTE):
        raise damaged(run, WRITER_NOTE, "its SHA-256 differs", remedy)
    values = read_json(run, WRITER_NOTE, remedy)
    if not isinstance(values, dict):
        return {}
    told = {name: values[name] for name in _REMEMBERED if name in values}
    fit, names = dict(told), told.get("writers")
    if isinstance(names, list):  # a writer may be installed elsewhere and not here
        fit["writers"] = [name for name in names if not isinstance(name, str)]
    try:
        build_writer_config(fit)
    except ConfigError as error:
        raise damaged(run, WRITER_NOTE, error, remedy) from None
    return told
