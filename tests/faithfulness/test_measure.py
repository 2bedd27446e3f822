"""Deletion, insertion and ROAD: by hand on a linear model, against another library, end to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import exporter
from benchmarks.road import exact
from exporter.cli import group
from exporter.errors import ModelError
from exporter.faithfulness import METRICS, Metric, RankedImage, measure
from exporter.faithfulness.imputation import NOISE, impute
from exporter.faithfulness.measure import enlarge, ranks
from exporter.faithfulness.measure import rank as ranked_by
from exporter.faithfulness.metrics import ROAD_SHARES, STEPS, blur
from exporter.records import Faithfulness, Row, StoredMap
from exporter.store import records_table, schema_of
from exporter.summaries import merge_faithfulness
from tests.small import small

SIDE = 16


def linear(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of class 0 (2, H, W), class 1 having none, and an image."""
    noise = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, SIDE, SIDE, generator=noise) / 8
    return weights, torch.randn(2, SIDE, SIDE, generator=noise)


def probability(weights: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the softmax of (w·x, 0), which is the sigmoid of w·x."""
    return lambda inputs: (inputs * weights).sum((1, 2, 3)).sigmoid()


def score(
    of_variants: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    values: NDArray[np.float32],
    noise: torch.Tensor,
) -> SimpleNamespace:
    """Return the built-in metrics of one map of one image."""
    plane = torch.zeros(image.shape[1:])
    unranked = RankedImage(image, plane, plane.long(), noise, lambda v: of_variants(v).double())
    ranked = ranked_by(unranked, values)
    return SimpleNamespace(**{name: metric.compute(ranked) for name, metric in METRICS.items()})


def by_hand(
    weights: torch.Tensor, start: torch.Tensor, end: torch.Tensor, values: NDArray[np.float32]
) -> float:
    """Return the area as pixels of ``end`` take the place of ``start``'s, largest value first."""
    places = sorted(
        ((y, x) for y in range(SIDE) for x in range(SIDE)), key=lambda place: -values[place]
    )
    curve = []
    for step in range(STEPS + 1):
        changed = set(places[: step * SIDE * SIDE // STEPS])
        logit = 0.0
        for channel in range(2):
            for y in range(SIDE):
                for x in range(SIDE):
                    source = end if (y, x) in changed else start
                    logit += float(weights[channel, y, x]) * float(source[channel, y, x])
        curve.append(1 / (1 + math.exp(-logit)))
    return sum((one + other) / 2 for one, other in pairwise(curve)) / STEPS


def test_the_areas_of_a_linear_model_are_those_by_hand() -> None:
    weights, image = linear()
    # Whole numbers: many pixels are equal, and the first of them goes first.
    values = np.random.default_rng(0).integers(0, 9, (SIDE, SIDE)).astype(np.float32)
    found = score(probability(weights), image, values, torch.zeros_like(image))
    assert found.deletion == pytest.approx(
        by_hand(weights, image, torch.zeros_like(image), values), abs=1e-6
    )
    assert found.insertion == pytest.approx(by_hand(weights, blur(image), image, values), abs=1e-6)


def test_a_perfect_map_beats_a_random_one_and_its_own_inverse() -> None:
    weights, image = linear(1)
    perfect = (weights * image).sum(0).numpy()
    random = np.random.default_rng(1).random((SIDE, SIDE)).astype(np.float32)
    noise = torch.zeros_like(image)
    best, middle, worst = (
        score(probability(weights), image, one, noise) for one in (perfect, random, -perfect)
    )
    assert best.deletion < middle.deletion < worst.deletion
    assert best.insertion > middle.insertion > worst.insertion
    assert best.road > middle.road > worst.road
    assert best.road == pytest.approx(-worst.road, abs=1e-5)


def test_enlarging_is_that_of_torch_and_keeps_equal_values_equal() -> None:
    values = np.random.default_rng(2).random((5, 7)).astype(np.float32)
    found = enlarge(values, 32, 24)
    expected = nn.functional.interpolate(
        torch.from_numpy(values)[None, None], (32, 24), mode="bilinear"
    )[0, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert len(np.unique(found[:3, :1])) == 1
    assert ranks(torch.tensor([[1.0, 3.0], [3.0, 0.0]])).tolist() == [[2, 0], [1, 3]]


def test_the_blur_is_that_of_opencv() -> None:
    _, image = linear(3)
    expected = [
        cv2.GaussianBlur(one, (11, 11), 5, borderType=cv2.BORDER_REPLICATE) for one in image.numpy()
    ]
    np.testing.assert_allclose(blur(image).numpy(), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("share", ROAD_SHARES)
def test_imputed_pixels_are_those_of_another_library(share: float) -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    noise = np.random.default_rng(4)
    image = torch.from_numpy(noise.standard_normal((3, 24, 20)).astype(np.float32))
    values = enlarge(noise.random((4, 4)).astype(np.float32), 24, 20)
    removed = ranks(torch.from_numpy(values)) < int(share * values.size)
    expected = road.NoisyLinearImputer(noise=0)(image.clone(), (~removed).float())
    found = impute(image, torch.stack((removed, ~removed)), torch.zeros_like(image))
    np.testing.assert_allclose(found[0].numpy(), expected.numpy(), atol=2e-3)
    assert torch.equal(found[0][:, ~removed], image[:, ~removed])


def holes(kind: str, height: int, width: int) -> torch.Tensor:
    """Return what is removed of an image, bool (H, W)."""
    noise = np.random.default_rng(6)
    removed = torch.ones(height, width, dtype=torch.bool)
    if kind == "all but one":
        removed[height // 3, width // 4] = False
    elif kind == "stripes":
        removed[:, ::9] = False
    elif kind == "border":
        removed[3:-3, 3:-3] = False
    elif kind == "one":
        removed[:] = False
        removed[0, 0] = True
    elif kind == "nothing":
        removed[:] = False
    else:
        side = {"blobs": 5, "grains": height}[kind]
        values = enlarge(noise.random((side, side)).astype(np.float32), height, width)
        removed = ranks(torch.from_numpy(values)) < int(0.8 * values.size)
    return removed


@pytest.mark.parametrize(
    "size", [pytest.param((64, 64), marks=pytest.mark.slow), (61, 83), (7, 130)]
)
@pytest.mark.parametrize(
    "kind", ["blobs", "grains", "stripes", "border", "all but one", "one", "nothing"]
)
def test_imputed_pixels_solve_the_system(kind: str, size: tuple[int, int]) -> None:
    """Within half of the noise that is added, of what SciPy's sparse LU gives."""
    pytest.importorskip("scipy")
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(7))
    removed = holes(kind, *size)
    others = torch.rand(2, *size, generator=torch.Generator().manual_seed(8)) < 0.5
    expected = exact(image.numpy(), removed.numpy())
    for given in (image, image.double()):
        found = impute(given, torch.cat((removed[None], others)), torch.zeros_like(given))
        assert found.dtype == given.dtype
        np.testing.assert_allclose(found[0].numpy(), expected, atol=NOISE / 2)
        assert torch.equal(found[0][:, ~removed], given[:, ~removed])
        alone = impute(given, removed[None], torch.zeros_like(given))
        np.testing.assert_allclose(alone[0].numpy(), found[0].numpy(), atol=1e-5)


def test_the_noise_is_where_pixels_are_imputed() -> None:
    _, image = linear(5)
    removed = torch.rand(1, SIDE, SIDE) < 0.5
    silent = impute(image, removed, torch.zeros_like(image))
    noisy = impute(image, removed, torch.ones_like(image))
    torch.testing.assert_close(noisy - silent, removed[:, None].expand_as(noisy).float())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of six images, one of them broken."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"photos/{index}.png"), noise.integers(0, 255, (40, 40, 3)))
    (tmp_path / "photos/2.png").write_bytes(b"broken")
    return tmp_path / "photos"


def run(photos: Path, out: Path, **settings: object) -> exporter.Run:
    return exporter.export(
        small(),
        photos,
        out=out,
        maps=("gradcam", "eigencam"),
        layers=("1", "3"),
        preprocessing={"size": 32},
        **{"writers": (), "faithfulness": True, **settings},
    )


@pytest.mark.slow
def test_a_run_has_the_table_and_the_report_shows_it(photos: Path, tmp_path: Path) -> None:
    made = run(photos, tmp_path / "run", writers=("html",))
    images = list(made.image_faithfulness())
    assert {one.layer for one in images} == {"3"}
    assert len(images) == 10
    for row in made.faithfulness():
        mine = [one for one in images if one.method == row.method and one.road is not None]
        assert row.images == len(mine) > 0
        for name in ("deletion", "insertion", "road"):
            mean = np.mean([getattr(one, name) for one in mine])
            assert getattr(row, name) == pytest.approx(mean, abs=1e-9)
    page = (tmp_path / "run/html/methods.html").read_text(encoding="utf-8")
    first = made.faithfulness()[0]
    assert first.deletion is not None
    assert "How faithful are the maps?" in page
    assert f"<td>{first.deletion:.3f}</td>" in page
    assert exporter.store.check(tmp_path / "run") == ()
    stored = pq.read_table(tmp_path / "run/summaries/00000-faithfulness.parquet")
    assert stored.column_names == [
        "id",
        "method",
        "layer",
        "deletion",
        "insertion",
        "road",
        "others",
    ]


@pytest.mark.slow
def test_any_cut_into_shards_and_batches_gives_the_same_values(
    photos: Path, tmp_path: Path
) -> None:
    whole = run(photos, tmp_path / "whole", batch_size=4)
    cut = run(photos, tmp_path / "cut", batch_size=1, shard_size=2)
    for one, other in zip(whole.image_faithfulness(), cut.image_faithfulness(), strict=True):
        assert (one.id, one.method) == (other.id, other.method)
        for name in ("deletion", "insertion", "road"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6)


@pytest.mark.slow
def test_without_the_flag_nothing_of_it_is_there(photos: Path, tmp_path: Path) -> None:
    made = run(photos, tmp_path / "run", faithfulness=False, writers=("html",))
    assert made.faithfulness() == ()
    assert list(made.image_faithfulness()) == []
    assert not list((tmp_path / "run").rglob("*faithfulness.parquet"))
    assert "faithful" not in (tmp_path / "run/html/methods.html").read_text(encoding="utf-8")


def test_one_value_has_no_probability_and_no_measure(photos: Path, tmp_path: Path) -> None:
    single = nn.Sequential(*small()[:-1], nn.Linear(8, 1))
    made = exporter.export(
        single, photos, out=tmp_path / "run", writers=(), maps=("gradcam",), layers=("3",),
        target="value", preprocessing={"size": 32}, faithfulness=True,
    )  # fmt: skip
    (row,) = made.faithfulness()
    assert (row.images, row.deletion, row.road) == (0, None, None)


def test_the_flag_wins_over_the_file_only_where_it_is_given(tmp_path: Path) -> None:
    from exporter.config import build_config

    file = tmp_path / "run.toml"
    file.write_text("faithfulness = true\n", encoding="utf-8")
    given = {"model": "m", "images": "i", "out": tmp_path}
    assert build_config(file, {"faithfulness": None}, **given).faithfulness
    assert not build_config(None, {}, **given).faithfulness
    flag = next(flag for flag in group.commands["run"].params if flag.name == "faithfulness")
    assert flag.default is None


def measured(
    image: torch.Tensor, of_variants: Callable[[torch.Tensor], torch.Tensor], *own: Metric
) -> Faithfulness:
    """Measure one map, of one image (C, H, W), with the built-in metrics and others."""
    levels = np.random.default_rng(0).integers(0, 65535, (8, 8)).astype("<u2")
    stored = StoredMap("gradcam", "3", "class:0", 8, 8, 0.0, 1.0, levels.tobytes())
    model = SimpleNamespace(scores="probability", outputs=2)
    plan = SimpleNamespace(
        methods=(), explained=("3",), deepest="3", settings={"seed": 0}, model=model
    )
    row = Row(id="a", key="a", path="a.png", label=None, maps=(stored,))
    metrics = (*(METRICS[name] for name in ("deletion", "insertion", "road")), *own)
    (found,) = measure(
        plan,  # type: ignore[arg-type]
        [row],
        lambda _n: image[None],
        lambda inputs, _index: of_variants(inputs),
        metrics,
    )
    return found


def brightness(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.float().mean((1, 2, 3)).sigmoid()


def test_half_precision_measures_what_single_precision_does() -> None:
    """In half precision the sums of conjugate gradients overflowed, and NaN counted as 0."""
    image = 4 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)) + 4
    exact, half = measured(image, brightness), measured(image.half(), brightness)
    for name in ("deletion", "insertion", "road"):
        assert getattr(half, name) == pytest.approx(getattr(exact, name), abs=2e-3), name


def test_what_is_not_finite_is_not_measured_rather_than_zero() -> None:
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    nothing = Metric("nothing", "", lambda _ranked: math.nan)
    found = measured(image, brightness, nothing)
    assert found.road is not None
    assert [(other.name, other.value) for other in found.others] == [("nothing", None)]
    # The one whose value is missing does not take the others with it.
    spoiled = replace(found, id="b", road=None)
    scope = SimpleNamespace(methods=("gradcam",), pixel=(), deepest="3")
    table = records_table([found, spoiled], schema_of(Faithfulness))
    table = merge_faithfulness([table], scope)  # type: ignore[arg-type]
    (mean,) = table.to_pylist()
    assert (mean["images"], mean["road"]) == (2, pytest.approx(found.road, abs=1e-9))
    assert mean["others"] == [{"name": "nothing", "about": "", "value": None}]


def test_out_of_memory_halves_the_variants_and_changes_nothing() -> None:
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def tight(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        if len(inputs) > 5:
            raise torch.OutOfMemoryError
        return brightness(inputs)

    assert measured(image, tight) == measured(image, brightness)
    assert max(sizes) == STEPS + 1

    asked: list[int] = []

    def full(inputs: torch.Tensor) -> torch.Tensor:
        asked.append(len(inputs))
        raise torch.OutOfMemoryError

    with pytest.raises(ModelError, match=r"not even one variant of 'a\.png' fits"):
        measured(image, full)
    assert asked == [17, 8, 4, 2, 1]


def test_a_metric_that_fails_is_an_error_of_one_line() -> None:
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    broken = Metric("broken", "", lambda ranked: float(ranked.image))
    with pytest.raises(ModelError, match=r"metric 'broken' failed on 'a\.png'") as caught:
        measured(image, brightness, broken)
    assert "\n" not in str(caught.value)
