from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.comparison.joining import Joined, join
from exporter.errors import RunError

Build = Callable[..., Path]
IMAGES = 12


def test_checkpoints_are_put_in_the_order_of_their_steps(checkpoints: list[Path]) -> None:
    joined = join(checkpoints)
    assert joined.axis == "checkpoint"
    assert joined.steps == (1, 3, 5)
    assert joined.names == ("step 1", "step 3", "step 5")
    assert joined.baseline == 0
    assert [stage.name for stage in joined.stages] == ["layer3", "layer4"]
    assert [method.name for method in joined.methods] == ["gradcam", "eigencam"]
    (difference,) = joined.differences
    assert difference.varied
    assert difference.values[1] == "epoch-3.pt (weights 3)"
    assert join(checkpoints, baseline=checkpoints[1]).baseline == 2


def test_a_step_that_the_writers_were_told_counts_more(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    runs = [Path(shutil.copytree(run, tmp_path / run.name)) for run in checkpoints]
    for run, step in zip(runs, (10, 30, 20), strict=True):
        (run / "writers.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    assert join(runs).steps == (10, 20, 30)
    assert [run.path.name for run in join(runs).runs] == ["a", "c", "b"]


@pytest.mark.slow
def test_steps_and_what_varies_are_known_of_runs_without_names(
    others: dict[str, Path], tmp_path: Path
) -> None:
    for name, folder in (("plain", "net-12"), ("weights", "net-7")):
        shutil.copytree(others[name], tmp_path / folder)
    joined = join(sorted(tmp_path.iterdir()), unnamed=True)
    assert joined.steps == (7, 12)
    assert all(re.fullmatch("run [0-9a-f]{6}", run.name) for run in joined.runs)
    assert join([others["plain"], others["target"]], unnamed=True).axis == "target"


@pytest.fixture(scope="module")
def others(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("others")
    run = {"step": 1, "weights": "same"}
    return {
        "plain": build(place / "plain", **run),
        "target": build(place / "target", **run, target="top-2"),
        "seed": build(place / "seed", **run, settings={"seed": 1}),
        "methods": build(place / "methods", **run, methods=("layercam",)),
        "weights": build(place / "weights", step=2),
        "model": build(
            place / "model", step=2, model="vgg", layers={"first": 28, "middle": 14, "last": 7}
        ),
        "one layer": build(place / "one", **run, layers={"layer4": 7}),
        "elsewhere": build(place / "elsewhere", **run, names=[f"other {n}" for n in range(4)]),
        "fewer": build(place / "fewer", step=3, names=["image 03", "<b>image</b> 00", "new"]),
        "classes": build(place / "classes", step=4, classes=[f"x{n}" for n in range(8)]),
        "partial": build(place / "partial", step=5, finish=False),
    }


def joining(others: dict[str, Path], *names: str) -> Joined:
    return join([others[name] for name in names])


@pytest.mark.parametrize("axis", ["target", "seed", "methods", "weights", "model"])
def test_what_varies_is_found(others: dict[str, Path], axis: str) -> None:
    joined = joining(others, "plain", axis)
    assert joined.axis == axis
    assert [row.name for row in joined.differences if row.varied] == [axis]


def test_weights_of_one_digest_are_the_same_however_they_were_come_by(
    build: Build, tmp_path: Path
) -> None:
    runs = [
        build(tmp_path / name, weights=weights, names=["a", "b"], methods=methods)
        for name, weights, methods in (
            ("factory", "as the factory gives them ab67b8eca733", ("gradcam", "layercam")),
            ("python", "as handed over ab67b8eca733", ("gradcam", "eigencam")),
            ("trained", "as handed over 0067b8eca733", ("gradcam", "eigencam")),
        )
    ]
    joined = join(runs[:2])
    assert joined.axis == "methods"
    assert [row.name for row in joined.differences] == ["methods"]
    assert join(runs[1:]).axis == "weights"


def test_layers_of_other_models_are_aligned_by_stage(others: dict[str, Path]) -> None:
    joined = joining(others, "plain", "model")
    assert [(stage.name, stage.layers) for stage in joined.stages] == [
        ("stage-4", ("layer3", "middle")),
        ("deepest", ("layer4", "last")),
    ]
    assert "stage-4: layer3, middle; deepest: layer4, last" in joined.notes[0]


def test_methods_that_no_two_runs_share_are_compared_as_first_ones(
    others: dict[str, Path],
) -> None:
    (method,) = joining(others, "plain", "methods").methods
    assert method.methods == ("gradcam", "layercam")
    assert method.title == "Grad-CAM against LayerCAM"


def test_images_are_joined_by_their_contents(others: dict[str, Path]) -> None:
    joined = joining(others, "plain", "fewer")
    plan = joined.runs[0].plan
    assert [plan.images[n].id for n in (0, 3)] == list(joined.ids)
    missing = {image.path: image.runs for image in joined.missing}
    assert len(missing) == IMAGES - 2 + 1
    assert missing["new.jpg"] == (0,)
    assert missing["image 05.jpg"] == (1,)
    assert joined.differences[-1].name == "images"


def test_what_cannot_be_compared_is_said(others: dict[str, Path]) -> None:
    assert any("share no class name" in n for n in joining(others, "plain", "classes").notes)
    assert any(
        "at a single stage, layer4" in n or "at a single stage, deepest" in n
        for n in joining(others, "plain", "one layer").notes
    )
    partial = joining(others, "plain", "partial")
    assert "partial is not finished: 1 of 2 shards are done" in partial.notes[0]
    assert len(partial.ids) == 8


def test_what_is_no_comparison_is_one_sentence(others: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(others["plain"], tmp_path / "copy")
    again = others["plain"].parent / "." / "plain"
    newer = Path(shutil.copytree(others["plain"], tmp_path / "newer"))
    plan = (newer / "plan.json").read_text("utf-8")
    plan = plan.replace('"schema": 1', '"schema": 9', 1)
    (newer / "plan.json").write_text(plan, "utf-8")
    digest = hashlib.sha256(plan.encode()).hexdigest()
    (newer / "checksums/plan.json.sha256").write_text(f"{digest}  plan.json\n")
    for paths, said in (
        ([others["plain"]], "1 run was given; a comparison takes 2 to 50 runs"),
        ([others["plain"], again], "is given twice; give each run once"),
        ([others["plain"], copy], "is a copy of"),
        ([others["plain"], others["elsewhere"]], "have no image in common"),
        ([others["plain"], tmp_path / "none"], "there is no run in"),
        ([others["plain"], newer], "schema version 9"),
    ):
        with pytest.raises(RunError, match=said):
            join(paths)
    with pytest.raises(RunError, match="is not one of the runs"):
        join([others["plain"], others["weights"]], baseline=others["seed"])
