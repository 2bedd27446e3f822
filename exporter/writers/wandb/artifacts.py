"""Artifacts of W&B: a run folder and its report as such, and what a run takes from others.

A checkpoint or an image set may be given as ``wandb:ENTITY/PROJECT/NAME:ALIAS``, and a file or
folder in it behind a ``#``. It is then downloaded, into the user's cache, by W&B's own library in a
process of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from exporter.errors import ConfigError, ExporterError, WriterError, reason
from exporter.store.layout import (
    PROFILE,
    RECIPE,
    TRACE,
    checksum_file,
    own_names,
    writer_folder,
)
from exporter.writers import links, writer_names
from exporter.writers.wandb.process import last_line, run_remote, work_folder

if TYPE_CHECKING:
    from exporter.store import Run

PREFIX = "wandb:"
TAKEN = ("checkpoint", "images")
"""Settings that may be the address of an artifact."""

REPORT = "html/report.html"
SECONDS = 3600.0
"""The most seconds that a download may take."""

_NAME = r"\w[\w.-]*"
_ADDRESS = re.compile(rf"wandb:({_NAME}/{_NAME}/{_NAME}:{_NAME})(?:#(.+))?")
_VERSION = re.compile(r".*:v\d+")


def is_artifact(where: object) -> bool:
    """Say whether a checkpoint or an image set is meant to be an artifact's address."""
    return isinstance(where, str | Path) and str(where).startswith(PREFIX)


def fetch(where: str) -> tuple[str, Path]:
    """Download an artifact, unless its version is in the user's cache.

    Args:
        where: its address.

    Returns:
        Its address with the version in the place of an alias, and where it is, or the file or
        folder in it that the address names.

    Raises:
        ConfigError: if this is no address, or W&B does not give the artifact.
    """
    told = _ADDRESS.fullmatch(where)
    if told is None:
        raise ConfigError(
            f"{where!r} is not the address of a W&B artifact; give "
            "wandb:ENTITY/PROJECT/NAME:ALIAS, and #FILE behind it for a file in it"
        )
    name, inside = told[1], told[2]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "exporter/artifacts"
    try:
        if not _VERSION.fullmatch(name) or not (cache / name).is_dir():
            name = _download(name, cache)
    except (OSError, ExporterError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigError(f"the W&B artifact {where!r} cannot be fetched: {why}") from None
    place = (cache / name / (inside or "")).resolve()
    if not place.exists() or not place.is_relative_to((cache / name).resolve()):
        held = ", ".join(sorted(file.name for file in (cache / name).iterdir())[:6])
        raise ConfigError(f"the W&B artifact {name!r} has no {inside!r}; it has {held}")
    return f"{PREFIX}{name}{f'#{inside}' if inside else ''}", place


def fetch_checkpoint(where: str) -> tuple[str, Path]:
    """Download an artifact that holds a checkpoint; returns and raises as `fetch` does."""
    address, place = fetch(where)
    if place.is_file():
        return address, place
    files = sorted(file for file in place.rglob("*") if file.is_file())
    weights = [file for file in files if file.suffix in {".pt", ".pth", ".ckpt", ".safetensors"}]
    choice = weights or files
    if len(choice) != 1:
        names = ", ".join(file.relative_to(place).as_posix() for file in choice[:6]) or "no file"
        raise ConfigError(
            f"the W&B artifact {address.removeprefix(PREFIX)!r} does not hold one checkpoint but "
            f"{names}; say which with #FILE behind its address"
        )
    return address, choice[0]


def _download(name: str, cache: Path) -> str:
    """Download an artifact into ``cache/ENTITY/PROJECT/NAME:VERSION``, and return that name."""
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache, prefix=".") as half:
        qualified = ask("fetch", name, str(Path(half) / "files"))
        whole = cache / qualified
        whole.parent.mkdir(parents=True, exist_ok=True)
        if not whole.is_dir():  # its version may have been there under another alias
            shutil.move(Path(half) / "files", whole)
    return qualified


def ask(*arguments: str) -> str:
    """Have W&B's library fetch or note an artifact, in a process of its own; see `remote`.

    Raises:
        WriterError: if it does not, or there is no key; one line that says why.
    """
    with TemporaryDirectory(prefix="exporter-wandb-") as base:
        folder = Path(base) / "wandb"
        with work_folder(folder):
            status, said, errors = run_remote(arguments, folder, SECONDS)
    if status == 0:
        return str(json.loads(said)["name"])
    raise WriterError(json.loads(said)["error"] if said else last_line(errors, status))


def artifacts_used(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the artifacts, ``ENTITY/PROJECT/NAME:VERSION``, that a run was made from."""
    told = (_ADDRESS.fullmatch(str(settings.get(name))) for name in TAKEN)
    return tuple(dict.fromkeys(match[1] for match in told if match))


def artifacts_of(run: Run, base: Path) -> Iterator[dict[str, Any]]:
    """Yield the run folder, and the report where it is a single file, as `session.log` takes them.

    Args:
        run: the run.
        base: the path by which W&B finds its folder; the files are read where they lie.
    """
    model = re.sub(r"[^\w.-]", "_", links.safe_name(run.plan.model.name), flags=re.ASCII)
    # Not what is removed or written when the writers have written, and what they are writing.
    changing = {RECIPE, PROFILE, TRACE}
    later = {*changing, *writer_names(), *map(checksum_file, changing)}
    later |= {checksum_file(writer_folder(name)) for name in writer_names()}
    files = [
        file
        for name in own_names()
        for file in (run.files.below(name) if run.files.is_folder(name) else (name,))
        if name not in later and file not in later
    ]
    for kind, names in (("run-folder", files), ("report", [REPORT])):
        there = {name: str(base / name) for name in names if run.files.exists(name)}
        if there:
            yield {"name": f"{kind}-{model}", "type": kind, "files": there}
