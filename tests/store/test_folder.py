from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from exporter.errors import RunError
from exporter.records import Plan
from exporter.store import check, create_run, open_run, reopen_run
from exporter.summaries import channel_table
from tests.older import make_older


def files(run: Path) -> dict[str, bytes]:
    return {
        file.relative_to(run).as_posix(): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file() and not file.name.startswith("run.json")
    }


def finish(sampling: ModuleType, run: Path, plan: Plan) -> None:
    with create_run(run, plan, resume=True) as folder:
        folder.write_kernels(sampling.sample_kernels())
        sampling.write_shards(folder, sampling.SAMPLE_IMAGES, folder.missing())
        sampling.finish_run(folder, 1.5)


def test_a_finished_run_is_whole(sample_run: Path) -> None:
    assert check(sample_run) == ()
    totals = open_run(sample_run).totals
    assert totals is not None
    assert (totals.images, totals.read) == (20, 19)
    assert totals.skipped == (("broken/truncated.jpg", "the JPEG data end after 512 bytes"),)
    assert totals.flagged == {"gradcam layer4 zero": 1}
    assert len(totals.checksums) == 35


def test_totals_count_what_rows_say(sample_run: Path) -> None:
    rows = list(open_run(sample_run).index)
    totals = open_run(sample_run).totals
    assert totals is not None
    assert totals.labelled == sum(row.correct is not None for row in rows)
    assert totals.correct == sum(row.correct is True for row in rows)


def test_nothing_temporary_is_left(sample_run: Path) -> None:
    assert [path.name for path in sample_run.rglob(".*")] == []


