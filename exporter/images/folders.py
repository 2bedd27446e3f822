"""Walk folders and globs: which files are images, in which order, and what could not be read."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from exporter.images.keys import reason

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("avif", "heic", "heif", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga"),
    )
)
"""Files with these extensions are always taken; one that cannot be read is a row with an error."""

_NAMED = 3
_DIGITS = re.compile(r"([0-9]+)")


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk found.

    Attributes:
        root: the folder that paths are relative to.
        paths: the images relative to ``root``, in natural order.
        notes: folders that could not be read, links not followed, files that are not images.
    """

    root: Path
    paths: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Walk:
    """The state of one walk: each real folder is entered once, whatever links lead to it."""

    root: str
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entered: set[tuple[int, int]] = field(default_factory=set)

    def run(self) -> None:
        # Links last, so that a folder is found under its own name rather than under a link's.
        folders, links = [""], list[str]()
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            deeper, linked = self._read(folder)
            folders.extend(reversed(deeper))
            links.extend(linked)

    def _read(self, folder: str) -> tuple[list[str], list[str]]:
        here = os.path.join(self.root, folder)  # noqa: PTH118 — a Path each would cost as much as the hash
        folders, links = list[str](), list[str]()
        try:
            status = os.stat(here)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in self.entered:
                self.notes.append(
                    f"the link {as_text(folder)!r} is not followed: "
                    "its folder is already in the set"
                )
                return [], []
            self.entered.add((status.st_dev, status.st_ino))
            with os.scandir(here) as items:
                for item in sorted(items, key=lambda item: item.name):
                    if item.name.startswith("."):
                        continue
                    path = f"{folder}/{item.name}" if folder else item.name
                    if _is_folder(item):
                        (links if item.is_symlink() else folders).append(path)
                    else:
                        (self.images if is_image_name(item.name) else self.others).append(path)
        except OSError as error:
            name = as_text(folder) or "."
            self.notes.append(f"the folder {name!r} cannot be read: {reason(error)}")
        return folders, links


def find_in_folder(root: Path) -> Found:
    """Find every image under a folder.

    Args:
        root: the folder; hidden files and folders in it are skipped.

    Returns:
        The images, in natural order.
    """
    walk = _Walk(str(root))
    walk.run()
    paths = tuple(sorted(walk.images, key=natural))
    return Found(root, paths, (*sorted(walk.notes), *_not_images(walk.others)))


def find_by_glob(pattern: str) -> Found:
    """Find the images that a glob matches.

    Args:
        pattern: such as ``photos/**/*.jpg``; ``**`` is any depth, hidden files are skipped.

    Returns:
        The images relative to the folder before the first wildcard, in natural order.
    """
    parts = PurePath(pattern).parts
    fixed = 0
    while fixed < len(parts) - 1 and not glob.has_magic(parts[fixed]):
        fixed += 1
    root = Path(*parts[:fixed])
    matches = glob.glob(str(PurePath(*parts[fixed:])), root_dir=root, recursive=True)  # noqa: PTH207
    files = [PurePath(match).as_posix() for match in matches if not (root / match).is_dir()]
    images = sorted((path for path in set(files) if is_image_name(path)), key=natural)
    others = sorted(path for path in set(files) if not is_image_name(path))
    return Found(root, tuple(images), _not_images(others))


def is_image_name(name: str) -> bool:
    """Say whether a file's extension is an image's.

    >>> is_image_name("cat.JPG"), is_image_name("cat.txt")
    (True, False)
    """
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122


def natural(path: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Give the key that sorts paths as people do: folder by folder, numbers by value.

    >>> sorted(["b/10.png", "b/9.png", "a-1/x.png"], key=natural)
    ['a-1/x.png', 'b/9.png', 'b/10.png']
    """
    parts = tuple(
        tuple(int(piece) if index % 2 else piece for index, piece in enumerate(_DIGITS.split(part)))
        for part in path.split("/")
    )
    return parts, path


def as_text(path: str) -> str:
    r"""Show a path as text: bytes of a name that are not UTF-8 become the replacement character.

    >>> as_text("caf\udce9.jpg")
    'caf�.jpg'
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def _not_images(paths: Iterable[str]) -> tuple[str, ...]:
    names = sorted((as_text(path) for path in paths), key=natural)
    if not names:
        return ()
    shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    verb = "file is not an image" if len(names) == 1 else "files are not images"
    return (f"{len(names):,} {verb}: {shown}",)
