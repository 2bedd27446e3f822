"""The comparison as one file: whole, within its budget, allowed exactly its own scripts."""

from __future__ import annotations

import hashlib
import html
import json
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.comparison import Comparison, compare, open_comparison
from exporter.errors import ConfigError, WriterError

INLINE = re.compile(r"<script>.*?</script>|<style>.*?</style>", re.DOTALL)


@pytest.fixture(scope="module")
def file(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "CMP"
    arguments = ["compare", *map(str, checkpoints), "--out", str(out), "--writer", "html"]
    assert main([*arguments, "--single-file"]) == 0
    return out / "html" / "report.html"


@pytest.fixture(scope="module")
def text(file: Path) -> str:
    return file.read_text("utf-8")


def photographs(text: str) -> dict[str, bytes]:
    (told,) = re.findall(r"window\.exporterPhotographs = (\{.*?\});", text)
    return {id: b64decode(address.split(",")[1]) for id, address in json.loads(told).items()}


def said(file: Path) -> str:
    """Return the line that says what is in the file; its size is the file's."""
    (note,) = re.findall(r'<p class="note bound">(.*?)</p>', file.read_text("utf-8"))
    size = f"This file of {file.stat().st_size / 1e6:.3g} MB holds "
    assert note.startswith(size)
    return note.removeprefix(size)


def test_it_holds_every_image_where_they_fit_and_says_its_size(file: Path, text: str) -> None:
    folder = file.parent
    assert said(file) == "all 12 images, with their maps."
    stored = {path.stem: path.read_bytes() for path in folder.glob("photos/*/*.jpg")}
    assert photographs(text) == stored
    for name in ("index", "images", "classes", "layers", "runs"):
        assert f'id="page-{name}"' in text
    for finding in open_comparison(folder.parent).findings:
        told = html.escape(finding.text.replace(" %", "\u00a0%"), quote=False)
        assert told in text.replace("&#39;", "'")


def test_all_that_it_leads_to_is_inside(text: str) -> None:
    markup = INLINE.sub("", text)
    ids = re.findall(r'\sid="([^"]+)"', markup)
    assert len(ids) == len(set(ids))
    sources = re.findall(r'<(?:img|script|link)\b[^>]*?\s(?:src|href)="([^"]*)"', markup)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    links = [html.unescape(link) for link in re.findall(r'<a\b[^>]*?\shref="([^"]+)"', markup)]
    assert any("image=" in link for link in links)
    for link in links:
        assert link.startswith("#")
        assert "=" in link or link[1:] in ids, link
    named = set(re.findall(r'(?:aria-labelledby|for|data-table)="([^"]+)"', markup))
    assert named <= set(ids)


def test_its_policy_allows_exactly_its_scripts_and_style(text: str) -> None:
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        allowed = re.search(rf"{tag}-src ([^;]+)", policy)[1].split()
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashes = [b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in inside]
        assert {f"'sha256-{each}'" for each in hashes} == set(allowed)


@pytest.mark.slow
def test_under_a_small_budget_the_first_page_s_images_come_first(
    comparison: Comparison, checkpoints: list[Path], file: Path, tmp_path: Path
) -> None:
    whole = file.stat().st_size
    limit = whole - 30_000
    compare(*checkpoints, out=tmp_path / "CMP", writers=["html"], single_file=True, max_size=limit)
    small = tmp_path / "CMP" / "html" / "report.html"
    assert small.stat().st_size <= limit
    match = re.match(r"the maps of (\d+) of 12 images: those of the first page, then", said(small))
    assert match is not None
    stored = {path.stem: path.read_bytes() for path in file.parent.glob("photos/*/*.jpg")}
    held = photographs(small.read_text("utf-8"))
    assert held.keys() == stored.keys()
    full = {id for id in held if held[id] == stored[id]}
    assert 0 < len(full) < 12
    assert len(full) == int(match[1])
    # The folder has all of them.
    again = {path.stem: path.read_bytes() for path in small.parent.glob("photos/*/*.jpg")}
    assert again == stored


@pytest.mark.slow
def test_a_budget_below_the_pages_and_a_size_that_is_none_are_refused(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(WriterError, match=r"without any map, and --max-size allows 20,000; give"):
        compare(
            *checkpoints, out=tmp_path / "a", writers=["html"], single_file=True, max_size="20kB"
        )
    with pytest.raises(ConfigError, match="'much' is not a size; write it like 500kB"):
        compare(*checkpoints, out=tmp_path / "b", single_file=True, max_size="much")
    assert not (tmp_path / "b").exists()


@pytest.mark.browser
def test_its_images_open_in_all_runs(page: Any, file: Path, until: Any) -> None:
    page.goto(file.as_uri())
    assert page.locator("h1:visible").count() == 1
    page.locator("nav a", has_text="Images").click()
    until(page, "document.querySelector('.tile canvas')")
    page.locator(".tile").first.click()
    until(page, "document.querySelectorAll('#v-panes canvas').length === 3")
    widths = page.evaluate(
        "[...document.querySelectorAll('#v-panes img')].map(i => i.naturalWidth)"
    )
    assert len(widths) == 3
    assert all(widths)
    page.keyboard.press("Escape")
    page.locator("nav a", has_text="Classes").click()
    assert page.locator("h1:visible").inner_text() == "Classes"
    page.locator("[data-control='find-class']").fill("zzz")
    assert page.locator("#page-classes tbody tr:visible").count() == 0
