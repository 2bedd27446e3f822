"""The wheel and the editable install carry templates and photographs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--quiet",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_has_every_template_and_photograph(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, packaged in (("templates", "_templates"), ("examples/photos", "_photos")):
        wanted = {
            f"exporter/{packaged}/{path.relative_to(ROOT / folder).as_posix()}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file()
        }
        assert wanted
        assert wanted <= names
    assert "exporter/py.typed" in names


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True])
def test_an_install_gives_a_command_that_writes_the_report(
    wheel: Path, editable: bool, sample_run: Path, tmp_path: Path
) -> None:
    # A new environment that sees this one's packages: only the exporter is installed afresh.
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True
    )
    python = tmp_path / "venv/bin/python"
    site = next((tmp_path / "venv/lib").glob("python*")) / "site-packages"
    here = next(path for path in sys.path if path.endswith("site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    if editable:
        # The build backend is fetched into an isolated environment by pip itself.
        subprocess.run([*pip, "-e", str(ROOT)], check=True)
    else:
        subprocess.run([*pip, str(wheel)], check=True)
    # After the install, so that pip does not take this environment's exporter for the new one.
    (site / "zz_packages.pth").write_text(here + "\n")
    run = tmp_path / "run"
    import shutil

    shutil.copytree(sample_run, run)
    shutil.rmtree(run / "html", ignore_errors=True)
    command = tmp_path / "venv/bin/exporter"
    subprocess.run([str(command), "render", str(run), "--writer", "html"], check=True, cwd=tmp_path)
    assert (run / "html/index.html").exists()
    where = subprocess.run(
        [str(python), "-c", "import exporter; print(exporter.__file__)"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert Path(where).is_relative_to(ROOT if editable else tmp_path / "venv")
