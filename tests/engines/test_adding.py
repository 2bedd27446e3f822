"""What is added to a finished run makes the run that was begun with all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torch import nn

import exporter
from exporter.config import build_config
from exporter.engines import Job, Recipe, local
from exporter.errors import RunError
from exporter.run import run
from exporter.store import RunFolder, anonymous, check, open_run
from tests.equal import differences
from tests.small import small

ALL: dict[str, Any] = {
    "maps": ["gradcam", "eigencam", "saliency"], "layers": ["0", "2", "3"], "faithfulness": True,
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "batch_size": 4, "shard_size": 5, "writers": (), "preprocessing": {"size": 32}, "keep": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 13 pictures, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for index in range(12):
        picture = noise.integers(0, 255, (40, 44, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:02d}.png"), picture)
    (folder / "05b.png").write_bytes(b"none")
    return folder


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return small()


def export(model: nn.Module, photos: Path, out: Path, **settings: Any) -> exporter.Run:
    return exporter.export(model, photos, out=out, **PLAIN | settings)


@pytest.fixture(scope="module")
def whole(model: nn.Module, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run that was begun with all of it."""
    return export(model, photos, tmp_path_factory.mktemp("whole") / "run", **ALL).path


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ({"maps": ["gradcam", "eigencam"]}, {"maps": ["saliency"]}),
        ({"maps": ["gradcam"]}, {"maps": ["eigencam", "saliency"]}),
        ({"layers": ["0", "2"]}, {"layers": ["3"]}),
        ({"layers": ["3"]}, {"layers": ["0", "2", "3"]}),
        ({"faithfulness": False}, {"faithfulness": True}),
        ({"maps": ["gradcam"], "layers": ["0"]}, {"maps": ALL["maps"], "layers": ["2", "3"]}),
        ({"maps": ["gradcam"], "faithfulness": False}, ALL),
        ({"layers": ["0"], "faithfulness": False}, {"layers": ["2", "3"], "faithfulness": True}),
    ],
    ids=lambda change: "+".join(change[1]),
)
def test_what_is_added_makes_the_run_that_was_begun_with_it(
    model: nn.Module,
    photos: Path,
    whole: Path,
    tmp_path: Path,
    change: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    first, added = change
    export(model, photos, tmp_path / "run", **ALL | first)
    run = export(model, photos, tmp_path / "run", **added, add=True)
    # The order in which layers were asked for is the only setting that may differ.
    assert set(run.settings["layers"]) == set(ALL["layers"])
    assert differences(run, whole) == []
    assert list(run.image_faithfulness()) == list(open_run(whole).image_faithfulness())
    assert run.faithfulness() == open_run(whole).faithfulness()


def test_only_what_is_missing_is_computed(
    model: nn.Module, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[tuple[list[str], tuple[str, ...]]] = []
    run = local.run

    def watched(job: Job, missing: Sequence[int], *others: Any) -> None:
        if missing:
            layers = job.explainer(job.module)._layers
            computed.append(([method.name for method in job.methods], layers))
        run(job, missing, *others)

    monkeypatch.setattr(local, "run", watched)
    out = tmp_path / "run"

    def add(**settings: Any) -> exporter.Run:
        return export(model, photos, out, **settings, add=True)

    export(model, photos, out, maps=["gradcam", "saliency"], layers=["2"])
    add(maps=["eigencam"])
    add(layers=["3"])
    before = {file: file.stat().st_mtime_ns for file in out.glob("shards/*")}
    again = add(maps=["gradcam"], layers=["2"])
    assert {file: file.stat().st_mtime_ns for file in out.glob("shards/*")} == before
    assert computed == [
        (["gradcam", "saliency"], ("2",)),
        (["eigencam"], ("2",)),
        (["gradcam", "eigencam"], ("3",)),
    ]
    assert again.settings["maps"] == ["gradcam", "saliency", "eigencam"]
    assert again.settings["layers"] == ["2", "3"]
    assert again.complete


def test_the_command_that_made_a_run_is_kept_beside_those_that_added_to_it(
    model: nn.Module, photos: Path, tmp_path: Path
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("exporter run --model m.py:f --map gradcam", {"maps": ["gradcam"], "layers": ["2"]}),
        ("exporter run --config c.toml --map eigencam --add", {"maps": ["eigencam"]}),
        ("exporter run --config c.toml --layer 3 --add", {"layers": ["3"]}),
        ("exporter run --config c.toml --map gradcam --add", {"maps": ["gradcam"]}),  # is there
    ]
    for command, settings in asked:
        config = build_config(
            model="m.py:f", images=str(photos), out=tmp_path / "run",
            **PLAIN | settings | {"writers": "html"},
        )  # fmt: skip
        run(Recipe(config, command, module=model), add="--add" in command)
    there = open_run(tmp_path / "run")
    commands = [command for command, _ in asked[:3]]
    assert list(there.plan.commands) == commands
    assert "\n".join(commands) in (there.path / "html/index.html").read_text("utf-8")
    assert anonymous(there).plan.commands == ()


@pytest.mark.slow
def test_adding_that_was_interrupted_goes_on(
    model: nn.Module, photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    export(model, photos, out, **ALL | {"maps": ["gradcam"]})
    written: list[int] = []
    write = RunFolder.write_shard

    def interrupted(folder: RunFolder, index: int, *others: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(index)
        write(folder, index, *others)

    monkeypatch.setattr(RunFolder, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(model, photos, out, maps=ALL["maps"], add=True)
    monkeypatch.setattr(RunFolder, "write_shard", write)
    assert not open_run(out).complete
    with pytest.raises(RunError, match=r"lacks 2 of 3 shards \(1, 2\)"):
        exporter.finish(out)
    first = (out / "shards/00000.parquet").stat().st_mtime_ns
    assert differences(export(model, photos, out, **ALL, resume=True), whole) == []
    assert (out / "shards/00000.parquet").stat().st_mtime_ns == first


@pytest.mark.slow
def test_sanity_refuses_methods_and_not_what_is_there(
    model: nn.Module, photos: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"maps": ["gradcam", "saliency"], "layers": ["2"], "sanity": True}
    run = export(model, photos, tmp_path / "run", **asked)
    steps = list(run.image_sanity())
    assert export(model, photos, run.path, **asked, add=True).complete
    asked |= {"faithfulness": True}
    measured = export(model, photos, run.path, **asked, add=True)
    assert list(measured.image_sanity()) == steps
    assert differences(measured, export(model, photos, tmp_path / "whole", **asked)) == []
    for added, what in (({"maps": ["eigencam"]}, "methods"), ({"layers": ["3"]}, "layers")):
        with pytest.raises(RunError, match=f"sanity is set, and what it gives .* the {what}"):
            export(model, photos, run.path, **asked | added, add=True)


@pytest.mark.slow
def test_what_cannot_be_added_is_said_and_the_run_stays_as_it_is(
    model: nn.Module, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked: dict[str, Any] = {"maps": ["gradcam"], "layers": ["2"], "fuse": "mean"}
    with pytest.raises(RunError, match="no run"):
        export(model, photos, out, **asked, add=True)
    export(model, photos, out, **asked)
    for settings, said in (
        (
            asked | {"top_k": 2},
            r"only methods, layers and faithfulness=.* can be added: top_k was 5",
        ),
        (asked | {"layers": ["3"]}, "fuse is set, and what it gives changes with the layers"),
        (asked | {"limit": 4}, "9 images removed"),
    ):
        with pytest.raises(RunError, match=said):
            export(model, photos, out, **settings, add=True)
        assert open_run(out).complete
    assert check(out) == ()
