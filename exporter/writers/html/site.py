"""The pages of one report: its templates, what every page is told, and the folder they go to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from exporter.records import Plan
from exporter.writers.html import text as words


class Site:
    """Renders templates into a folder.

    Attributes:
        folder: the report's folder.
    """

    def __init__(self, folder: Path, plan: Plan, *, classes: bool, kernels: bool) -> None:
        """Read the templates.

        Args:
            folder: the report's folder.
            plan: what ran.
            classes: whether there is a page of classes.
            kernels: whether there is a page of kernels.
        """
        self.folder = folder
        self._environment = words.environment()
        links = [("index", "Overview"), ("images", "Images"), ("layers", "Layers")]
        links += [("classes", "Classes")] if classes else []
        links += [("kernels", "Kernels")] if kernels else []
        links += [("methods", "Methods")] if plan.methods else []
        self._common: dict[str, Any] = {
            "plan": plan,
            "pages": [(name, f"{name}.html", title) for name, title in links],
            "csp": words.POLICY,
            "icon": words.icon(),
            "colorbars": words.colour_bars(),
            "labelled": any(entry.label is not None for entry in plan.images),
            "judged": bool(plan.label_index),
            "scores": words.score_words(plan),
            "version": plan.versions.get("exporter", ""),
        }

    def copy_assets(self) -> None:
        """Copy the style sheet and the scripts."""
        source, target = words.templates(), self.folder / "assets"
        target.mkdir()
        for name in words.ASSETS:
            shutil.copyfile(source / name, target / name)

    def page(self, file: str, template: str, name: str, contents: dict[str, Any]) -> None:
        """Render one template into one file."""
        self.write(file, self.text(file, template, name, contents))

    def text(self, file: str, template: str, name: str, contents: dict[str, Any]) -> str:
        """Render one template as the text of a file.

        Args:
            file: relative to the report; tells how links lead to its first page.
            template: name of the template.
            name: of the page among the header's links.
            contents: what only this page is told.
        """
        values = self._common | contents
        root = "../" * file.count("/")
        found = self._environment.get_template(template)
        text: str = found.render(**values, root=root, page=name)
        return text

    def write(self, file: str, text: str) -> None:
        """Write text into a file, relative to the report."""
        path = self.folder / file
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
