"""Images in files: folders, globs, one file, a sequence of paths."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from io import FileIO
from pathlib import Path, PurePath
from typing import Any

from exporter.doors import RUN_FOLDERS
from exporter.errors import ImageSetError, reason
from exporter.images.sources import Entry
from exporter.stores import is_address

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("avif", "heic", "heif", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga"),
        *("dcm", "dicom"),
    )
)
"""Files with these extensions are always taken; one that cannot be read is a row with an error."""

ARCHIVE = ".tar"
"""What the name of a WebDataset archive ends in."""

_ELSEWHERE = {
    ARCHIVE: "give a pattern that ends in .tar for what is in archives",
    ".arrow": "give hf:FOLDER for a data set that Hugging Face's datasets saved",
}
_NAMED = 3
_DIGITS = re.compile(r"([0-9]+)")


class Files:
    """Images in files below a root; those in a run folder are left out, which is noted."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.notes: tuple[str, ...] = ()

    def load(self, entry: Entry) -> bytes:
        """Return a file's bytes."""
        return read_file(os.path.join(self.root, entry.path))  # noqa: PTH118 — called for every image

    def _outside_runs(self, paths: Iterable[str]) -> list[str]:
        root = os.path.abspath(self.root)  # noqa: PTH100
        kept, runs = list[str](), set[str]()

        @cache
        def run_of(folder: str) -> str | None:
            if _is_run(folder):
                return folder
            above = os.path.dirname(folder)  # noqa: PTH120
            return None if folder in (root, above) else run_of(above)

        for path in paths:
            run = run_of(os.path.dirname(os.path.abspath(os.path.join(root, path))))  # noqa: PTH100, PTH118, PTH120
            if run is None:
                kept.append(path)
            else:
                runs.add(as_text(os.path.relpath(run, root)))
        said = "is left out: a run's own pictures do not belong to an image set"
        self.notes += tuple(f"the run folder {run!r} {said}" for run in sorted(runs))
        return kept

    def _labelled(self, paths: Iterable[str]) -> Iterator[Entry]:
        kept = sorted(self._outside_runs(paths), key=natural)
        names = [as_text(path) for path in kept if not is_image_name(path)]
        if names:
            shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
            verb = "file is not an image" if len(names) == 1 else "files are not images"
            ways = [way for end, way in _ELSEWHERE.items() if any(n.endswith(end) for n in names)]
            self.notes += ("; ".join([f"{len(names):,} {verb}: {shown}", *ways]),)
        for path in filter(is_image_name, kept):
            folder, slash, _ = path.partition("/")
            yield Entry(path, folder if slash else None)


class Folder(Files):
    """Every image in a folder, at any depth; the first folder's name is the label."""

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a folder."""
        return is_path(where) and os.path.isdir(where)  # noqa: PTH112 — no error on odd names

    def entries(self) -> Iterator[Entry]:
        """Find the images, in natural order; hidden files and folders are skipped."""
        paths, notes = _walk(str(self.root))
        self.notes = tuple(sorted(notes))
        return self._labelled(paths)


class Glob(Files):
    """The images that a glob matches; the first folder below the wildcard's is the label."""

    def __init__(self, where: str | Path) -> None:
        parts = PurePath(where).parts
        fixed = 0
        while fixed < len(parts) - 1 and not glob.has_magic(parts[fixed]):
            fixed += 1
        super().__init__(Path(*parts[:fixed]))
        self._pattern = str(PurePath(*parts[fixed:]))

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a path with a wildcard, and not a file called so."""
        magic = is_path(where) and glob.has_magic(os.fspath(where)) and not exists(where)
        return magic and not os.fspath(where).endswith(ARCHIVE) and not is_address(where)

    def entries(self) -> Iterator[Entry]:
        """Find the matching images, in natural order; hidden files are skipped."""
        matches = glob.glob(self._pattern, root_dir=self.root, recursive=True)  # noqa: PTH207
        paths = {PurePath(match).as_posix() for match in matches}
        return self._labelled(path for path in paths if not (self.root / path).is_dir())


class Paths(Files):
    """A sequence of paths, as given in Python."""

    def __init__(self, where: Sequence[str | Path]) -> None:
        # Keeps ".." out of links.
        self._paths = [os.path.abspath(path) for path in where]  # noqa: PTH100
        self.name = f"{len(where):,} path{'' if len(where) == 1 else 's'}"
        try:
            super().__init__(os.path.commonpath([os.path.dirname(path) for path in self._paths]))  # noqa: PTH120
        except ValueError:
            raise ImageSetError(
                "the paths have no folder in common: give paths of one drive"
            ) from None

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a sequence of paths, and not empty."""
        listed = isinstance(where, Sequence) and not isinstance(where, str)
        return listed and len(where) > 0 and all(map(is_path, where))

    def entries(self) -> Iterator[Entry]:
        """Yield the images in the order given."""
        paths = (PurePath(path).relative_to(self.root).as_posix() for path in self._paths)
        return map(Entry, self._outside_runs(paths))


