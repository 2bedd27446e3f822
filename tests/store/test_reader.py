from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from exporter.errors import RunError
from exporter.records import ImageEntry, Row, StoredMap
from exporter.store import LIGHT_COLUMNS, create_run, open_run


@pytest.fixture
def partial(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    return make_run(tmp_path / "partial", shards=2)


def test_rows_are_the_images_in_plan_order(sample_run: Path, sampling: ModuleType) -> None:
    run = open_run(sample_run)
    written = [
        row
        for index in range(3)
        for row in sampling.sample_rows(run.plan, sampling.SAMPLE_IMAGES, index)
    ]
    rows = list(run.rows())
    assert [row.path for row in rows] == [image.path for image in sampling.SAMPLE_IMAGES]
    assert [_rounded(row) for row in rows] == [_rounded(row) for row in written]


def _rounded(row: Row) -> Row:
    """Give the row the float32 numbers that were stored."""
    maps = tuple(
        replace(m, lo=float(np.float32(m.lo)), hi=float(np.float32(m.hi))) for m in row.maps
    )
    return replace(row, maps=maps)


@pytest.mark.slow
def test_every_map_of_every_image_is_found(sample_run: Path) -> None:
    run = open_run(sample_run)
    for row in run.rows():
        assert run.row(row.id) == row
        if row.error is None:
            assert run.image(row.id) == row.image
        for stored in row.maps[::5]:
            found = run.map(row.id, stored.method, stored.layer, stored.target)
            np.testing.assert_array_equal(found, stored.array())
            assert found.dtype == np.float32


def test_the_index_has_all_but_pictures_and_maps(sample_run: Path) -> None:
    run = open_run(sample_run)
    light = [replace(row, image=None, maps=(), activations=()) for row in run.rows()]
    assert list(run.index) == light


def test_only_the_columns_asked_for_are_read(sample_run: Path) -> None:
    row = next(open_run(sample_run).rows(["maps", "label"]))
    assert row.maps and row.label
    assert row.image is None and row.predictions == ()


def test_a_table_has_leaves_too(sample_run: Path) -> None:
    run = open_run(sample_run)
    assert run.table().column_names == list(LIGHT_COLUMNS)
    flags = run.table(["id", "maps.list.element.flags"]).to_pylist()
    assert sum(one["flags"] == "zero" for row in flags for one in row["maps"] or ()) == 1


def test_channels_and_kernels(sample_run: Path) -> None:
    run = open_run(sample_run)
    channels = run.channels("layer4")
    assert [row.channel for row in channels] == list(range(20))
    assert [row.channel for row in channels if row.dead] == [3]
    assert len(run.channels()) == 32
    first, later, _ = run.kernels()
    assert (first.shape, later.shape) == ((64, 3, 7, 7), (128, 64, 3, 3))
    assert (later.shown, later.total) == (16, 128)
    assert run.kernel_sheet(first).startswith(b"\x89PNG")
    values = run.kernel_values(later)
    assert (values.shape, values.min()) == (later.shape, np.float32(later.lo))


def test_a_partial_run_is_read_and_says_so(partial: Path, sample_run: Path) -> None:
    run = open_run(partial)
    assert not run.complete
    assert run.totals is None
    assert run.shards == (0, 1)
    assert run.channels() == ()
    assert len(list(run.index)) == 16
    with pytest.raises(RunError, match="is in shard 2, which is not computed yet"):
        run.row(run.plan.images[-1].id)
    assert open_run(sample_run).complete


# ------------------------------------------------------------ what is asked for wrongly


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("nobody", "gradcam", "layer4"), "has no image 'nobody'"),
        (("", "gradcamm", "layer4"), "no maps of 'gradcamm'; did you mean 'gradcam'"),
        (("", "gradcam", "layer44"), "no map at 'layer44'; did you mean 'layer4'"),
        (("", "gradcam", "layer4", "class:99"), "explains 'class:99'"),
    ],
)
def test_what_is_not_there_is_named(sample_run: Path, asked: tuple[str, ...], says: str) -> None:
    run = open_run(sample_run)
    with pytest.raises(RunError) as caught:
        run.map(asked[0] or run.plan.images[0].id, *asked[1:])
    assert says in str(caught.value)


def test_an_unread_image_says_why(sample_run: Path) -> None:
    run = open_run(sample_run)
    bad = next(row.id for row in run.index if row.error)
    with pytest.raises(RunError, match="the JPEG data end"):
        run.map(bad, "gradcam", "layer4")
    with pytest.raises(RunError, match="the JPEG data end"):
        run.image(bad)


