from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from exporter.config import build_writer_config
from exporter.render import MontageLayout, decode_image, heatmap, layout_of
from exporter.store import Run, open_run
from exporter.writers.montages import forget, montage_jpeg, montage_jpegs, overlay_jpeg
from exporter.writers.options import TensorBoardOptions
from exporter.writers.tensorboard.cards import cards
from exporter.writers.writing import writer_options


@pytest.fixture
def run(sample_run: Path, tmp_path: Path) -> Run:
    return open_run(shutil.copytree(sample_run, tmp_path / "run"))


def test_every_writer_gets_the_same_bytes_and_they_are_drawn_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    whole = MontageLayout.draw

    def counted(self: MontageLayout, row: object, **look: bool) -> np.ndarray:
        drawn.append(row.id)  # type: ignore[attr-defined]
        return whole(self, row, **look)  # type: ignore[arg-type]

    monkeypatch.setattr(MontageLayout, "draw", counted)
    rows = list(run.rows())
    first = {row.id: picture for row, picture in montage_jpegs(run, rows, threads=3)}
    assert list(first) == [row.id for row in rows]
    again = open_run(run.path)
    assert {row.id: montage_jpeg(again, row) for row in rows} == first
    assert sorted(drawn) == sorted(first)
    forget(run)
    assert montage_jpeg(run, rows[0]) == first[rows[0].id]
    assert len(drawn) == len(first) + 1
    forget(run)


def test_threads_do_not_mix_images_up(run: Run) -> None:
    layout = layout_of(run.plan)
    for row, picture in montage_jpegs(run, run.rows(), threads=4):
        assert picture == layout.jpeg(row), row.path
    forget(run)


def test_nothing_is_left_in_the_run_folder(run: Run) -> None:
    before = sorted(run.path.rglob("*"))
    row = next(run.rows())
    assert decode_image(montage_jpeg(run, row)).shape[2] == 3
    assert sorted(run.path.rglob("*")) == before
    forget(run)


def test_a_row_read_without_its_maps_does_not_stand_for_the_whole_one(run: Run) -> None:
    light = next(run.index)
    assert montage_jpeg(run, light) != montage_jpeg(run, run.row(light.id))
    forget(run)


def test_uniform_opacity_is_a_choice_of_the_writers(run: Run) -> None:
    row = run.row(next(r.id for r in run.index if r.error is None))
    (view,) = [decode_image(row.image or b"")]
    stored = row.maps[0]
    fading = decode_image(overlay_jpeg(run, row, stored, lambda: view)).astype(int)
    even = decode_image(overlay_jpeg(run, row, stored, lambda: view, uniform=True)).astype(int)
    heat = heatmap(stored.array(), (view.shape[1], view.shape[0]), rectify=True).astype(int)
    half = (view.astype(int) + heat) / 2
    assert np.abs(even - half).mean() < 6 < np.abs(fading - half).mean()  # both are JPEGs
    assert montage_jpeg(run, row) != montage_jpeg(run, row, uniform=True)
    forget(run)
    config = build_writer_config({"uniform_opacity": True})
    options = writer_options(run, config)
    assert options["tensorboard"].uniform_opacity
    assert options["wandb"].uniform_opacity
    cards_of = [
        dict(cards(run, row, o, {})) for o in (options["tensorboard"], TensorBoardOptions())
    ]
    assert cards_of[0]["gradcam"] != cards_of[1]["gradcam"]
    forget(run)
