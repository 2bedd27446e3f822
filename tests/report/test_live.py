"""The map of any class, painted in a browser, is what `compute_maps` gives for it."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import exporter
from exporter.demo import photographs
from exporter.models import resolve
from exporter.records import HeadRecord
from exporter.store import Run, open_run
from exporter.writers.html.live import (
    _compact,
    _pack_head,
    _pack_image,
    _pack_maps,
    live_scripts,
    most_cells,
)
from tests.small import small

MODELS = (
    "exporter.models.demo:efficientnet_lite0",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
)
PAINT = """async ([id, classes]) => {
  const position = exporter.index.ids.indexOf(id), answers = [];
  for (const index of classes) {
    const { mean, bias, map } = await exporter.live.paint(position, [index]);
    answers.push({ mean, bias, map: Array.from(map.values()), size: [map.height, map.width] });
  }
  return answers;
}"""
PHOTOGRAPHS = ("astronaut.jpg", "chelsea.jpg")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("spec", MODELS)
def test_twenty_classes_are_painted_as_they_are_computed(
    spec: str, tmp_path: Path, page: Any, writing: Callable[..., Path]
) -> None:
    weights = "DEFAULT" if "demo" in spec else "none"
    module = resolve(spec, weights=weights, seed=3).module
    run = exporter.export(
        spec,
        [photographs() / name for name in PHOTOGRAPHS],
        out=tmp_path / "run",
        weights=weights,
        seed=3,
        maps=["gradcam"],
        writers=(),
    )
    folder = writing(run.path)
    page.goto((folder / "images.html").as_uri())
    classes = [int(k) for k in np.random.default_rng(0).choice(1000, 20, replace=False)]
    inputs = _inputs(run)
    with torch.no_grad():
        logits = module.eval()(inputs).numpy()
    maps = exporter.compute_maps(
        module,
        inputs,
        maps=["cam"],
        layers=[run.plan.head.layer],
        targets=[classes] * len(inputs),
    )
    computed = next(iter(maps.values())).numpy()
    spread = np.ptp(computed, (2, 3), keepdims=True)
    ids = [row.id for row in run.rows(["id"])]
    painted = np.empty_like(computed)
    said = np.empty((len(ids), 20))
    for at, id in enumerate(ids):
        for number, answer in enumerate(page.evaluate(PAINT, [id, classes])):
            painted[at, number] = np.reshape(answer["map"], answer["size"])
            said[at, number] = answer["mean"] + answer["bias"]
    assert (np.abs(painted - computed) / spread).max() < 0.02
    np.testing.assert_array_less(np.abs(said - logits[:, classes]), 0.01 * spread[..., 0, 0] + 1e-4)
    sizes = [file.stat().st_size for file in (folder / "live").glob("*.js") if file.stem != "head"]
    assert len(sizes) == 2
    assert max(sizes) <= 60_000
    assert (folder / "live" / "head.js").stat().st_size <= 1_500_000


def _inputs(run: Run) -> torch.Tensor:
    """Return what the model was given, from the original photographs."""
    from exporter.explain import inputs
    from exporter.images import open_images

    steps = run.plan.model.preprocessing
    source = open_images([str(photographs() / name) for name in PHOTOGRAPHS])
    source.settle(steps)
    prepared = [source.load(entry, steps) for entry in source.entries]
    return inputs(prepared, steps, torch.device("cpu"), False)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("live") / "run"
    return exporter.export(
        small(), photographs(), out=out, maps=["gradcam"], limit=3, writers=(), kernels=()
    )


def test_the_layer_is_carried_in_eight_bits_with_the_head(live: Run) -> None:
    model = small()
    head, stages = live.head(), list(live.stages())
    assert live.plan.head == HeadRecord("3")
    assert head is not None
    np.testing.assert_array_equal(head[:, :-1], model[6].weight.detach().numpy())
    np.testing.assert_array_equal(head[:, -1], model[6].bias.detach().numpy())
    assert [stage.id for stage in stages] == [row.id for row in live.rows(["id"])]
    (prepared,) = (row for row in live.rows() if row.id == stages[0].id)
    view = cv2.imdecode(np.frombuffer(prepared.image or b"", np.uint8), cv2.IMREAD_COLOR)
    steps = live.plan.model.preprocessing
    inputs = (view[..., ::-1] / 255 - steps.mean) / steps.std
    with torch.no_grad():
        values = model[:4](torch.tensor(inputs).permute(2, 0, 1)[None].float())[0].numpy()
    stored = stages[0].activation.array()
    assert stored.shape == values.shape
    # The view was compressed as a JPEG, so that the mean alone is compared.
    np.testing.assert_allclose(stored.mean((1, 2)), values.mean((1, 2)), rtol=0.02, atol=2e-3)


@pytest.mark.slow
def test_a_report_leaves_it_out_where_it_is_told_to(
    live: Run, writing: Callable[..., Path]
) -> None:
    folder = writing(live.path, live=False)
    assert not (folder / "live").exists()
    assert "Any class" not in (folder / "images.html").read_text("utf-8")
    assert "drive it" not in next((folder / "classes").glob("*.html")).read_text("utf-8")
    folder = writing(live.path)
    assert len(list((folder / "live").glob("*.js"))) == 4
    assert "Any class" in (folder / "images.html").read_text("utf-8")


def test_a_run_without_it_carries_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = exporter.export(
        small(), photographs(), out=out, maps=["gradcam"], limit=1, writers=(), live=False
    )
    assert (run.plan.head, run.head(), list(run.stages())) == (None, None, [])


def test_a_page_says_why_there_is_no_such_map(tmp_path: Path, writing: Callable[..., Path]) -> None:
    model = nn.Sequential(*small()[:6], nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4))
    run = exporter.export(
        model, photographs(), out=tmp_path / "run", maps=["gradcam"], limit=1, writers=()
    )
    assert run.head() is None
    text = (writing(run.path) / "images.html").read_text("utf-8")
    assert (
        "cannot be painted: no linear layer goes from its 8 channel means to the 4 logits" in text
    )


@pytest.mark.slow
def test_a_single_file_leaves_it_out_where_it_does_not_fit(
    live: Run, writing: Callable[..., Path]
) -> None:
    folder = writing(live.path, single_file=True)
    text = (folder / "report.html").read_text("utf-8")
    assert text.count("exporterLive(&#34;") == 0
    assert text.count('exporterLive("') == 3
    assert "Maps of any class are left out" not in text
    size = len(text.encode())
    folder = writing(live.path, single_file=True, max_size=size - 1000)
    text = (folder / "report.html").read_text("utf-8")
    assert text.count('exporterLive("') == 0
    assert "Maps of any class are left out, as they do not fit" in text


def test_the_size_for_a_thousand_classes_does_not_depend_on_the_channels() -> None:
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(1000, 2048)).astype(np.float32)
    values = np.maximum(0, generator.normal(size=(2048, 49))).astype(np.float32)
    maps = weights @ values
    packed = _pack_maps(maps)
    assert len(_compact(packed)) <= 55_000  # and the means take 2.8 kB
    run_plan = type("Plan", (), {"head_layer": "l", "model": type("M", (), {"classes": ()})})
    head = _pack_head(run_plan, weights, weights[:, 0], np.ones(2048, np.float32))  # type: ignore[arg-type]
    assert len(_compact(head)) <= 1_500_000
    assert json.loads(_compact(packed))["steps"] == 51


def test_only_kept_images_are_carried(live: Run) -> None:
    ids = [row.id for row in live.rows(["id"])]
    scripts, why = live_scripts(open_run(live.path), {ids[1]})
    assert scripts is not None
    assert not why
    assert list(scripts.images) == [ids[1]]


@pytest.mark.parametrize(
    ("classes", "channels", "side", "cells"),
    [(1000, 1280, 14, 7), (1000, 2048, 7, 7), (400, 512, 14, 12), (10, 512, 28, 28)],
)
def test_a_finer_layer_is_averaged_down_to_60_kilobytes_an_image(
    classes: int, channels: int, side: int, cells: int
) -> None:
    generator = np.random.default_rng(0)
    weights = generator.uniform(-1, 1, (classes, channels)).astype(np.float32)
    # Cells alike at random take the most bytes.
    values = generator.uniform(size=(channels, side, side)).astype(np.float32)
    assert most_cells(weights.shape, side, side) == cells
    packed = _pack_image(weights, values, values.mean((1, 2)), cells)
    assert len(_compact(packed)) <= 60_000 - 300  # and its name, and what is called
    assert (packed["height"], packed["width"], tuple(packed["full"])) == (
        cells,
        cells,
        (side, side),
    )
    maps = _unpacked(packed)
    if side == 2 * cells:
        pooled = values.reshape(channels, cells, 2, cells, 2).mean((2, 4)).reshape(channels, -1)
        truth = weights @ pooled
        assert (np.abs(maps - truth) <= 0.0101 * np.ptp(truth, 1)[:, None]).all()
    # What the map sums to is the logit still.
    whole = weights @ values.reshape(channels, -1)
    assert np.abs(maps.mean(1) - whole.mean(1)).max() <= 0.005 * np.ptp(maps, 1).max()


def _unpacked(packed: dict[str, Any]) -> np.ndarray:
    """What live.js reads: (K, cells)."""

    def inflated(text: str, kind: str) -> np.ndarray:
        return np.frombuffer(zlib.decompress(b64decode(text)), kind)

    lo, span = (
        ends["lo"] + ends["step"] * inflated(ends["levels"], "<u2")[:, None]
        for ends in (packed["lo"], packed["span"])
    )
    levels = inflated(packed["maps"], "u1").reshape(len(lo), -1)
    return np.asarray(lo + span * levels / packed["steps"])


def test_a_page_says_where_too_many_classes_leave_no_room(
    live: Run, writing: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.writers.html.live.MOST_BYTES", 400)
    text = (writing(live.path) / "images.html").read_text("utf-8")
    assert (
        "The map of any class is left out: for 4 classes not even 4 × 4 cells fit in 0.4 kB" in text
    )
    assert not (live.path / "html" / "live").exists()
