"""How files of a run are opened while somebody else changes its folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from exporter.errors import RunError
from exporter.store.files import DEEPEST, RunFiles

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")


class Exchanged(RunFiles):
    """A run of which a folder becomes a link once its files have been looked at."""

    def __init__(self, run: Path, folder: str, to: Path) -> None:
        super().__init__(run)
        self.folder, self.to = folder, to

    def _where(self, name: str) -> str:
        """Look, and have the folder exchanged after that."""
        path = super()._where(name)
        if not (self.run / self.folder).is_symlink():
            (self.run / self.folder).rename(self.run / "moved")
            (self.run / self.folder).symlink_to(self.to)
        return path


@pytest.mark.parametrize("folder", ["a", "a/b"])
def test_a_folder_that_becomes_a_link_leads_nowhere(tmp_path: Path, folder: str) -> None:
    (tmp_path / "run/a/b").mkdir(parents=True)
    (tmp_path / "run/a/b/c").write_text("the run's")
    (tmp_path / "else/b").mkdir(parents=True)
    for secret in ("else/c", "else/b/c"):
        (tmp_path / secret).write_text("the reader's")
    assert RunFiles(tmp_path / "run").read("a/b/c") == b"the run's"
    files = Exchanged(tmp_path / "run", folder, tmp_path / "else")
    with pytest.raises(RunError, match="cannot be read"):
        files.read("a/b/c")


def test_the_run_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "run/a").mkdir(parents=True)
    (tmp_path / "run/a/b").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert RunFiles(tmp_path / "link").read("a/b") == b"x"


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_text("x")
    files = RunFiles(tmp_path)
    before = descriptors()
    for name in ("a/b", "a/missing", "missing/b"):
        for _ in range(3):
            try:
                files.read(name)
            except RunError:
                assert name != "a/b"
    assert descriptors() == before


def test_what_is_below_a_folder_is_found_at_any_depth_that_a_run_has(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    for name in ("a/1", "a/b/2", "a/b/c/3"):
        (tmp_path / name).touch()
    (tmp_path / "a/link").symlink_to(tmp_path)
    files = RunFiles(tmp_path)
    assert sorted(files.below("a")) == ["a/1", "a/b/2", "a/b/c/3", "a/link"]
    (tmp_path / "/".join("a" * (DEEPEST + 2))).mkdir(parents=True)
    with pytest.raises(RunError, match="nested more than 100 deep"):
        list(files.below("a"))