class Photograph(Files):
    """One image."""

    def __init__(self, where: str | Path) -> None:
        super().__init__(Path(where).parent)
        self._name = Path(where).name

    @staticmethod
    def matches(where: Any) -> bool:
        """Say whether this is a file with an image's extension."""
        return is_path(where) and is_image_name(os.fspath(where)) and is_file(where)

    def entries(self) -> Iterator[Entry]:
        """Yield the one image."""
        yield Entry(self._name)


def read_file(path: str) -> bytes:
    """Read a regular file whole; a folder, a pipe or a device is an ``OSError``."""
    with FileIO(path, opener=_open_regular) as file:
        return file.readall()


def is_path(where: object) -> bool:
    """Say whether something is text or a path."""
    return isinstance(where, str | os.PathLike)


def exists(where: Any) -> bool:
    """Say whether there is such a file or folder; a name that cannot be one is no error."""
    return os.path.exists(where)  # noqa: PTH110


def is_file(where: Any) -> bool:
    """Say whether there is something of this name that is not a folder."""
    return exists(where) and not Folder.matches(where)


def is_image_name(name: str) -> bool:
    """Say whether a file's extension is an image's.

    Examples:
        >>> is_image_name("cat.JPG"), is_image_name("cat.txt")
        (True, False)
    """
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122


def natural(path: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Return the key that sorts paths as people do: folder by folder, numbers by value.

    Examples:
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
    return re.sub("[\ud800-\udfff]", "�", path)


def _open_regular(path: str, flags: int) -> int:
    # Opening a named pipe for reading would otherwise wait for a writer for ever.
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("it is not a regular file")
    return file


def _is_run(folder: str) -> bool:
    inside = [os.path.join(folder, name) for name in (*RUN_FOLDERS, "recipe.json", "run.json")]  # noqa: PTH118
    return is_file(os.path.join(folder, "plan.json")) and any(map(exists, inside))  # noqa: PTH118


def _walk(root: str) -> tuple[list[str], list[str]]:
    """Return the files under a folder, each real folder entered once, and what was left out."""
    paths, notes = list[str](), list[str]()
    entered: set[tuple[int, int]] = set()

    def below(path: str) -> str:
        return path[len(root) :].replace(os.sep, "/").lstrip("/") or "."

    def unreadable(error: OSError) -> None:
        name = as_text(below(error.filename))
        notes.append(f"the folder {name!r} cannot be read: {reason(error)}")

    # Links last, so that a folder is found under its own name rather than under a link's.
    tops = [root]
    for top in tops:
        for here, folders, files in os.walk(top, onerror=unreadable):
            status = os.stat(here)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in entered:
                name = as_text(below(here))
                notes.append(f"the link {name!r} is not followed: its folder is already in the set")
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            shown = sorted(name for name in folders if not name.startswith("."))
            links = [name for name in shown if os.path.islink(os.path.join(here, name))]  # noqa: PTH114, PTH118
            tops += [os.path.join(here, name) for name in links]  # noqa: PTH118
            folders[:] = [name for name in shown if name not in links]
            prefix = "" if here == root else below(here) + "/"
            paths += [prefix + name for name in files if not name.startswith(".")]
    return paths, notes
