"""Whether the local links of HTML pages lead somewhere."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

from exporter.errors import RunError
from exporter.store.files import RunFiles

_MOST = 1 << 28
"""Bytes of the largest page that is looked at."""

_ATTRIBUTES = frozenset({"href", "src", "poster", "data"})


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: dict[str, None] = {}

    def handle_starttag(
        self,
        tag: str,  # noqa: ARG002
        attrs: list[tuple[str, str | None]],
    ) -> None:
        # ``data`` is <object>'s; everything else that pages keep in data-* has another name.
        links = [value for name, value in attrs if name in _ATTRIBUTES and value]
        self.links.update(dict.fromkeys(links))


def broken_links(run: RunFiles, folder: str) -> Iterator[str]:
    """Yield a sentence for every local link in the folder's pages that leads nowhere."""
    for page in sorted(run.below(folder)):
        if page.endswith(".html"):
            yield from (f"{page} {problem}" for problem in _problems(run, page))


def _problems(run: RunFiles, page: str) -> Iterator[str]:
    parser = _Links()
    try:
        parser.feed(run.read(page, _MOST).decode())
    except (RunError, ValueError, AssertionError) as error:  # all of which the parser raises
        yield f"cannot be read: {str(error)[:200]}"
    for link in parser.links:
        problem = _problem(run, link, page)
        if problem:
            yield f"links to {link!r}, {problem}"


def _problem(run: RunFiles, link: str, page: str) -> str | None:
    try:
        parts = urlsplit(link.strip())
    except ValueError:
        return "which is not an address"
    if parts.scheme or parts.netloc or not parts.path:
        return None
    if parts.path.startswith("/"):
        return "which is not relative"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
    if target.startswith(".."):
        return "which is outside the run"
    try:
        return None if target == "." or run.exists(target) else "which is not there"
    except RunError as error:
        return f"but {error}"
