"""A run in a store: its files are those of one on the disk, and what fails there is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

import exporter
from exporter import stores
from exporter.cli import main
from exporter.errors import ConfigError, RunError
from exporter.store import Run, check, create_run, open_run
from exporter.stores import Address, place_of
from exporter.writers import check as check_written
from exporter.writers import write
from exporter.writers.html import WRITER
from tests.small import small
from tests.stores import emptied, s3


def contents(where: str) -> dict[str, bytes]:
    system, root = stores.file_system(where)
    start = len(root.strip("/")) + 1
    return {path.strip("/")[start:]: system.cat_file(path) for path in system.find(root)}


@pytest.fixture(scope="module")
def stored(make_run: Callable[..., Path]) -> Run:
    make_run(emptied("runs/whole"))
    run = open_run("memory://runs/whole")
    write(run, "html", WRITER.options())
    return run


@pytest.fixture
def again(stored: Run) -> Iterator[str]:
    """Return the address of a copy of the run."""
    where = emptied("runs/again")
    system = fsspec.filesystem("memory")
    for name, content in contents(str(stored.path)).items():
        system.pipe_file(f"/runs/again/{name}", content)
    yield where
    emptied("runs/again")


@pytest.mark.slow
def test_a_run_in_a_store_has_the_files_of_one_on_the_disk(stored: Run, sample_run: Path) -> None:
    here = {
        file.relative_to(sample_run).as_posix(): file.read_bytes()
        for file in sample_run.rglob("*")
        if file.is_file()
    }
    there = contents(str(stored.path))
    written = {name for name in there if name.startswith("html/") or "writers-html" in name}
    assert "html/index.html" in written
    assert there.keys() - written == here.keys()
    timed = ("run.json", "checksums/run.json")  # they say when
    assert [name for name in here if here[name] != there[name] and not name.startswith(timed)] == []
    assert str(stored.path) == "memory://runs/whole"
    assert stored.name == "whole"
    on_disk = open_run(sample_run)
    assert list(stored.rows()) == list(on_disk.rows())
    assert stored.channels() == on_disk.channels()


def test_a_run_in_a_store_is_checked(
    stored: Run, again: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(str(stored.path)) == ()
    assert list(check_written(stored)) == []
    system = fsspec.filesystem("memory")
    shard = system.cat_file("/runs/again/shards/00001.parquet")
    system.pipe_file("/runs/again/shards/00001.parquet", shard[:-1] + b"?")
    system.rm_file("/runs/again/html/index.html")
    assert main(["check", again]) == 2
    told = " ".join(capsys.readouterr().out.split())
    assert "shards/00001.parquet has changed since it was written" in told
    assert "html/index.html is missing" in told


def test_a_run_in_a_store_is_gone_on_with(again: str, sampling: ModuleType) -> None:
    system, before = fsspec.filesystem("memory"), contents(again)
    system.rm_file("/runs/again/run.json")
    system.rm_file("/runs/again/shards/00001.parquet")
    shard = before["shards/00002.parquet"]
    system.pipe_file("/runs/again/shards/00002.parquet", shard[:-9])
    kept = system.modified("/runs/again/shards/00000.parquet")
    with create_run(again, sampling.sample_plan(), resume=True) as folder:
        assert folder.missing() == [1, 2]
        sampling.write_shards(folder, sampling.SAMPLE_IMAGES, [1, 2])
        sampling.finish_run(folder, 1.0)
    after = contents(again)
    assert system.modified("/runs/again/shards/00000.parquet") == kept
    parts = [name for name in before if name.startswith(("shards/", "summaries/", "set/"))]
    assert len(parts) > 6
    assert [name for name in parts if before[name] != after[name]] == []
    assert check(again) == ()


def test_a_run_that_is_there_is_not_written_over_unasked(again: str, sampling: ModuleType) -> None:
    plan = sampling.sample_plan()
    with pytest.raises(RunError, match="'memory://runs/again' already holds a run"):
        create_run(again, plan)
    fsspec.filesystem("memory").pipe_file("/runs/again/notes.txt", b"mine")
    create_run(again, plan, overwrite=True).close()
    there = contents(again)
    assert there.keys() == {"notes.txt", "plan.json", "checksums/plan.json.sha256"}
    with pytest.raises(RunError, match="'memory://runs' is not empty and is not a run"):
        create_run("memory://runs", plan)


def test_a_writer_that_writes_less_leaves_nothing_of_the_one_before(again: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/runs/again/html/old/page.html", b"")
    run = open_run(again)
    write(run, "html", WRITER.options())
    assert "html/old/page.html" not in contents(again)
    assert list(check_written(run)) == []


def test_what_a_store_does_not_answer_is_asked_again(
    sampling: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    write_file, asked = type(system).pipe_file, list[str]()

    def refusing(self: Any, path: str, value: bytes, **options: Any) -> None:
        asked.append(path)
        if asked.count(path) < 3:
            raise ConnectionError("the store is busy")
        write_file(self, path, value, **options)

    monkeypatch.setattr(stores, "WAITS", (0, 0))
    monkeypatch.setattr(type(system), "pipe_file", refusing)
    plan = sampling.sample_plan()
    create_run(emptied("runs/busy"), plan).close()
    assert asked.count("/runs/busy/plan.json") == 3
    assert open_run("memory://runs/busy").plan == plan
    monkeypatch.setattr(stores, "WAITS", (0,))
    said = r"'memory://runs/full/.*' cannot be written: ConnectionError: the store is busy"
    with pytest.raises(RunError, match=said):
        create_run(emptied("runs/full"), plan)


@pytest.mark.slow
def test_workers_and_who_finishes_meet_in_the_store(tmp_path: Path) -> None:
    from exporter.demo import photographs

    out = emptied("runs/parts")
    settings: dict[str, Any] = {
        "maps": ["gradcam"], "layers": ["2"], "shard_size": 2, "limit": 5, "writers": (),
        "preprocessing": {"size": 32},
    }  # fmt: skip
    exporter.plan("tests.small:small", photographs(), out=out, **settings)
    with pytest.raises(RunError, match=r"lacks 3 of 3 shards .* exporter work memory://runs/parts"):
        exporter.finish(out)
    exporter.work(out, part=(1, 2))
    assert open_run(out).shards == (1,)
    exporter.work(out, part=(0, 2))
    run = exporter.finish(out)
    assert run.complete
    assert "recipe.json" not in contents(out)
    whole = exporter.export(small(), photographs(), out=tmp_path / "run", **settings)
    assert list(run.rows()) == list(whole.rows())


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nosuch://bucket/run", "'nosuch://bucket/run' cannot be opened: ValueError: Protocol not"),
        ("s3://key:secret@bucket/run", "'s3://bucket/run' has a password or a key in it"),
        ("simplecache::s3://bucket/run", "chains several addresses"),
    ],
)
def test_an_address_that_cannot_be_a_run(
    where: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", where]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert "secret" not in told


def test_what_is_done_on_the_disk_alone_says_so(stored: Run, again: str) -> None:
    with pytest.raises(ConfigError, match="a comparison is written to the disk"):
        exporter.compare(stored, again, out="memory://runs/compared")
    with pytest.raises(RunError, match="'memory://runs/again/wandb' is in a store; copy the run"):
        open_run(again).files.place("wandb")
    assert not Path("memory:").exists()


def test_a_path_of_a_file_address_is_on_the_disk(tmp_path: Path) -> None:
    assert place_of(f"file://{tmp_path}/run") == tmp_path / "run"
    assert place_of("s3://bucket/run") == Address("s3://bucket/run")
    assert str(Address("s3://bucket/run").parent / "b") == "s3://bucket/b"
    with pytest.raises(ConfigError, match="was an address and is a path; give it as text"):
        open_run(Path("s3://bucket/run"))


@pytest.mark.slow
def test_s3_holds_a_run_and_a_map_is_read_without_its_shard(
    make_run: Callable[..., Path],
    stored: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with s3(tmp_path) as system:
        out = "s3://bucket/runs/a"
        make_run(out, shard_size=20)
        assert check(out) == ()
        sheet = f"runs/a/kernels/{open_run(out).kernels()[0].sheet}"
        told = system.call_s3("head_object", Bucket="bucket", Key=sheet)
        assert told["ContentType"] == "image/png"
        size = system.info("bucket/runs/a/shards/00000.parquet")["size"]
        fetched, fetch = list[int](), stores.read_range

        def counting(where: str, start: int, count: int) -> bytes:
            fetched.append(count if "shards/" in where else 0)
            return fetch(where, start, count)

        monkeypatch.setattr(stores, "NEAR", 1 << 12)
        monkeypatch.setattr(stores, "read_range", counting)
        id = stored.plan.images[3].id
        there = open_run(out).map(id, "gradcam", "layer3")
        assert (there == stored.map(id, "gradcam", "layer3")).all()
        assert 0 < sum(fetched) < size / 2
        for name, content in contents(out).items():
            assert b"very-secret" not in content, name
            assert b"127.0.0.1" not in content, name
