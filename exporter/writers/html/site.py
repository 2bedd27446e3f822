"""The templates of one report, and how a page names what is beside it: in a folder, in one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from markupsafe import Markup

from exporter.records import Plan
from exporter.writers.html import text as words
from exporter.writers.options import ReportWords
from exporter.writers.reading import templating

_TYPES = {".jpg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True, slots=True)
class InFolder:
    """A page that is a file of the report: addresses are relative to it."""

    file: str
    single = False

    def link(self, file: str, at: str = "") -> str:
        """Return the address of a page; ``at`` is an id, or the state of the images page."""
        folder = self.file.rpartition("/")[0] + "/"
        beside = folder != "/" and file.startswith(folder)
        address = file.removeprefix(folder) if beside else "../" * self.file.count("/") + file
        return f"{address}#{at}" if at else address

    def id(self, name: str) -> str:
        """Return an id that no other element of the document has."""
        return name

    def source(self, file: str, always: bool = False) -> Markup:
        """Return the attribute of an ``img`` that shows a file of the report."""
        del always
        return Markup('src="{}"').format(self.link(file))


@dataclass(frozen=True, slots=True)
class InOneFile:
    """A page that is a section of the single file: addresses are anchors, pictures are inside."""

    file: str
    folder: Path
    files: Collection[str]
    photographs: Mapping[str, bytes]
    single = True

    @property
    def anchor(self) -> str:
        """The id of the page's section."""
        return _anchor(self.file)

    def link(self, file: str, at: str = "") -> str | None:
        """Return an anchor; None where the page, or the image that ``at`` names, is left out."""
        image = at.removeprefix("image=") if at.startswith("image=") else None
        if file not in self.files or (image is not None and image not in self.photographs):
            return None
        if "=" in at:
            return f"#{at}"
        return f"#{_anchor(file)}" + (f"-{at}" if at else "")

    def id(self, name: str) -> str:
        """Return the name with the page's before it."""
        return f"{self.anchor}-{name}"

    def source(self, file: str, always: bool = False) -> Markup | None:
        """Return ``src`` with the bytes; photographs are in the list, whence scripts show them.

        Args:
            file: relative to the report.
            always: with the bytes even if it is a photograph, and whether or not it is in the list.
        """
        if always or not file.startswith("photos/"):
            return _inline((self.folder / file).read_bytes(), _TYPES[PurePosixPath(file).suffix])
        id = PurePosixPath(file).stem
        if id not in self.photographs:
            return None
        name = Markup('data-photo="{}"').format(id)
        if not self.file.startswith("list/"):
            return name
        return _inline(self.photographs[id], "image/jpeg") + Markup(" ") + name


Place = InFolder | InOneFile
"""Where a page stands: templates reach what is outside of their page through it only."""


def _anchor(file: str) -> str:
    """Return the id of a page's section.

    >>> _anchor("layers/5-2.html")
    'page-layers-5-2'
    """
    return "page-" + file.removesuffix(".html").replace("/", "-")


def _inline(content: bytes, type: str) -> Markup:
    return Markup(f'src="data:{type};base64,{b64encode(content).decode("ascii")}"')


class Site:
    """The templates, and what each of them is told whatever the page."""

    def __init__(
        self,
        plan: Plan,
        links: Collection[tuple[str, str]],
        said: ReportWords,
        brand: str | None = None,
    ) -> None:
        """Read the templates.

        Args:
            plan: what ran.
            links: name and title of each page that the header leads to.
            said: what the author says.
            brand: what the header calls the report; the model if None.
        """
        self._environment = templating(escape=True)
        for write in words.FILTERS:
            self._environment.filters[write.__name__] = write
        self._environment.globals |= {
            "plan": plan,
            "links": links,
            "said": said,
            "brand": brand or plan.model.title,
            "csp": words.POLICY,
            "icon": words.icon(),
            "colorbars": words.colour_bars(),
            "labelled": any(entry.label is not None for entry in plan.images),
            "judged": bool(plan.label_index),
            "scores": words.score_words(plan),
            "version": plan.versions.get("exporter", ""),
        }

    def render(self, template: str, name: str, place: Place, context: Mapping[str, Any]) -> str:
        """Return the text of a page."""
        text: str = self._environment.get_template(template).render(
            context,
            page=name,
            place=place,
            link=place.link,
            id=place.id,
            source=place.source,
            single=place.single,
            layout="section.html" if place.single else "base.html",
        )
        return text
