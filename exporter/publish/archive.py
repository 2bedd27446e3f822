"""The zip of a supplement: the same files give the same bytes, and it can be verified."""

from __future__ import annotations

import hashlib
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exporter.errors import ConfigError, reason
from exporter.store import Run

CHECKSUMS = "checksums.sha256"
PROVENANCE = "provenance.json"
FIRST = ("index.html", "README.md")
"""What stands at the top."""

_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError)
"""What reading an entry raises; of a kind that is not known, or encrypted, a RuntimeError."""

_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644
_UNIX = 3


def write_zip(folder: Path, out: Path) -> dict[str, int]:
    """Write everything of a folder into a zip, with its checksums; times and owners are fixed.

    Returns:
        Bytes that each file takes in it.
    """
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    sums = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in names:
            content = (folder / name).read_bytes()
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            archive.writestr(_entry(name), content)
        archive.writestr(_entry(CHECKSUMS), "".join(sums))
        return {entry.filename: entry.compress_size for entry in archive.infolist()}


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system, entry.external_attr = _UNIX, _MODE << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def check_pack(path: Path, runs: Sequence[Run] = ()) -> Iterator[str]:
    """Yield a sentence for everything in which a supplement has changed since it was written.

    Args:
        path: the zip.
        runs: those that it has to be of, if any.

    Raises:
        ConfigError: if it is no supplement.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist()]
            if CHECKSUMS not in names or PROVENANCE not in names:
                raise ConfigError(f"{str(path)!r} is no supplement of exporter pack")
            lines = archive.read(CHECKSUMS).decode().splitlines()
            kept = {name: checksum for checksum, name in (line.split("  ", 1) for line in lines)}
            yield from _altered(archive, names, kept)
            told = json.loads(archive.read(PROVENANCE))
            plans = {str(run["plan"]): run["contents"] for run in told["runs"]}
    except (*_BROKEN, ValueError, KeyError, TypeError) as error:
        yield f"{path.name} is damaged ({reason(error) if isinstance(error, OSError) else error})"
        return
    for run in runs:
        contents = plans.pop(run.files.sha256("plan.json"), None)
        if contents is None:
            yield f"it was not made from {str(run.path)!r}: its plan is not in the pack"
        elif contents != contents_of(run):
            yield f"{str(run.path)!r} has changed since the pack was made from it"
    if runs and plans:
        yield f"it was also made from runs that were not given, with the plans {', '.join(plans)}"


def _altered(archive: zipfile.ZipFile, names: Sequence[str], kept: dict[str, str]) -> Iterator[str]:
    for name, checksum in kept.items():
        if name not in names:
            yield f"{name} is missing"
            continue
        try:
            with archive.open(name) as file:
                there = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except _BROKEN:
            there = ""
        if there != checksum:
            yield f"{name} has changed since it was written (SHA-256 differs)"
    for name in sorted(set(names).difference(kept, {CHECKSUMS})):
        yield f"{name} was added after it was written"


def contents_of(run: Run) -> str:
    """Return one SHA-256 for all that was computed in a run; ``""`` while it is not finished."""
    totals: Any = run.totals
    if totals is None:
        return ""
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(totals.checksums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
