from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import RunError
from exporter.records import Row
from exporter.store import check, open_run, refuse_damaged, reopen_run
from exporter.store.schema import parquet_options
from exporter.store.tables import rows_to_table, table_records
from exporter.watch import Watch


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_run, tmp_path / "run"))


def rewrite(run: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the first shard, and its checksum with it, so that only the change is found."""
    file = run / "shards" / "00000.parquet"
    pq.write_table(change(pq.ParquetFile(file).read()), file, **parquet_options())
    totals = json.loads((run / "run.json").read_text())
    totals["checksums"]["shards/00000.parquet"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (run / "run.json").write_text(json.dumps(totals))
    (run / "checksums/run.json.sha256").unlink()


def write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def first_map(table: pa.Table) -> pa.Table:
    rows = list(table_records(table, Row))
    short = replace(rows[0].maps[0], values=rows[0].maps[0].values[:-2])
    return rows_to_table([replace(rows[0], maps=(short, *rows[0].maps[1:])), *rows[1:]])


def picture(table: pa.Table) -> pa.Table:
    rows = list(table_records(table, Row))
    return rows_to_table([replace(rows[0], image=b"GIF89a"), *rows[1:]])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard": (lambda r: (r / "shards/00001.parquet").unlink(), "shards/00001.parquet is missing"),
    "summary": (
        lambda r: (r / "summaries/00001.parquet").unlink(),
        "summaries/00001.parquet is missing",
    ),
    "channels": (lambda r: (r / "channels.parquet").unlink(), "channels.parquet is missing"),
    "totals": (lambda r: (r / "run.json").unlink(), "not complete: 3 of 3 shards are done"),
    "totals text": (lambda r: write(r / "run.json", "{"), "run.json' is damaged"),
    "flipped shard": (
        lambda r: flip(r / "shards/00002.parquet"),
        "shards/00002.parquet has changed since it was written",
    ),
    "flipped summary": (
        lambda r: flip(r / "summaries/00002.parquet"),
        "summaries/00002.parquet has changed since it was written",
    ),
    "cut": (
        lambda r: write(
            r / "shards/00000.parquet", (r / "shards/00000.parquet").read_bytes()[:900]
        ),
        "shards/00000.parquet has changed since it was written",
    ),
    "rows": (lambda r: rewrite(r, lambda t: t.slice(1)), "has 7 rows and the plan has 8"),
    "order": (
        lambda r: rewrite(r, lambda t: t.take(list(range(7, -1, -1)))),
        "not the images of the plan",
    ),
    "columns": (
        lambda r: rewrite(r, lambda t: t.drop_columns("label")),
        "does not have the columns",
    ),
    "map": (lambda r: rewrite(r, first_map), "does not have height × width values"),
    "picture": (lambda r: rewrite(r, picture), "is not a JPEG"),
    "kernels": (lambda r: shutil.rmtree(r / "kernels"), "kernels/kernels.json is missing"),
    "sheet": (
        lambda r: (r / "kernels/000-conv1.png").unlink(),
        "kernels/000-conv1.png of 'conv1' is missing",
    ),
    "kernel list": (lambda r: write(r / "kernels/kernels.json", "[1]"), "kernels.json' is damaged"),
    "half report": (lambda r: write(r / ".html.tmp/index.html", ""), ".html.tmp was left by"),
    "half shard": (lambda r: write(r / "shards/.00003.tmp", ""), "shards/.00003.tmp was left by"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(run: Path, damage: str) -> None:
    assert check(run) == ()
    plant, says = DAMAGE[damage]
    plant(run)
    problems = check(run)
    assert any(says in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_partial_run_is_not_whole(
    make_run: Callable[..., Path], tmp_path: Path, sampling: ModuleType
) -> None:
    problems = check(make_run(tmp_path / "partial", shards=1))
    assert problems == ("the run is not complete: 1 of 3 shards are done; go on with --resume",)


@pytest.mark.slow
def test_shards_that_are_not_whole_are_not_counted(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "partial", shards=3)
    (run / "run.json").unlink(missing_ok=True)
    flip(run / "summaries/00001-set.parquet")
    assert check(run) == (
        "the run is not complete: 2 of 3 shards are done; go on with --resume",
        "shards/00001.parquet, or what goes with it, has changed since it was written; "
        "go on with --resume",
    )


class Told(Watch):
    """Keeps how far what is."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int]] = {}

    def begin(self, stage: str, total: int | None = None) -> None:
        """Note a stage."""
        self.stages[stage] = [0, total or 0]

    def advance(self, steps: int = 1) -> None:
        """Note a step of the last stage."""
        self.stages[next(reversed(self.stages))][0] += steps


def of_finished(run: Path, watch: Watch) -> int:
    """Do what ``run --resume`` and ``finish`` do first; return how many files it is."""
    with reopen_run(run, shared=False, watch=watch) as folder:
        assert folder.complete
    return 35


def of_partial(run: Path, watch: Watch) -> int:
    """Do what every command does with a run that is not finished."""
    (run / "run.json").unlink()
    with reopen_run(run, shared=True, watch=watch) as folder:
        assert folder.missing() == []
        assert folder.missing() == []
    return 3


def of_check(run: Path, watch: Watch) -> int:
    """Do what ``check`` does."""
    assert check(run, watch) == ()
    return 35


def of_render(run: Path, watch: Watch) -> int:
    """Do what ``render`` does first."""
    refuse_damaged(open_run(run), watch)
    return 35


@pytest.mark.parametrize("do", [of_finished, of_partial, of_check, of_render])
def test_it_is_said_that_what_is_there_is_verified(
    run: Path, do: Callable[[Path, Watch], int]
) -> None:
    watch = Told()
    count = do(run, watch)
    assert watch.stages == {"verifying what is there": [count, count]}


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        check(tmp_path)
