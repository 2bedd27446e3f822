"""Which image of a run a path means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path, PurePath

from exporter.errors import RunError, choices
from exporter.store.plans import ImageColumns

_NEAREST = 3


def find_image(given: str | os.PathLike[str], images: ImageColumns, *, hashed: bool = True) -> int:
    """Return the number of the image that a path means.

    The path is the one in the image set, or one that ends with it (absolute, or relative to where
    it was typed), or the end of it, folder by folder. Where there is a file, its contents have to
    be those of the image, where the run's keys are hashes of contents (``hashed``).

    Raises:
        RunError: if it is no image of the run, or several; one sentence with the nearest.
    """
    text = os.fspath(given)
    wanted = PurePath(os.path.normpath(text)).as_posix()
    ends = [n for n, path in enumerate(images.path) if _ends_alike(path, wanted)]
    exact = [n for n in ends if images.path[n] in (wanted, text)]
    places = exact or ends
    if hashed and not exact and places and (key := _key_of(text)) is not None:
        places = [n for n in ends if images.key[n] == key]
        if not places:
            raise RunError(
                f"the file {text!r} is not the image {images.path[ends[0]]!r} of the run: "
                "its contents differ"
            )
    if not places:
        raise RunError(f"the run has no image {text!r}; {_nearest(wanted, images.path)}")
    if len(places) > 1:
        ids = images.ids
        named = [f"{images.path[n]!r} ({ids[n]})" for n in places[:_NEAREST]]
        more = f" and {len(places) - _NEAREST:,} more" if len(places) > _NEAREST else ""
        raise RunError(
            f"{text!r} is {len(places):,} images of the run, {', '.join(named)}{more}; give more "
            "of the path, or an id"
        )
    return places[0]


def _ends_alike(path: str, wanted: str) -> bool:
    return (
        f"/{path}".endswith(f"/{wanted.removeprefix('/')}")
        or wanted.endswith(f"/{path}")
        or (path == wanted)
    )


def _key_of(path: str) -> str | None:
    """Return the hash that is a file's key in a run; None where there is no such file to read."""
    try:
        regular = Path(path).is_file()  # a device may never end
        return blake2b(Path(path).read_bytes(), digest_size=16).hexdigest() if regular else None
    except (OSError, ValueError):
        return None


def _nearest(wanted: str, paths: Sequence[str]) -> str:
    """Say which images have nearly that name, wherever they lie."""
    by_name: dict[str, str] = {}
    for path in paths:
        by_name.setdefault(PurePath(path).name, path)
    close = get_close_matches(PurePath(wanted).name, by_name, n=_NEAREST)
    return choices(wanted, [by_name[name] for name in close] or paths)
