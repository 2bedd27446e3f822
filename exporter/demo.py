"""The demo: bundled photographs and a real ImageNet model, with no network."""

from __future__ import annotations

from pathlib import Path

from exporter.config import RunConfig, build_config
from exporter.errors import ConfigError, RunError
from exporter.store import open_run

_SPEC = "demo"


def photographs() -> Path:
    """Return the folder of the bundled photographs.

    Raises:
        ConfigError: if the installation lacks them.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "_photos", here.parent / "examples" / "photos"):
        if folder.is_dir():
            return folder
    raise ConfigError("the demo's photographs are not installed; reinstall the exporter package")


def demo_config(out: Path) -> RunConfig:
    """Return the demo's settings."""
    return build_config(
        model=_SPEC,
        images=str(photographs() / "*.jpg"),
        out=out,
        maps=("gradcam", "gradcam++", "layercam", "hirescam", "eigencam"),
    )


def is_demo(out: Path) -> bool:
    """Return whether a folder holds a demo that a new one may replace."""
    try:
        return open_run(out).plan.model.spec == _SPEC
    except RunError:
        return False
