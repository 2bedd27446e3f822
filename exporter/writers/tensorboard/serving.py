"""Serving logs of one or several runs with TensorBoard, and the links that show what they hold."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from exporter.errors import ConfigError, RunError, one_line
from exporter.store.epochs import TRAINING
from exporter.store.files import RunFiles
from exporter.store.layout import COMPARISON, PLAN
from exporter.writers import links

LEAST = 10
"""Steps of a tag that TensorBoard keeps by itself."""

_EVENTS = "*tfevents*"
_PROJECTOR = "projector_config.pbtxt"


@contextmanager
def serve(
    folders: Sequence[Path], *, host: str = "localhost", port: int | None = None
) -> Iterator[list[tuple[str, str]]]:
    """Serve logs while the context is open.

    Yields:
        What there is to see, and where: (words, web address).

    Raises:
        ConfigError: if there is no log, or TensorBoard cannot be started.
        RunError: if a run's log leads out of it: TensorBoard follows links and shows any file.
    """
    from tensorboard import program

    logs = [_log(folder) for folder in folders]
    with TemporaryDirectory(prefix="exporter-tensorboard-") as together:
        if len(logs) == 1:
            logdir = logs[0]
        else:
            logdir = Path(together)
            for name, log in _named(folders, logs):
                (logdir / name).symlink_to(log.resolve(), target_is_directory=True)
        files = (file for log in logs for file in log.rglob("events.out.tfevents.*.exporter"))
        steps = len({file.name.split(".")[3] for file in files})
        server = program.TensorBoard()
        arguments = ["--logdir", str(logdir), "--host", host]
        arguments += ["--samples_per_plugin", f"images={max(LEAST, steps)}"]
        arguments += [] if port is None else ["--port", str(port)]
        try:
            server.configure(argv=["tensorboard", *arguments])
            address = server.launch()
        except (SystemExit, Exception) as error:
            raise ConfigError(f"TensorBoard cannot be started: {one_line(error)}") from None
        projected = any(any(log.rglob(_PROJECTOR)) for log in logs)
        compared = [(folder / COMPARISON).is_file() for folder in folders]
        yield list(_views(address, steps, compared, projected=projected))


def _views(
    address: str, steps: int, compared: Sequence[bool], *, projected: bool
) -> Iterator[tuple[str, str]]:
    yield "everything", address
    if not all(compared):
        yield "every image, all its maps", links.images_link(address, "^montage/")
        yield "methods and models side by side", links.images_link(address, "^deepest/")
    if any(compared):
        sheets = links.run_regex("contact sheets")
        yield "rows of images, columns of runs", links.images_link(address, r" \d\d$", sheets)
        yield "how each map has changed", links.images_link(address, "^difference ")
    if steps > 1:
        yield "checkpoints, along their steps", links.steps_link(address)
    yield "accuracy, agreement, faithfulness", f"{address.rstrip('/')}/#custom_scalars"
    yield "settings and these numbers", f"{address.rstrip('/')}/#hparams"
    if projected:
        yield "similar images", f"{address.rstrip('/')}/#projector"


def _log(folder: Path) -> Path:
    """Return the log of a run, comparison or training, or the folder itself if events are in it."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}; give a run folder")
    known = _has_log_of_its_own(folder)
    for run in [folder] if known else filter(_has_log_of_its_own, sorted(folder.iterdir())):
        _refuse_outward(RunFiles(run))
    own = folder / "tensorboard" if known else folder
    if any(own.rglob(_EVENTS)):
        return own
    if own is folder:
        raise ConfigError(f"{str(folder)!r} has no TensorBoard log in it; give a run folder")
    raise ConfigError(
        f"the run {str(folder)!r} has no TensorBoard log; write it with exporter render "
        f"{shlex.quote(str(folder))} --writer tensorboard"
    )


def _has_log_of_its_own(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (PLAN, COMPARISON, TRAINING))


def _refuse_outward(run: RunFiles) -> None:
    """Raise where a log has links or pipes in it, or its projector names files beside it."""
    for name in run.below("tensorboard"):
        if PurePath(name).name == _PROJECTOR:
            _refuse_projector(run, name)
        run.open(name).close()


def _refuse_projector(run: RunFiles, name: str) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    try:
        named = list(_paths(text_format.Parse(run.read(name), ProjectorConfig())))
    except (text_format.ParseError, UnicodeDecodeError):
        raise RunError(f"{str(run.place(name))!r} is damaged; remove it") from None
    for path in named:
        if PurePath(path).name != path:
            raise RunError(
                f"{str(run.place(name))!r} names a file that is not beside it ({path!r}); remove it"
            )


def _paths(message: Any) -> Iterator[str]:
    """Yield every path that a message of the projector names."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, Sequence) else [value]:
                yield from _paths(inner)
        elif field.name.endswith(("_path", "_dir")):
            yield value


def _named(folders: Sequence[Path], logs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield each log with a name of its own, that of its folder."""
    taken: set[str] = set()
    for folder, log in zip(folders, logs, strict=True):
        name = plain = links.safe_name(folder.resolve().name)
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        yield name, log