@pytest.mark.slow
def test_two_runs_are_the_same_bytes(
    sample_run: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    assert files(make_run(tmp_path / "again")) == files(sample_run)


@pytest.mark.slow
def test_a_partial_run_is_resumed_to_the_same(
    sample_run: Path, make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", shards=1)
    later = replace(sampling.sample_plan(), created="2027-01-01T00:00:00+00:00", command="again")
    with create_run(run, later, resume=True) as folder:
        assert folder.missing() == [1, 2]
        assert folder.plan.created == "2026-01-01T00:00:00+00:00"
    finish(sampling, run, later)
    assert files(run) == files(sample_run)


def test_resume_of_nothing_begins(sampling: ModuleType, tmp_path: Path) -> None:
    with create_run(tmp_path / "a" / "run", sampling.sample_plan(), resume=True) as folder:
        assert folder.missing() == [0, 1, 2]


# ------------------------------------------------------------ refusals


@pytest.mark.slow
def test_a_run_is_not_written_over_unasked(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    before = files(run)
    with pytest.raises(RunError, match=r"already holds a run; give --resume .* or --overwrite"):
        create_run(run, sampling.sample_plan())
    assert files(run) == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_is_no_run_is_left_alone(
    sampling: ModuleType, tmp_path: Path, flags: dict[str, bool]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and is not a run"):
        create_run(tmp_path, sampling.sample_plan(), **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_overwrite_removes_only_the_run(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run")
    (run / "html").mkdir()
    (run / "html" / "index.html").write_text("old")
    (run / "notes.txt").write_text("mine")
    with create_run(run, sampling.sample_plan(), overwrite=True) as folder:
        assert folder.missing() == [0, 1, 2]
    assert (run / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in run.iterdir()) == [
        "checksums",
        "notes.txt",
        "plan.json",
        "shards",
        "summaries",
    ]


@pytest.mark.slow
def test_a_report_that_was_moved_aside_is_seen_and_removed(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    """A kill after a writer's two renames leaves the former report under a hidden name."""
    run = make_run(tmp_path / "run")
    (run / "html").mkdir()
    (run / "html/index.html").touch()
    (run / ".html.old").mkdir()
    assert any(".html.old" in problem for problem in check(run))
    create_run(run, sampling.sample_plan(), overwrite=True).close()
    assert not (run / ".html.old").exists()


@pytest.mark.slow
@pytest.mark.parametrize("shards", [0, 1, None])
def test_a_plan_that_is_gone_is_written_again_by_going_on(
    sample_run: Path,
    make_run: Callable[..., Path],
    sampling: ModuleType,
    tmp_path: Path,
    shards: int | None,
) -> None:
    """What the run was begun with is noted beside the plan's checksum: no shard is lost."""
    run, plan = make_run(tmp_path / "run", shards=shards), sampling.sample_plan()
    (run / "plan.json").unlink()
    before = files(run)
    for ask in (open_run, check, lambda path: reopen_run(path, shared=False)):
        with pytest.raises(RunError, match=r"lacks plan\.json, .*; go on with --resume$"):
            ask(run)
    for flags in ({}, {"overwrite": True}):
        with pytest.raises(RunError, match=r"lacks plan\.json; give --resume and"):
            create_run(run, plan, **flags)
    with pytest.raises(RunError, match="different settings; give it the same settings or another"):
        create_run(run, changed(plan, "settings"), resume=True)
    assert files(run) == before
    with create_run(run, plan, resume=True) as folder:
        assert folder.missing() == ([] if shards is None else [0, 1, 2][shards:])
        assert folder.complete == (shards is None)
    finish_rest(sampling, run, plan)
    assert check(run) == ()
    assert files(run) == files(sample_run)


def finish_rest(sampling: ModuleType, run: Path, plan: Plan) -> None:
    if not open_run(run).complete:
        finish(sampling, run, plan)


def test_a_file_in_the_way_is_told(sampling: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        create_run(tmp_path / "run", sampling.sample_plan())


def test_both_flags_contradict(sampling: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="contradict"):
        create_run(tmp_path, sampling.sample_plan(), resume=True, overwrite=True)


def changed(plan: Plan, name: str) -> Plan:
    images = plan.images
    return {
        "settings": lambda: replace(plan, settings={**plan.settings, "maps": ["hirescam"]}),
        "model": lambda: replace(plan, model=replace(plan.model, weights="IMAGENET1K_V2")),
        "target": lambda: replace(plan, target="label"),
        "execution": lambda: replace(plan, execution={**plan.execution, "device": "cuda"}),
        "versions": lambda: replace(plan, versions={**plan.versions, "torch": "2.15.0"}),
        "layers": lambda: replace(plan, layers=plan.layers[1:]),
        "methods": lambda: replace(plan, methods=plan.methods[::-1]),
        "explained": lambda: replace(plan, explained=("layer4",)),
        "added": lambda: replace(plan, images=(*images, replace(images[0], id="n", path="n"))),
        "removed": lambda: replace(plan, images=images[2:]),
        "changed": lambda: replace(plan, images=(replace(images[0], key="9"), *images[1:])),
        "order": lambda: replace(plan, images=images[::-1]),
        "label": lambda: replace(plan, images=(replace(images[0], label="x"), *images[1:])),
        "shards": lambda: replace(plan, shards=((0, 20),)),
    }[name]()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("settings", "maps was 'gradcam', 'layercam', 'eigencam' and is now 'hirescam'"),
        ("model", "model's weights was 'none' and is now 'IMAGENET1K_V2'"),
        ("target", "target was 'predicted' and is now 'label'"),
        ("execution", "device was 'cpu' and is now 'cuda'"),
        ("versions", "version of torch was '2.14.1' and is now '2.15.0'"),
        ("layers", "the table of layers has changed"),
        ("methods", "the table of methods has changed"),
        ("explained", "explained was 'layer3', 'layer4' and is now 'layer4'"),
        ("added", "1 image added"),
        ("removed", "2 images removed"),
        ("changed", "1 image changed"),
        ("order", "the images are in another order"),
        ("label", "labels, masks or boxes of the images have changed"),
        ("shards", "the images are cut into different shards"),
    ],
)
def test_resume_refuses_another_plan_and_says_in_what(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path, name: str, says: str
) -> None:
    run = make_run(tmp_path / "run", shards=1)
    before = files(run)
    with pytest.raises(RunError) as caught:
        create_run(run, changed(sampling.sample_plan(), name), resume=True)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(run) == before


def test_moved_images_are_the_same_images(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", shards=1)
    plan = sampling.sample_plan()
    moved = replace(plan, image_set="/elsewhere", settings={**plan.settings, "images": "/x"})
    create_run(run, moved, resume=True).close()


def test_another_spelling_of_the_same_model_and_classes_goes_on(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    """What a model is, its hashes say; --model, --checkpoint and --classes say where it lies."""
    run = make_run(tmp_path / "run", shards=1)
    plan = sampling.sample_plan()
    spelled = {"model": "./m.py:f", "checkpoint": "/b/last.pt", "classes": "c.txt", "batch_size": 2}
    spelled |= {"device": "cpu", "layers": ["layer[34]"], "limit": 20, "shard_size": 8}
    model = replace(plan.model, spec="./m.py:f", checkpoint="last.pt")
    again = replace(plan, model=model, settings={**plan.settings, **spelled})
    create_run(run, again, resume=True).close()


def test_a_setting_under_its_former_name_is_the_same_setting(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", shards=1)
    plan = sampling.sample_plan()
    text = (run / "plan.json").read_text()
    (run / "plan.json").write_text(text.replace('"seed":0', '"seed":0,"quality":true'))
    make_older(run)
    now = replace(plan, settings={**plan.settings, "faithfulness": True})
    create_run(run, now, resume=True).close()
    with pytest.raises(RunError, match="faithfulness was True and is now False"):
        create_run(run, replace(now, settings={**now.settings, "faithfulness": False}), resume=True)


@pytest.mark.slow
def test_one_writer_at_a_time(sampling: ModuleType, tmp_path: Path) -> None:
    plan = sampling.sample_plan()
    with create_run(tmp_path / "run", plan):
        code = "import sys; from exporter.store.lock import *; RunLock(Path(sys.argv[1]))"
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert "another process is writing the run" in other.stderr
        with pytest.raises(RunError, match="another process is writing"):
            create_run(tmp_path / "run", plan, resume=True)
    create_run(tmp_path / "run", plan, resume=True).close()


# ------------------------------------------------------------ shards


def test_rows_of_other_images_are_a_mistake(sampling: ModuleType, tmp_path: Path) -> None:
    plan = sampling.sample_plan()
    rows = sampling.sample_rows(plan, sampling.SAMPLE_IMAGES, 1)
    with create_run(tmp_path / "run", plan) as folder, pytest.raises(ValueError, match="shard 0"):
        folder.write_shard(0, rows, {})


def test_the_shard_commits_its_summary(sampling: ModuleType, tmp_path: Path) -> None:
    plan, images = sampling.sample_plan(), sampling.SAMPLE_IMAGES
    with create_run(tmp_path / "run", plan) as folder:
        channels = channel_table(sampling.sample_batches(plan, images, 0))
        folder.write_shard(0, sampling.sample_rows(plan, images, 0), {"": channels})
        assert folder.missing() == [1, 2]
        with pytest.raises(RunError, match=r"lacks 2 of 3 shards \(1, 2\); go on with --resume"):
            folder.finish(1)


def without_end(content: bytes) -> bytes:
    return content[:-100]


def without_middle(content: bytes) -> bytes:
    return content[:1000] + content[2000:]


def with_empty_footer(content: bytes) -> bytes:
    return content[:-500] + bytes(496) + content[-4:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "cut",
    [
        without_end,
        *(pytest.param(cut, marks=pytest.mark.slow) for cut in (without_middle, with_empty_footer)),
    ],
)
def test_a_cut_shard_is_computed_again(
    sample_run: Path,
    make_run: Callable[..., Path],
    sampling: ModuleType,
    tmp_path: Path,
    cut: Callable[[bytes], bytes],
) -> None:
    run = make_run(tmp_path / "run")
    shard = run / "shards" / "00001.parquet"
    shard.write_bytes(cut(shard.read_bytes()))
    with create_run(run, sampling.sample_plan(), resume=True) as folder:
        assert not folder.complete
        assert folder.missing() == [1]
    finish(sampling, run, sampling.sample_plan())
    assert files(run) == files(sample_run)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"^there is no space left on the disk for .*00000.*; free some and go on"),
        (errno.EDQUOT, r"^there is no space left on the disk for .*00000.*; free some and go on"),
        (errno.EROFS, r"^'.*00000.*' cannot be written: read-only file system$"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_sentence(
    sampling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    plan = sampling.sample_plan()
    with create_run(tmp_path / "run", plan) as folder:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=said):
            folder.write_shard(0, sampling.sample_rows(plan, sampling.SAMPLE_IMAGES, 0), {})
    assert list((tmp_path / "run" / "shards").iterdir()) == []


def test_row_groups_are_small(sample_run: Path) -> None:
    metadata = pq.ParquetFile(sample_run / "shards" / "00000.parquet").metadata
    assert metadata.row_group(0).num_rows <= 8


@pytest.mark.slow
def test_a_shard_that_another_worker_wrote_again_keeps_that_workers_checksum(
    sampling: ModuleType, tmp_path: Path
) -> None:
    plan, run = sampling.sample_plan(), tmp_path / "run"
    with create_run(run, plan) as folder:
        folder.write_kernels(sampling.sample_kernels())
        folder.share()
        sampling.write_shards(folder, sampling.SAMPLE_IMAGES, folder.missing())
        with reopen_run(run, shared=True) as other:
            rows = sampling.sample_rows(plan, sampling.SAMPLE_IMAGES, 0)
            rows = [replace(row, loss=0.25) for row in rows]
            other.write_shard(0, rows, {"": next(other.summaries())})
        folder.claim()
        sampling.finish_run(folder, 1.5)
    assert check(run) == ()
