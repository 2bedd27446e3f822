from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from exporter.cli import main
from exporter.comparison import Comparison, compare, open_comparison
from exporter.comparison.folder import TABLES
from exporter.errors import RunError
from exporter.store import open_run

Build = Callable[..., Path]
IMAGES = 12

ORDER = (0, 2, 1)
"""Places of the fixture's runs by their steps."""


def test_predictions_are_counted_against_the_baseline(
    comparison: Comparison, checkpoints: list[Path]
) -> None:
    right = [
        np.array([row.correct for row in open_run(checkpoints[at]).rows(["correct"])])
        for at in ORDER
    ]
    told = comparison.contents
    assert [run.accuracy for run in told.runs] == pytest.approx([own.mean() for own in right])
    for row in told.contrasts:
        own, base = right[row.run], right[0]
        assert row.images == IMAGES
        assert (row.lost, row.won) == ((base & ~own).sum(), (own & ~base).sum())
        assert row.difference == pytest.approx(own.mean() - base.mean())
        assert row.low <= row.difference <= row.high
        assert row.p == pytest.approx(stats.binomtest(row.lost, row.lost + row.won).pvalue)
    p = sorted(row.p for row in told.contrasts)
    expected = [min(1, 2 * p[0]), min(1, max(2 * p[0], p[1]))]
    assert sorted(row.p_holm for row in told.contrasts) == pytest.approx(expected)


def test_calibration_is_that_of_each_run(comparison: Comparison, checkpoints: list[Path]) -> None:
    for run, at in zip(comparison.contents.runs, ORDER, strict=True):
        summary = open_run(checkpoints[at]).summary
        assert run.calibration_error == pytest.approx(summary.calibration_error)
        assert run.confidence == pytest.approx(summary.confidence)


def test_every_image_has_its_flips_and_how_its_maps_moved(
    comparison: Comparison, checkpoints: list[Path]
) -> None:
    runs = [open_run(checkpoints[at]) for at in ORDER]
    rows = list(comparison.images())
    assert [row.path for row in rows] == [entry.path for entry in runs[0].plan.images]
    counts = Counter(row.verdicts[2].flip for row in rows)
    contrast = comparison.contents.contrasts[1]
    assert (counts["lost"], counts["won"]) == (contrast.lost, contrast.won)
    row = rows[5]
    change = next(c for c in row.maps if (c.run, c.method, c.stage) == (2, "gradcam", "layer4"))
    maps = [run.map(row.id, "gradcam", "layer4").ravel() for run in (runs[0], runs[2])]
    assert change.spearman == pytest.approx(stats.spearmanr(*maps).statistic, abs=1e-4)
    known = [c.spearman for c in row.maps]
    assert row.likeness == pytest.approx(np.mean(known), abs=1e-6)


def test_the_means_of_all_pairs_are_those_of_the_images(comparison: Comparison) -> None:
    pairs = {
        (row.first, row.second, row.method, row.stage): row
        for row in comparison.records("similarity")
    }
    assert len(pairs) == 3 * 2 * 2
    for (first, second, method, stage), row in pairs.items():
        if first == 0:
            values = [
                change.spearman
                for image in comparison.images()
                for change in image.maps
                if (change.run, change.method, change.stage) == (second, method, stage)
            ]
            assert row.images == len(values) == IMAGES
            assert row.spearman == pytest.approx(np.mean(values), abs=1e-6)


def test_classes_fare_as_their_images_do(comparison: Comparison) -> None:
    rows = [row for row in comparison.records("classes") if row.run == 2]
    assert sum(row.images for row in rows) == IMAGES
    assert sum(row.won for row in rows) == comparison.contents.contrasts[1].won
    for row in rows:
        assert row.recall - row.baseline == pytest.approx((row.won - row.lost) / row.images)
        assert row.p <= row.p_holm


def test_layers_drift_as_they_were_made_to(comparison: Comparison) -> None:
    rows = {(row.run, row.layer): row for row in comparison.records("layers")}
    for run, step in enumerate((1, 3, 5)):
        assert rows[run, "layer3"].kernels == pytest.approx(np.cos((step - 1) / 10), abs=1e-6)
    assert rows[1, "layer4"].channels > rows[2, "layer4"].channels
    assert rows[0, "layer4"].cka == pytest.approx(1)
    assert (rows[2, "layer4"].dead, rows[2, "layer4"].of) == (1, 20)
    channels = [row for row in comparison.records("channels") if row.run == 2]
    kernel = [row.kernel for row in channels if row.layer == "layer3"]
    assert np.mean(kernel) == pytest.approx(rows[2, "layer3"].kernels)


