"""Pictures that excite channels: stored, read back, checked, and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from exporter.errors import RunError
from exporter.render import decode_image
from exporter.store import check, create_run, open_run


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_run, tmp_path / "run"))


def test_they_are_read_as_they_were_written(run: Path, sampling: ModuleType) -> None:
    # A value that is not a number equals nothing, so what is compared is its text.
    assert repr(list(open_run(run).maximised())) == repr(sampling.sample_maximised())
    of_layer = list(open_run(run).maximised("layer4"))
    assert [one.channel for one in of_layer] == [17, 2]
    picture = decode_image(of_layer[0].picture)
    assert picture.shape == (of_layer[0].height, of_layer[0].width, 3)


def test_pandas_and_anybody_read_them(run: Path) -> None:
    frame = pq.read_table(run / "maximised").to_pandas()
    assert frame["name"].tolist()[3:] == ['a "quoted" <b>class</b> & more', "espresso"]
    assert frame["picture"][0]["bytes"].startswith(b"\x89PNG")
    assert np.isnan(frame["after"][2])


def test_a_run_without_them_has_none(run: Path) -> None:
    shutil.rmtree(run / "maximised")
    assert list(open_run(run).maximised()) == []


def test_check_finds_one_that_is_missing_or_changed(run: Path) -> None:
    assert check(run) == ()
    file = run / "maximised/00000.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")
    assert any(
        "maximised/00000.parquet has changed since it was written" in one for one in check(run)
    )
    with pytest.raises(RunError, match=r"damaged \(.*\); go on with --resume"):
        list(open_run(run).maximised())
    file.unlink()
    assert any("maximised/00000.parquet is missing" in one for one in check(run))


def test_a_run_that_lacks_one_is_not_complete_when_it_is_gone_on_with(
    run: Path, sampling: ModuleType
) -> None:
    (run / "maximised/00000.parquet").unlink()
    (run / "maximised/.00000.tmp").write_bytes(b"half")
    with create_run(run, sampling.sample_plan(), resume=True) as folder:
        assert not folder.complete
        assert folder.missing() == []
        assert folder.missing_maximised(2) == [0, 1]
        sampling.finish_run(folder, 1)
    assert check(run) == ()


def test_overwriting_removes_them(run: Path, sampling: ModuleType) -> None:
    create_run(run, sampling.sample_plan(), overwrite=True).close()
    assert not (run / "maximised").exists()
