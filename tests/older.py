"""A run as the first version wrote it: without checksums, and without what planning found out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def make_older(run: Path) -> None:
    """Take away of a run what the first version did not write."""
    shutil.rmtree(run / "checksums")
    plan = json.loads((run / "plan.json").read_text())
    del plan["findings"]
    (run / "plan.json").write_text(json.dumps(plan))
