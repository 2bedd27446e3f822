"""Which image source takes a location: those of the package, and what plug-ins add."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from exporter.doors import SOURCES, load_plugin, plugins
from exporter.errors import ImageSetError, choices, kind_of, reason
from exporter.guard import FAILURES, user_code, why
from exporter.images.archives import Archives
from exporter.images.datasets import DataSet, Factory, HuggingFace
from exporter.images.files import (
    Folder,
    Glob,
    Paths,
    Photograph,
    as_text,
    exists,
    is_image_name,
    is_path,
)
from exporter.images.lists import FORMATS, ImageList
from exporter.images.remote import Stored, StoredList
from exporter.images.sources import Source

BUILT_IN: dict[str, Any] = {
    "folder": Folder,
    "list": ImageList,
    "image": Photograph,
    "glob": Glob,
    "archives": Archives,
    "Hugging Face": HuggingFace,
    "factory": Factory,
    "paths": Paths,
    "data set": DataSet,
    "store": Stored,
    "list in a store": StoredList,
}
"""The image sources of the package; no two of them match the same place."""


class Opened(NamedTuple):
    """A source that was opened."""

    kind: str
    where: str
    source: Source

    @property
    def notes(self) -> tuple[str, ...]:
        """What the source says to the user; complete once its entries were read."""
        return tuple(getattr(self.source, "notes", ()))


def open_source(where: Any) -> Opened:
    """Open the one source that takes a location, or raise ``ImageSetError`` or ``ConfigError``.

    A plug-in that is named before a colon comes first, then the package's own sources, then the
    plug-ins that say that the location is theirs.
    """
    kind, source = _choose(where)
    shown = as_text(os.fspath(where)) if is_path(where) else type(where).__name__
    plug_in = user_code(f"the {kind}", repr(shown), error=ImageSetError)
    with nullcontext() if kind in BUILT_IN else plug_in:
        opened = source(where)
    return Opened(kind, getattr(opened, "name", shown), opened)


def _choose(where: Any) -> tuple[str, Callable[[Any], Source]]:
    if hasattr(where, "entries") and hasattr(where, "load"):
        return "source", lambda source: source
    added = plugins(SOURCES)
    text = os.fspath(where) if is_path(where) else ""
    prefix, colon, _ = text.partition(":")
    if colon and prefix in added:
        return f"plug-in {prefix!r}", load_plugin(added[prefix])
    for kind, source in BUILT_IN.items():
        if source.matches(where):
            return kind, source
    matching, broken = {}, []
    for name, entry in added.items():
        try:
            source = load_plugin(entry)
            if source.matches(where):
                matching[name] = source
        except FAILURES as error:  # somebody else's code, perhaps for another place
            broken.append(f"the plug-in {name!r} failed: {why(error)}")
    if not matching:
        raise ImageSetError("; ".join([_nothing(where), *broken]))
    if len(matching) > 1:
        ways = " or ".join(f"{name}:{text}" for name in matching)
        raise ImageSetError(f"several plug-ins take {text!r}; say which one with {ways}")
    ((name, source),) = matching.items()
    return f"plug-in {name!r}", source


def _nothing(where: Any) -> str:
    """Say why this is not an image set."""
    if not is_path(where):
        if hasattr(where, "batch_sampler") and hasattr(where, "dataset"):
            return f"the images are {kind_of(where)}; give its data set, .dataset"
        return (
            f"the images are {kind_of(where)}; give a folder, a glob, a list, paths or a "
            "data set with __len__ and __getitem__"
        )
    path, shown = Path(where), as_text(os.fspath(where))
    if exists(path):
        ends = ", ".join(FORMATS)
        return f"the file {shown!r} is neither an image nor a list; a list ends in {ends}"
    try:
        near = choices(as_text(path.name), sorted(_sets_beside(path)))
    except (OSError, ValueError) as error:
        near = f"the folder {as_text(str(path.parent))!r} cannot be read: {reason(error)}"
    return f"there are no images at {shown!r}: {near}"


def _sets_beside(path: Path) -> Iterator[str]:
    for item in path.parent.iterdir():
        wanted = item.is_dir() or is_image_name(item.name) or item.name.lower().endswith(FORMATS)
        if wanted and not item.name.startswith("."):
            yield as_text(item.name)
