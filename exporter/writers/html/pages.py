"""The table of pages: what the report consists of, in the order of its header."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from exporter.writers.html import (
    classes,
    concepts,
    images,
    layers,
    methods,
    neighbours,
    overview,
)
from exporter.writers.html.report import Report

Contents = Callable[[Report], Iterator[tuple[str, dict[str, Any]]]]
"""Yields each file of a page, relative to the report, with what its template is filled with."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the report, or many that share a template.

    Attributes:
        name: names the page's style, and in the header the link to ``<name>.html``.
        template: file name under ``templates/``.
        contents: the function that fills it.
        title: of the link in the header; ``""`` for pages that others lead to.
        exists: whether a run has what the page shows.
    """

    name: str
    template: str
    contents: Contents
    title: str = ""
    exists: Callable[[Report], bool] = lambda _: True


PAGES = (
    Page("index", "index.html", overview.overview, "Overview"),
    Page("images", "images.html", images.images, "Images"),
    Page("layers", "layers.html", layers.table, "Layers"),
    Page("layers", "layer.html", layers.pages),
    Page("classes", "classes.html", classes.table, "Classes", classes.known),
    Page("classes", "class.html", classes.pages),
    Page(
        "kernels",
        "kernels.html",
        layers.kernels,
        "Kernels",
        lambda report: bool(report.run.kernels()),
    ),
    Page(
        "methods",
        "methods.html",
        methods.methods,
        "Methods",
        lambda report: bool(report.plan.methods),
    ),
    Page(
        "concepts",
        "concepts.html",
        concepts.page,
        "Concepts",
        lambda report: report.concepts_or_why[0] is not None,
    ),
    Page(
        "duplicates",
        "duplicates.html",
        neighbours.page,
        "Duplicates",
        lambda report: bool(report.neighbours.pairs),
    ),
)
