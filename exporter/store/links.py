"""Whether the local links of HTML pages lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

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


def broken_links(folder: Path, root: Path) -> Iterator[str]:
    """Yield a sentence for every local link in the folder's pages that leads nowhere.

    Args:
        folder: where the pages are, at any depth.
        root: what links may lead into; relative links that leave it are broken elsewhere.
    """
    real = root.resolve()
    for page in sorted(folder.rglob("*.html")):
        name = page.relative_to(root).as_posix()
        parser = _Links()
        try:
            parser.feed(page.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            yield f"{name} cannot be read: {error}"
            continue
        for link in parser.links:
            problem = _problem(link, page, real)
            if problem:
                yield f"{name} links to {link!r}, {problem}"


def _problem(link: str, page: Path, root: Path) -> str | None:
    try:
        parts = urlsplit(link.strip())
    except ValueError:
        return "which is not an address"
    if parts.scheme or parts.netloc or not parts.path:
        return None
    if parts.path.startswith("/"):
        return "which is not relative"
    target = (page.parent / unquote(parts.path)).resolve()
    if target != root and root not in target.parents:
        return "which is outside the run"
    return None if target.exists() else "which is not there"
