"""A run in a notebook: a real kernel executes cells, and what stands below them is looked at."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from exporter.notebook import NotebookLine, watched
from exporter.watch import Watch

ROOT = Path(__file__).parents[1]

CELLS = (
    """
import exporter
from exporter.demo import photographs
from tests.small import small
run = exporter.export(
    small(), photographs(), out="run", maps=["gradcam"], limit=3, shard_size=1, batch_size=1,
    writers=["html"],
)
""",
    "run",
    "run.overlay('astronaut.jpg', 'gradcam')",
    """
from IPython.core.completer import provisionalcompleter
typed = "exporter.export(model, 'photos', out='run', batch_s"
with provisionalcompleter():
    offered = {each.text for each in get_ipython().Completer.completions(typed, len(typed))}
print(offered)
""",
    "exporter.export(small(), photographs(), out='run')",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What stands below each cell."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, CELLS)])
    folder = str(tmp_path_factory.mktemp("notebook"))
    resources = {"metadata": {"path": folder}}
    client = nbclient.NotebookClient(notebook, resources=resources, allow_errors=True, timeout=120)
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": folder})
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
def test_progress_is_one_line_that_ends_with_the_time(outputs: list[Any]) -> None:
    shown = [each.data["text/html"] for each in outputs[0] if each.output_type == "display_data"]
    assert len(shown) == 1, outputs[0]
    assert re.fullmatch(r"done in \d+\.\d s", shown[0])
    said = "".join(each.text for each in outputs[0] if each.output_type == "stream")
    assert "images: 3 of " in said


@pytest.mark.slow
def test_a_run_and_an_overlay_are_pictures(outputs: list[Any]) -> None:
    (run,), (overlay,) = outputs[1], outputs[2]
    assert run.data["text/html"].count("data:image/jpeg;base64,") == 3
    assert run.data["text/plain"].startswith("<Run 'run': Sequential, 3 images")
    assert overlay.data["image/png"]


@pytest.mark.slow
def test_settings_are_completed(outputs: list[Any]) -> None:
    assert "batch_size=" in outputs[3][0].text


@pytest.mark.slow
def test_an_error_names_arguments_and_the_line_says_where_it_stopped(outputs: list[Any]) -> None:
    line, error = outputs[4]
    assert re.search(r": stopped after ", line.data["text/html"])
    assert "give resume=True to go on with it" in error.evalue


def test_outside_of_a_notebook_nobody_is_told() -> None:
    with watched(None) as told:
        assert type(told) is Watch
    mine = Watch()
    with watched(mine) as told:
        assert told is mine


def test_the_line_says_how_far_it_is_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html.data)

    now = iter(range(100))
    monkeypatch.setattr("exporter.notebook.time.monotonic", lambda: float(next(now)))
    monkeypatch.setattr(display, "display", lambda *_, **__: Handle())
    with pytest.raises(ValueError, match="no"), NotebookLine() as line:
        line.begin("reading <b>")
        line.begin("computing maps", 1000)
        line.advance(250)
        raise ValueError("no")
    assert shown[0] == "reading &lt;b&gt;"
    assert "computing maps: 0 of 1,000" in shown[1]
    assert '<progress value="250" max="1000">' in shown[2]
    assert re.search(r"computing maps: 250 of 1,000, about \d+\.0 s left$", shown[2])
    assert re.fullmatch(r"computing maps: stopped after \d+\.0 s", shown[3])
