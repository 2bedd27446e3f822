"""Going on with a run: a stored row is computed again, and has to come out as it was.

Another ``forward`` with the same weights has the same plan; only its numbers tell.
"""

from __future__ import annotations

import numpy as np

from exporter.engines.job import Job
from exporter.errors import RunError
from exporter.explain import launch, load, rows
from exporter.records import Row
from exporter.store import RunFolder, open_run

_SCORE = 1e-3
"""How far a prediction's score may be off, in shares of it where it is above 1."""
_MAP = 1e-2
"""How far a map may be off on average, in shares of its largest value: other processors and other
batch sizes round differently, and a rounding can move a ReLU."""


def refuse_other_model(job: Job, folder: RunFolder) -> None:
    """Compute a row that a run folder holds again, and raise where it comes out different.

    The whole batch is computed that it was in. Of a model that does not give the same twice
    nothing can be said, and of a run without shards neither.

    Raises:
        RunError: if the model that is here is not the one that the row was computed with.
    """
    findings, shard = folder.plan.findings, folder.first_stored()
    if shard is None or (findings is not None and not findings.steady):
        return
    start, stop = folder.plan.shards[shard]
    asked = folder.plan.settings.get("batch_size")
    size = asked if isinstance(asked, int) and asked > 0 else job.batch_size
    run = open_run(folder.path)
    for first in range(start, stop, size):
        batch = job.plan.images[first : min(first + size, stop)]
        stored = {row.id: row for row in run.chosen([entry.id for entry in batch])}
        if all(row.error for row in stored.values()):
            continue
        explainer = job.explainer(job.module)
        for row in rows(job, launch(job, explainer, load(job, batch))).rows:
            what = _difference(stored[row.id], row)
            if what:
                raise RunError(
                    f"the run {str(folder.path)!r} has other numbers for {row.path!r} than this "
                    f"model gives (in {what}): the code of the model has changed since the run was "
                    "begun; restore it, or give --overwrite or another --out"
                )
        return


def _difference(stored: Row, again: Row) -> str:
    """Say what of a row came out different, to rounding; ``""`` where nothing did."""
    if stored.error or again.error:
        return ""  # an image that was read once and is gone: not the model's doing
    before = {each.index: each.score for each in stored.predictions}
    after = {each.index: each.score for each in again.predictions}
    # A class may have left the best few by a rounding.
    least = min(after.values(), default=0.0)
    for index, score in before.items():
        if abs(after.get(index, least) - score) > _SCORE * max(1.0, abs(score)):
            return "its predictions"
    maps = {(m.method, m.layer, m.target): m.array() for m in again.maps}
    for known in stored.maps:
        values, other = known.array(), maps.get((known.method, known.layer, known.target))
        where = f"{known.method} at {known.layer or 'the input'}"
        if other is None or other.shape != values.shape:
            return where
        if np.isfinite(values).all() and not (
            np.abs(values - other).mean() <= _MAP * np.abs(values).max()
        ):
            return where
    return ""
