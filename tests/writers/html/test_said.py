"""What the author says in the report, from ``[report]`` in the configuration."""

from __future__ import annotations

import json
import re
import shutil
from html import escape
from pathlib import Path

import pytest

from exporter.config import build_config, build_writer_config
from exporter.errors import ConfigError
from exporter.store import open_run
from exporter.writers.writing import remembered, write_all

TOML = """
model = "demo"
images = "photos"
out = "run"
writers = ["html"]
single-file = true
max-size = "9MB"

[report]
title = "Where <b>ResNets</b> look & why"
authors = ["A. Author", "B. </p> Other"]
abstract = "First {{ plan }}.\\n\\nThen <script>alert(1)</script>."

[report.pages]
methods = "Read <i>this</i> first."

[report.images]
"chelsea.jpg" = "The cat & its \\"whiskers\\"."
"no-such.jpg" = "Nothing."
"""


@pytest.fixture(scope="module")
def run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("said") / "run"
    shutil.copytree(sample_run, place)
    file = place.parent / "run.toml"
    file.write_text(TOML)
    written, failed = write_all(open_run(place), build_config(file))
    assert failed == ()
    assert (
        "the note for 'no-such.jpg' is not in the report, which has no such image"
        in written[0].notes
    )
    return place


def page(run: Path, name: str) -> str:
    return (run / "html" / name).read_text("utf-8")


def test_title_authors_and_abstract_stand_on_the_overview_as_text(run: Path) -> None:
    text = page(run, "index.html")
    title = "Where &lt;b&gt;ResNets&lt;/b&gt; look &amp; why"
    assert f"<h1>{title}</h1>" in text
    assert f"· {title}</title>" in text
    assert "A. Author, B. &lt;/p&gt; Other" in text
    assert "First {{ plan }}.\n\nThen &lt;script&gt;alert(1)&lt;/script&gt;." in text
    assert not re.search("looks at</(h1|title)>", text)
    assert f"<title>{title}</title>" in page(run, "report.html")


def test_a_note_stands_on_its_page_alone(run: Path) -> None:
    note = 'aria-label="Note by the authors">Read &lt;i&gt;this&lt;/i&gt; first.</aside>'
    pages = sorted((run / "html").rglob("*.html"))
    assert [one.name for one in pages if note in one.read_text("utf-8")] == [
        "methods.html",
        "report.html",
    ]


def test_a_note_stands_at_its_image(run: Path) -> None:
    note = 'The cat & its "whiskers".'
    assert escape(note).replace("&quot;", "&#34;") in page(run, "list/00000.html")
    script = page(run, "data/index.js").removeprefix("exporterIndex('").removesuffix("');\n")
    index = json.loads(script.replace("\\\\", "\\").replace("\\'", "'"))
    place = index["columns"]["paths"].index("chelsea.jpg")
    assert index["notes"] == {str(place): note}


def test_what_was_said_is_said_again(run: Path) -> None:
    told = remembered(open_run(run).files)
    again = build_writer_config({}, told)
    assert again.report.title == "Where <b>ResNets</b> look & why"
    assert again.report.images["chelsea.jpg"].startswith("The cat")


def test_a_page_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^report: the report has no page 'imges'; choose from"):
        build_writer_config({"report": {"pages": {"imges": "x"}}})
    with pytest.raises(ConfigError, match=r"there is no setting 'report\.titel'"):
        build_writer_config({"report": {"titel": "x"}})