@pytest.mark.slow
def test_kernels_of_one_model_are_compared_whatever_the_size_of_its_input(
    build: Build, tmp_path: Path
) -> None:
    runs = [
        build(tmp_path / str(side), step=step, layers={"layer3": side, "layer4": side // 2})
        for step, side in ((0, 14), (2, 28))
    ]
    rows = {
        (row.run, row.layer): row
        for row in compare(*runs, out=tmp_path / "CMP", writers=()).records("layers")
    }
    assert rows[1, "layer3"].kernels == pytest.approx(np.cos(0.2), abs=1e-6)
    assert rows[1, "layer4"].channels is not None


def test_what_is_measured_is_compared_where_both_have_it(comparison: Comparison) -> None:
    measures = {row.measure for row in comparison.records("measures")}
    assert measures == {"pointing", "box_energy", "entropy", "agreement"}
    for row in comparison.records("measures"):
        assert row.difference == pytest.approx(row.value - row.baseline)


def test_agreement_is_compared_over_methods_and_a_layer_that_both_runs_have(
    build: Build, tmp_path: Path
) -> None:
    alike = {"names": ["a", "b", "c", "d"], "weights": "same"}
    more = {"methods": ("gradcam", "layercam", "eigencam")}
    base = build(tmp_path / "base", step=1, **alike, **more)
    other = build(tmp_path / "other", step=3, **alike, methods=("gradcam", "eigencam"))
    shallow = build(tmp_path / "shallow", step=1, **alike, explained=["layer3"])

    def agreement(folder: Path, layer: str) -> float:
        run = open_run(folder)
        return float(
            np.mean(
                [
                    stats.spearmanr(
                        *(
                            run.stored(row, name, layer, None).array().ravel()
                            for name in ("gradcam", "eigencam")
                        )
                    ).statistic
                    for row in run.rows()
                ]
            )
        )

    def shifts(run: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
        told = compare(base, run, out=tmp_path / f"CMP {run.name}", writers=())
        return {row.measure: row for row in told.records("measures")}, told.contents.notes

    rows, notes = shifts(other)
    row = rows["agreement"]
    assert (row.method, row.stage) == ("eigencam, gradcam", "layer4")
    assert row.value == pytest.approx(agreement(other, "layer4"))
    assert row.baseline == pytest.approx(agreement(base, "layer4"))
    assert rows["entropy"].method == "gradcam"
    assert notes == ()

    rows, notes = shifts(shallow)
    assert set(rows) == {"agreement"}
    row = rows["agreement"]
    assert (row.method, row.stage) == ("eigencam, gradcam", "layer3")
    assert row.value == pytest.approx(agreement(shallow, "layer3"))
    assert row.baseline == pytest.approx(agreement(base, "layer3"))
    assert notes[-1] == (
        "not compared: pointing, energy inside, entropy, which base has of gradcam at layer4, and "
        "shallow of gradcam at layer3"
    )


def test_agreement_of_the_same_maps_differs_by_nothing(build: Build, tmp_path: Path) -> None:
    alike = {"names": ["a", "b", "c"], "weights": "same", "explained": ["layer4"]}
    runs = [
        build(tmp_path / str(len(methods)), **alike, methods=methods)
        for methods in (("gradcam", "eigencam"), ("gradcam", "eigencam", "layercam"))
    ]
    rows = compare(*runs, out=tmp_path / "CMP", writers=()).records("measures")
    (row,) = [row for row in rows if row.measure == "agreement"]
    assert (row.method, row.value) == ("eigencam, gradcam", row.baseline)
    assert (row.difference, row.low, row.high) == (0, 0, 0)


def test_agreement_of_other_methods_is_left_out(build: Build, tmp_path: Path) -> None:
    alike = {"names": ["a", "b"], "weights": "same"}
    runs = [
        build(tmp_path / other, **alike, methods=("gradcam", other))
        for other in ("layercam", "eigencam")
    ]
    told = compare(*runs, out=tmp_path / "CMP", writers=("html",))
    assert "agreement" not in {row.measure for row in told.records("measures")}
    (note,) = [note for note in told.contents.notes if "agreement" in note]
    assert note == (
        "not compared: agreement of the methods, which layercam has of gradcam, layercam at "
        "layer4, and eigencam of eigencam, gradcam at layer4"
    )
    page = (tmp_path / "CMP/html/index.html").read_text("utf-8")
    assert note in page
    # Nothing else differs: there is no strip of maps that did not move, and no difference of 0.
    assert "Maps that changed most" not in page
    assert "0 points" not in page
    found = {finding.about: finding.text for finding in told.findings}
    assert found["Accuracy"].startswith("Both runs are right on the same images, ")


@pytest.mark.slow
def test_classes_are_matched_by_name(build: Build, tmp_path: Path, sampling: object) -> None:
    names = list(sampling.CLASSES)  # type: ignore[attr-defined]
    turned = [*names[3:], *names[:3]]
    first = build(tmp_path / "a", step=5, weights="a")
    second = build(tmp_path / "b", step=5, weights="b", classes=turned)
    told = compare(first, second, out=tmp_path / "CMP", writers=()).contents
    # All that are right are so in both, whatever the number of their class.
    both_right = sum(row.correct for row in open_run(first).rows(["correct"]))
    assert told.agreement[0][1] >= both_right / IMAGES
    assert (told.contrasts[0].lost, told.contrasts[0].won) == (0, 0)


def test_a_comparison_is_read_back_and_replaced_only_on_request(
    comparison: Comparison, checkpoints: list[Path], tmp_path: Path
) -> None:
    again = open_comparison(comparison.path)
    assert again.contents == comparison.contents
    assert repr(again).endswith(f"step 1, step 3, step 5; {IMAGES} images>")
    assert comparison.contents.runs[0].path == "../a"
    for name in ("images", *TABLES):
        assert again.table(name).num_rows == len(again.table(name).to_pylist())
    with pytest.raises(RunError, match="no table 'none'; choose one of images, classes"):
        again.table("none")
    with pytest.raises(RunError, match="give --overwrite to replace it"):
        compare(*checkpoints, out=comparison.path)
    with pytest.raises(RunError, match="is one of the runs"):
        compare(*checkpoints, out=checkpoints[0], overwrite=True)
    for name in ("mine.txt", "layers"):  # a table's name, without its suffix, is somebody's too
        other = tmp_path / name
        (other / name).mkdir(parents=True)
        with pytest.raises(RunError, match="contains something else"):
            compare(*checkpoints, out=other, overwrite=True)
    with pytest.raises(RunError, match="there is no comparison in"):
        open_comparison(tmp_path)


def test_a_key_is_never_left_beside_a_comparison_that_it_does_not_belong_to(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    out, key = tmp_path / "CMP", tmp_path / "CMP.key.csv"
    compare(*checkpoints[:2], out=out, writers=(), anonymous=True)
    before = key.read_bytes()
    shutil.rmtree(out)
    with pytest.raises(RunError, match=r"CMP\.key\.csv' is the key of one that was made before"):
        compare(*checkpoints[:2], out=out, writers=(), anonymous=True)
    assert key.read_bytes() == before
    compare(*checkpoints[:2], out=out, writers=(), overwrite=True)
    assert not key.exists()
    key.write_text("mine", "utf-8")
    with pytest.raises(RunError, match=r"CMP\.key\.csv' is something else"):
        compare(*checkpoints[:2], out=out, writers=(), overwrite=True)
    assert key.read_text("utf-8") == "mine"


def test_what_a_killed_comparison_left_is_replaced(checkpoints: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "CMP"
    out.mkdir()
    (out / ".images.0123456789ab.tmp").write_bytes(b"half")
    compare(*checkpoints[:2], out=out, writers=())
    assert not list(out.glob(".*"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".mine.0123456789ab.tmp").write_bytes(b"mine")
    with pytest.raises(RunError, match="contains something else"):
        compare(*checkpoints[:2], out=tmp_path / "other", writers=())


def test_a_damaged_or_newer_comparison_is_one_sentence(tmp_path: Path) -> None:
    document = tmp_path / "comparison.json"
    for text, said in (
        ("{", "is damaged"),
        ('{"schema": 1}', "is damaged"),
        ('{"schema": 9}', "schema version 9 and this exporter reads up to 1"),
    ):
        document.write_text(text, "utf-8")
        with pytest.raises(RunError, match=said):
            open_comparison(tmp_path)


def test_the_command_says_what_it_found(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run) for run in checkpoints[:2]]
    told = ["--out", str(tmp_path / "CMP"), "--baseline", runs[1], "--writer", "html"]
    assert main(["compare", *runs, *told]) == 0
    said = capsys.readouterr().out
    assert "the baseline is step 5" in " ".join(said.split())
    assert "Flips" in said
    assert main(["compare", *runs, "--out", str(tmp_path / "CMP")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["compare", runs[0], "--out", str(tmp_path / "x")]) == 2
    assert json.loads((tmp_path / "CMP/comparison.json").read_text())["baseline"] == 1


def test_a_method_is_compared_where_it_has_maps(build: Build, tmp_path: Path) -> None:
    shape = {"methods": ("gradcam", "saliency", "rollout"), "combined": ("attention", "fused")}
    runs = [build(tmp_path / str(n), step=n, names=["a", "b"], **shape) for n in (1, 2)]
    comparison = compare(*runs, out=tmp_path / "CMP", writers=())
    stages = {
        method.name: [stage.name for stage in comparison.stages_of(method)]
        for method in comparison.contents.methods
    }
    assert stages == {
        "gradcam": ["layer3", "layer4", "fused"],
        "saliency": ["input"],
        "rollout": ["attention"],
    }


def test_runs_that_say_the_same_are_said_to(build: Build, tmp_path: Path) -> None:
    runs = [build(tmp_path / name, step=3, weights=name, names=["a", "b", "c"]) for name in "ab"]
    comparison = compare(*runs, out=tmp_path / "CMP", writers=())
    found = {finding.about: finding.text for finding in comparison.findings}
    assert found["Maps"] == "The maps of all runs rank their cells in the same order."
    assert not {"Flips", "Kernels", "Dead channels"} & set(found)
