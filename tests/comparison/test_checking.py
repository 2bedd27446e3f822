"""A comparison that lost something says what."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.comparison import check, open_comparison


def test_what_is_gone_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(copied)]) == 0
    assert "is intact: 12 images in 3 runs" in capsys.readouterr().out
    (copied / "similarity.parquet").unlink()
    (copied / "classes.parquet").write_bytes(b"no table")
    next((copied / "html" / "photos").rglob("*.jpg")).unlink()
    shutil.rmtree(copied.parent / "b")
    problems = list(check(open_comparison(copied)))
    assert len(problems) >= 4
    for part in (
        "similarity.parquet",
        "classes.parquet",
        "photos/",
        "is not where it was compared",
    ):
        assert any(part in problem for problem in problems), part
    assert main(["check", str(copied)]) == 2
    shutil.rmtree(copied / "html")
    assert any("html/ is missing" in problem for problem in check(open_comparison(copied)))
