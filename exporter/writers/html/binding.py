"""Pages that link to one another, as sections of one page: ids, links and pictures rewritten."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote

from exporter.errors import WriterError

_ID_LISTS = r"id|for|aria-labelledby|aria-describedby|aria-controls|list|headers|popovertarget"
_MAIN = re.compile(r'<main id="main"[^>]*>(.*)</main>', re.DOTALL)
_ALT = re.compile(r'\salt="([^"]*)"')
_LINK = re.compile(r'<a\b([^>]*?)\shref="([^"]*)"([^>]*)>(.*?)</a>', re.DOTALL)

IMAGE = re.compile(r"<img\b[^>]*>")
SOURCE = re.compile(r'\ssrc="([^"]*)"')
PHOTOGRAPH = re.compile(r"(?:^|/)photos/\d+/([0-9A-Za-z_-]+)\.jpg$")


@dataclass(slots=True)
class Binder:
    """Turns pages that link to one another into sections of one page."""

    folder: Path
    names: list[str]
    photographs: Mapping[str, bytes]
    taken: set[str] = field(default_factory=set)
    renamed: dict[str, dict[str, str]] = field(default_factory=dict)

    def section(self, name: str, text: str) -> str:
        """Return the main part of a page as a section."""
        found = _MAIN.search(text)
        if found is None:
            raise WriterError(f"the page {name} has no <main>; it cannot be bound")
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
        body = self.link(self._pictures(self._rename(name, found[1]), name), name)
        said = title[1].strip() if title else name
        return (
            f'<section class="leaf" id="{anchor(name)}" data-page="{_kind(text)}" '
            f'data-title="{said}" tabindex="-1">{body}</section>\n'
        )

    def _rename(self, name: str, text: str) -> str:
        """Give ids that an earlier page has already taken the page's name in front."""
        own: dict[str, str] = {}
        for id in re.findall(r'\sid="([^"]*)"', text):
            own[id] = f"{anchor(name)}-{id}" if id in self.taken else id
            self.taken.add(own[id])
        self.renamed[name] = own

        def change(found: re.Match[str]) -> str:
            ids = " ".join(own.get(id, id) for id in found[2].split())
            return f' {found[1]}="{ids}"'

        return re.sub(rf'\s({_ID_LISTS})="([^"]*)"', change, text)

    def _pictures(self, text: str, name: str) -> str:
        def change(found: re.Match[str]) -> str:
            tag = found[0]
            source = SOURCE.search(tag)
            if source is None or source[1].startswith("data:") or not source[1]:
                return tag
            photograph = PHOTOGRAPH.search(source[1])
            if photograph is None:
                file = self.folder / resolve(name, source[1])
                return tag.replace(source[0], f' src="{_address(file.read_bytes(), file.suffix)}"')
            id = photograph[1]
            if id not in self.photographs:
                return _absent(tag)
            # Each photograph is once in the file: in the list, from where scripts take it.
            address = (
                f' src="{_address(self.photographs[id], ".jpg")}"'
                if name.startswith("list/")
                else ""
            )
            return tag.replace(source[0], f'{address} data-photo="{id}"')

        return IMAGE.sub(change, text)

    def link(self, text: str, name: str) -> str:
        """Return a page's text with its links leading into the file."""

        def change(found: re.Match[str]) -> str:
            before, address, after, inside = found.groups()
            target = self.target(name, address)
            return inside if target is None else f'<a{before} href="{target}"{after}>{inside}</a>'

        return _LINK.sub(change, text)

    def target(self, name: str, address: str) -> str | None:
        """Return where a link of a page leads inside the file, or None where that is not in it."""
        if address.startswith(("http://", "https://", "data:")):
            return address
        page, _, fragment = address.partition("#")
        file = resolve(name, page) if page else name
        if file not in self.names:
            return None
        image = re.search(r"(?:^|&amp;|&)image=([^&]+)", fragment)
        if image and unquote(image[1]) not in self.photographs:
            return None
        if "=" in fragment:
            return f"#{fragment}"
        if fragment:
            return "#" + self.renamed.get(file, {}).get(fragment, fragment)
        return f"#{anchor(file)}"


def anchor(name: str) -> str:
    """Return the id of a page's section.

    >>> anchor("layers/5-2.html")
    'page-layers-5-2'
    """
    return "page-" + re.sub(r"[^0-9A-Za-z_-]+", "-", name.removesuffix(".html"))


def _kind(text: str) -> str:
    found = re.search(r'<body class="page-([a-z]+)"', text)
    return found[1] if found else ""


def resolve(page: str, address: str) -> str:
    """Return a file that a page names, relative to the report.

    >>> resolve("layers/5.html", "../photos/00/a.jpg")
    'photos/00/a.jpg'
    """
    return normpath(str(PurePosixPath(page).parent / unquote(address.partition("#")[0])))


def _absent(tag: str) -> str:
    alt = _ALT.search(tag)
    return f'<span class="absent">{alt[1] if alt else ""} (not in this file)</span>'


def _address(content: bytes, suffix: str) -> str:
    kind = {".jpg": "image/jpeg", ".png": "image/png", ".svg": "image/svg+xml"}[suffix]
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
