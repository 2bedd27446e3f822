"""Writing a supplement so that it fits: what goes first, and how much of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from exporter.errors import ConfigError
from exporter.publish.archive import write_zip
from exporter.publish.supplement import SEED, Contents, Supplement
from exporter.watch import Watch
from exporter.writers.html import text as words

_TRIES = 8
_MAPS, _LIVE = "data/*/maps.parquet", "*/live/*.js"
_PICTURED = ("*/photos/*/*.jpg", "*/data/0*.js")
"""Files that go: the raw maps, the maps of any class, and what an image has in the reports."""
_SMALL = 1500
"""Bytes that a small photograph takes, with its entry."""


class Fitting:
    """Writes a supplement as often as it takes to fit."""

    def __init__(
        self,
        supplement: Supplement,
        limit: int | None,
        front: Callable[[Contents, Path], None],
        work: Path,
        *,
        watch: Watch,
    ) -> None:
        """Prepare to write."""
        self._supplement, self._limit, self._front, self._watch = supplement, limit, front, watch
        self._folder, self.zip = work / "supplement", work / "supplement.zip"
        self._sizes: dict[str, int] = {}

    def fit(self) -> tuple[str, ...]:
        """Write it, and return what is left out so that it fits."""
        limit = self._limit
        contents = Contents()
        size = self._write(contents)
        if limit is None or size <= limit:
            return left_out_of(contents, 0)
        whole = self._sizes
        for contents, gone in (
            (Contents(maps=False), (_MAPS,)),
            (Contents(maps=False, live=False), (_MAPS, _LIVE)),
        ):
            # What cannot fit is not written.
            if size - _taken(whole, *gone) <= limit and self._write(contents) <= limit:
                return left_out_of(contents, 0)
        return self._fit_images(contents, whole, limit)

    def _fit_images(
        self, contents: Contents, sizes: Mapping[str, int], limit: int
    ) -> tuple[str, ...]:
        """Leave out the maps of as many images as it takes."""
        ids = self._supplement.ids()
        whole = _taken(sizes, *_PICTURED) / max(1, len(ids))
        rest = sum(sizes.values()) - _taken(sizes, _MAPS, _LIVE) - len(ids) * (whole - _SMALL)
        number = int((limit - rest) / max(1.0, whole - _SMALL))
        for left in reversed(range(_TRIES)):
            number = min(max(number, 0), len(ids) - 1)
            fewer = replace(contents, pictured=frozenset(ids[:number]))
            size = self._write(fewer)
            if size <= limit:
                return left_out_of(fewer, len(ids))
            if number == 0:
                break
            # The last try is the smallest.
            number = int(number * 0.9 * limit / size) if left > 1 else 0
        raise ConfigError(
            f"the smallest supplement, with {words.count(number, 'image')} shown whole, takes "
            f"{size:,} bytes, and {limit:,} are allowed; pack fewer runs, or give it more with "
            "--max-size"
        )

    def _write(self, contents: Contents) -> int:
        """Write the supplement and its zip, and return how many bytes this has."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._watch.begin("writing the supplement")
        self._supplement.write(self._folder, contents)
        self._front(contents, self._folder)
        self._sizes = write_zip(self._folder, self.zip)
        return self.zip.stat().st_size


def _taken(sizes: Mapping[str, int], *patterns: str) -> int:
    matching = (n for n in sizes if any(Path(n).match(pattern) for pattern in patterns))
    return sum(sizes[name] for name in matching)


def left_out_of(contents: Contents, every: int) -> tuple[str, ...]:
    """Say what does not fit, in the order in which it goes."""
    sentences = []
    if not contents.maps:
        sentences.append("The raw maps (data/*/maps.parquet) are left out.")
    if not contents.live:
        sentences.append("The reports do not paint the map of any class.")
    if contents.pictured is not None:
        whole = len(contents.pictured)
        sentences.append(
            f"{words.count(whole, 'image')} of {every:,} are shown whole, with their maps: those "
            "that rules choose, those drawn at random, those of the reports' first pages, then "
            f"others in random order (seed {SEED}). The rest are small photographs without maps."
        )
    return tuple(sentences)
