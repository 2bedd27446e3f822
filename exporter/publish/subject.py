"""What a report is about: runs, or a comparison with its runs, and where the rest of them is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from exporter.comparison import Comparison
from exporter.errors import RunError
from exporter.publish.choosing import Named
from exporter.writers import links
from exporter.writers.wandb.place import wandb_ids
from exporter.writers.wandb.rows import PREFIX
from exporter.writers.writing import remembered


@dataclass(frozen=True)
class Subject:
    """What a report is about, and where the rest of it can be opened."""

    runs: tuple[Named, ...]
    comparison: Comparison | None = None
    wandb_run: str | None = None
    report_url: str | None = None
    tensorboard_url: str | None = None
    command: str = ""

    @property
    def prefix(self) -> str:
        """What stands before the names of all that is logged."""
        return "" if self.wandb_run is None else PREFIX

    @property
    def mark(self) -> str:
        """What tells the report from others: a hash of the plans of its runs."""
        plans = sorted(named.run.files.sha256("plan.json") for named in self.runs)
        kind = "runs" if self.comparison is None else "comparison"
        return hashlib.sha256(json.dumps([kind, *plans]).encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """What the report is called where its author does not say."""
        if self.comparison is not None:
            from exporter.comparison.html import title

            return title(self.comparison)
        names = list(dict.fromkeys(named.run.plan.model.title for named in self.runs))
        return f"What {' and '.join(names[:2])} {'look' if len(names) > 1 else 'looks'} at"

    @property
    def has_steps(self) -> bool:
        """Whether the W&B runs were logged at several steps."""
        told = ((own.run.plan.model, remembered(own.run.files).get("step")) for own in self.runs)
        return len({links.step_of(model, step) for model, step in told}) > 1

    def wandb_runs(self) -> list[str]:
        """Return the ids of the W&B runs that the runs were written as.

        Raises:
            RunError: if a run has none.
        """
        if self.wandb_run is not None:
            return [self.wandb_run]
        return [_wandb_run(named) for named in self.runs]


def _wandb_run(named: Named) -> str:
    ids = wandb_ids(named.run.files)
    if len(ids) != 1:
        raise RunError(
            f"the run {str(named.run.path)!r} has no W&B run that a report could show; write it "
            "with exporter render --writer wandb, or name the W&B run that it continued "
            "with --wandb-run"
        )
    return ids[0]
