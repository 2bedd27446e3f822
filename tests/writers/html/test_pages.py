"""A page is a template, a function and a line: the example of docs/add-a-page.md is added."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.config import build_writer_config
from exporter.store import open_run
from exporter.writers import reading, write
from exporter.writers.html import writer
from exporter.writers.html.pages import PAGES, Page
from exporter.writers.writing import writer_options

DOCUMENT = Path(__file__).parents[3] / "docs" / "add-a-page.md"


def test_every_template_of_a_page_is_in_the_table() -> None:
    pages = {
        file.name
        for file in reading.templates().glob("*.html")
        if "{% extends layout %}" in file.read_text("utf-8")
        and not file.name.startswith("compare-")  # what the pages of comparisons extend
    }
    # The lists are written while the images are read, before any page.
    assert pages == {page.template for page in PAGES} | {"list.html"}


@pytest.mark.slow
def test_a_page_takes_three_edits(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```(html|python)\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    (_, template), (_, function), (_, line) = blocks
    shutil.copytree(reading.templates(), tmp_path / "templates")
    (tmp_path / "templates" / "losses.html").write_text(template, "utf-8")
    module: dict[str, object] = {}
    exec(function, module)
    page = eval(line, {"Page": Page, "losses": SimpleNamespace(**module)})
    monkeypatch.setattr(reading, "templates", lambda: tmp_path / "templates")
    monkeypatch.setattr(writer, "PAGES", (*PAGES, page))

    run = open_run(make_run(tmp_path / "run"))
    options = writer_options(run, build_writer_config({"single_file": True}))
    write(run, "html", options["html"])
    report = run.path / "html"
    for file in report.rglob("*.html"):
        if file.name != "report.html":
            assert re.search(r'href="[./]*losses.html"[^>]*>Losses</a>', file.read_text("utf-8"))
    largest = sorted((row for row in run.index if row.loss is not None), key=lambda row: -row.loss)
    for name, address in (("losses.html", "images.html#image="), ("report.html", "#image=")):
        content = html.unescape((report / name).read_text("utf-8"))
        rows = re.findall(r'href="([^"]+)">([^<]+)</a></th><td>([\d.e−-]+)</td>', content)
        shown = [row for row in rows if row[0].startswith(address) and row[1] == largest[0].path]
        assert shown, name
        assert shown[0][0] == address + largest[0].id
    assert 'id="page-losses-largest"' in (report / "report.html").read_text("utf-8")