def test_unknown_columns_and_layers(sample_run: Path) -> None:
    run = open_run(sample_run)
    with pytest.raises(RunError, match="no column 'lable'; did you mean 'label'"):
        list(run.rows(["lable"]))
    with pytest.raises(RunError, match="no column 'mapps'"):
        run.table(["mapps.list.element.flags"])
    with pytest.raises(RunError, match="at 'layer9'"):
        run.channels("layer9")


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in .*exporter run"):
        open_run(tmp_path / "nothing")


def test_a_damaged_shard_is_named(sample_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sample_run, run)
    (run / "shards" / "00001.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(RunError, match=r"00001\.parquet' is damaged \(.*\); go on with --resume"):
        list(open_run(run).rows())


# ------------------------------------------------------------ other readers


def test_pandas_reads_a_run_as_it_is(sample_run: Path) -> None:
    frame = pd.read_parquet(sample_run / "shards")
    assert len(frame) == 20
    row = frame[frame["path"] == "chelsea.jpg"].iloc[0]
    first = row["maps"][0]
    lo, hi, side = first["lo"], first["hi"], (first["height"], first["width"])
    levels = np.frombuffer(first["values"], "<u2").reshape(side)
    np.testing.assert_allclose(
        lo + levels * ((hi - lo) / 65535),
        open_run(sample_run).map(row["id"], first["method"], first["layer"]),
        rtol=1e-6,
        atol=1e-7,
    )
    assert row["image"]["bytes"][:2] == b"\xff\xd8"
    assert frame["error"].notna().sum() == 1


def test_pyarrow_reads_a_run_as_it_is(sample_run: Path) -> None:
    table = pq.read_table(sample_run / "shards", columns=["id", "crop", "maps"])
    assert len(table) == 20
    assert table.column("crop")[0].as_py() == list(next(open_run(sample_run).index).crop or ())


def test_reading_needs_no_torch(sample_run: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from exporter.store import open_run, check\nimport exporter.summaries\n"
        "run = open_run(sys.argv[1]); print(len(list(run.rows())), check(run.path))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(sample_run)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert told.stdout.strip() == "20 ()"


@pytest.mark.slow
def test_one_map_of_ten_thousand_images_is_read_without_the_others(
    sampling: ModuleType, tmp_path: Path
) -> None:
    images = tuple(
        ImageEntry(f"{n:032x}", f"{n:032x}", f"class {n % 100}/{n}.jpg", f"class {n % 100}")
        for n in range(10_000)
    )
    shards = tuple((start, min(start + 256, 10_000)) for start in range(0, 10_000, 256))
    plan = replace(sampling.sample_plan(), images=images, shards=shards, recorded=())
    maps = tuple(
        StoredMap(f"method{m}", f"layer{n}", "class:1", side, side, -1, 1, bytes(2 * side * side))
        for m in range(5)
        for n, side in enumerate((28, 14, 14, 7))
    )
    with create_run(tmp_path / "run", plan) as folder:
        for index, (start, stop) in enumerate(shards):
            rows = [
                Row(image.id, image.key, image.path, image=bytes(2000), maps=maps)
                for image in images[start:stop]
            ]
            folder.write_shard(index, rows, {})

    def seconds(image: ImageEntry | None) -> float:
        begin = time.process_time()
        run = open_run(folder.path)
        if image is None:
            assert len(list(run.index)) == 10_000
        else:
            assert run.map(image.id, "method3", "layer2").shape == (14, 14)
        return time.process_time() - begin

    # 7 ms on the wall where it was written; a ratio, as a busy machine may be slower by half.
    one = np.median([seconds(images[n]) for n in range(77, 10_000, 999)])
    assert one < seconds(None) / 10, one / seconds(None)


def test_a_run_says_what_it_is_in_one_line(sample_run: Path, tmp_path: Path) -> None:
    run = open_run(sample_run)
    assert repr(run) == (
        f"<Run {str(sample_run)!r}: resnet18, 20 images, layers layer3, layer4, "
        "methods gradcam, layercam, eigencam, complete>"
    )
    shutil.copytree(sample_run, tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    (tmp_path / "run/shards/00001.parquet").unlink()
    assert repr(open_run(tmp_path / "run")).endswith(", 2 of 3 shards>")
