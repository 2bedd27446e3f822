"""Where a site is published: a folder or a bucket, through fsspec, or a Space of Hugging Face."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.errors import ConfigError, ExporterError, WriterError, one_line

SITE = "site.json"
"""The file of a site that says what it was made of, and names its files."""

SPACE = "hf://spaces/"


class Place:
    """A folder or a bucket."""

    def __init__(self, to: str, staged: Path) -> None:
        """Find the file system."""
        from fsspec.core import url_to_fs

        self.to = to
        self._staged = staged
        # A folder makes those that are in it; elsewhere there are none.
        self._system, self._root = url_to_fs(to, **({} if "://" in to else {"auto_mkdir": True}))

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def former(self) -> list[str]:
        """Return the files of the site that is there; none where nothing is there.

        Raises:
            WriterError: if something else is there.
        """
        try:
            said = self._system.cat_file(self._at(SITE))
        except (FileNotFoundError, NotADirectoryError):
            try:
                taken = self._system.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
            # Of a file, ls tells the file.
            if taken:
                raise WriterError(
                    f"{self.to!r} holds something other than a site; give --to another place"
                ) from None
            return []
        try:
            names = json.loads(said)["files"]
            known = [str(name) for name in names if _is_inside(str(name))]
        except (ValueError, KeyError, TypeError):
            raise WriterError(
                f"the {SITE} of {self.to!r} is damaged; remove the site that is there"
            ) from None
        return known

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write files; what was there under their names is replaced."""
        places = [self._stage(name, content) for name, content in files.items()]
        # Files, and not their bytes: so a bucket is told of what kind each is.
        self._system.put(list(map(str, places)), list(map(self._at, files)))
        for place in places:
            place.unlink()

    def _stage(self, name: str, content: bytes) -> Path:
        place = self._staged / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    def finish(self, stale: Sequence[str]) -> None:
        """Remove files that a former site had and this one has not."""
        for name in stale:
            if self._system.exists(self._at(name)):
                self._system.rm_file(self._at(name))


class Space(Place):
    """A Space of Hugging Face: all files are one commit."""

    def put(self, files: Mapping[str, bytes]) -> None:
        """Keep files for the commit."""
        for name, content in files.items():
            self._stage(name, content)

    def finish(self, stale: Sequence[str]) -> None:
        """Make the Space where it is missing, and commit."""
        from huggingface_hub import HfApi

        api, name = HfApi(), self.to.removeprefix(SPACE).strip("/")
        api.create_repo(name, repo_type="space", space_sdk="static", exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type="space",
            folder_path=self._staged,
            commit_message="Publish a report of exporter",
            delete_patterns=list(stale) or None,
        )


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


@contextmanager
def place_of(to: str) -> Iterator[Place]:
    """Give a place to publish to; whatever goes wrong there is one sentence.

    Raises:
        ConfigError: if it is no place, or a library for it is missing.
        WriterError: if it cannot be read or written.
    """
    if to.startswith(SPACE) and to.removeprefix(SPACE).strip("/").count("/") != 1:
        raise ConfigError(f"{to!r} is no Space; write hf://spaces/USER/NAME")
    kind: Any = Space if to.startswith(SPACE) else Place
    try:
        with tempfile.TemporaryDirectory(prefix="exporter-") as staged:
            yield kind(to, Path(staged))
    except ExporterError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"publishing to {to!r} needs a library that is missing ({one_line(error)}): "
            "pip install 'exporter[sites]'"
        ) from error
    except Exception as error:  # each file system has errors of its own
        raise WriterError(f"{to!r} cannot be written: {one_line(error)}") from error
