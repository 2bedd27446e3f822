"""A writer from outside the package: the one of docs/add-a-writer.md, through the real command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.doors import RUN_FOLDERS
from exporter.store import layout
from tests.starting import ran

ROOT = Path(__file__).parents[2]
BROKEN = (
    "broken = exporter_csv:write\nshards = exporter_csv:WRITER\n../html = exporter_csv:WRITER\n"
)


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_run, tmp_path / "run"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that holds the writer of the documentation as an installed distribution."""
    page = (ROOT / "docs" / "add-a-writer.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(\"\"\".*?)```", page, re.DOTALL)
    (group, line) = re.search(r'points\."(.+)"\]\n(csv = .*)\n', page).groups()  # type: ignore[union-attr]
    site = tmp_path / "site"
    information = site / "exporter_csv-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "exporter_csv.py").write_text(code, encoding="utf-8")
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: exporter-csv\nVersion: 1.0\n"
    )
    entries = f"[{group}]\n{line.replace(chr(34), '')}\n{BROKEN}"
    (information / "entry_points.txt").write_text(entries)
    return site


def test_the_names_that_no_writer_can_have_are_the_runs_own() -> None:
    assert {*layout.FILLED, layout.KERNELS} == RUN_FOLDERS


def exporter(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return ran(*map(str, arguments), at=Path.cwd(), path=(site,))


@pytest.mark.slow
def test_the_writer_of_the_documentation_works_from_outside(run: Path, site: Path) -> None:
    option = ("--writer-option", "csv.delimiter=;")
    done = exporter(site, "render", run, "--writer", "csv", *option)
    assert done.returncode == 0, done.stderr
    assert "csv/images.csv" in done.stdout
    lines = (run / "csv" / "images.csv").read_text(encoding="utf-8").splitlines()
    plan = json.loads((run / "plan.json").read_text())
    assert len(lines) == 21
    assert lines[1].startswith(f"{plan['images']['key'][0]};{plan['images']['path'][0]};")

    # An option of a plug-in may be an address or a place: it is never taken from a run folder.
    shutil.rmtree(run / "csv")
    assert exporter(site, "render", run, "--writer", "csv").returncode == 0
    assert ";" not in (run / "csv" / "images.csv").read_text(encoding="utf-8").splitlines()[1]
    # `check` knows what to look for.
    assert exporter(site, "check", run).returncode == 0
    (run / "csv" / "images.csv").unlink()
    checked = exporter(site, "check", run)
    assert checked.returncode == 2
    assert "csv/ has no images.csv" in checked.stdout

    # Without the plug-in the run is rendered and checked as before.
    nowhere = site.parent
    assert exporter(nowhere, "render", run, "--writer", "tensorboard").returncode == 0
    assert exporter(nowhere, "check", run).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--writer", "csw"), "no writer is called 'csw'; did you mean 'csv'"),
        (("--writer-option", "csv.colour=red"), "there is no setting 'colour'"),
        (("--writer-option", "csv"), "'csv' does not have the form NAME.KEY=VALUE"),
        (("--writer", "broken"), "the plug-in 'broken' is a function"),
        (("--writer", "shards"), "no writer is called 'shards'"),
        (("--writer", "../html"), "no writer is called '../html'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    run: Path, site: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = exporter(site, "render", run, *arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert (run / "shards").is_dir()


def test_overwrite_removes_the_folder_of_every_writer(run: Path, site: Path) -> None:
    for name in ("csv", "html", "wandb", "mine"):
        (run / name).mkdir()
        (run / name / "old.txt").write_text("old")
    code = (
        "import sys\n"
        "from exporter.store import create_run, open_run\n"
        "create_run(sys.argv[1], open_run(sys.argv[1]).plan, overwrite=True).close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(run)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))},
        check=True,
    )
    assert {name for name in ("csv", "html", "wandb", "mine") if (run / name).exists()} == {"mine"}
