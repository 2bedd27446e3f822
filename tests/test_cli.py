"""The command: what it prints, its exit codes, and that a wrong request is one line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from exporter.cli import group, main
from exporter.cli.flags import given
from exporter.console import explained
from exporter.errors import ConfigError
from exporter.store import open_run

MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def raises():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with a model file, its settings and six photographs."""
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "run.toml").write_text("[preprocessing]\nsize = 32\n")
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"photos/{index}.jpg"), noise.integers(0, 255, (40, 48, 3)))
    return tmp_path


def arguments(work: Path, *more: str) -> list[str]:
    return [
        "run",
        "--model",
        f"{work / 'small.py'}:small",
        "--images",
        str(work / "photos"),
        "--out",
        str(work / "run"),
        "--config",
        str(work / "run.toml"),
        "--writer",
        "html",
        "--map",
        "gradcam",
        "--layer",
        "3",
        *more,
    ]


@pytest.mark.slow
def test_a_run_is_complete_and_says_where_the_report_is(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(work)) == 0
    said = capfd.readouterr().out
    assert "6 of 6 images" in said
    assert "index.html" in said
    run = open_run(work / "run")
    assert run.complete
    assert [row.path for row in run.rows()] == [f"{index}.jpg" for index in range(6)]
    assert {stored.method for row in run.rows() for stored in row.maps} == {"gradcam"}


def test_an_image_that_cannot_be_read_is_exit_3_and_named(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (work / "photos/2.jpg").write_bytes(b"")
    assert main(arguments(work)) == 3
    assert "2.jpg" in capfd.readouterr().err
    rows = list(open_run(work / "run").rows())
    assert [row.path for row in rows if row.error] == ["2.jpg"]
    assert all(row.maps for row in rows if not row.error)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--map", "gradcm"), "'gradcm'.*did you mean 'gradcam'"),
        (("--layer", "nine"), "'nine'"),
        (("--target", "zebra"), "'zebra'"),
        (("--target", "99"), "99"),
        (("--images", "no/such/folder"), "no/such/folder"),
        (("--model", "resnet5O"), "'?resnet5O'?"),
        (("--model", "{work}/small.py:raises"), "no such luck"),
        (("--model", "{work}/small.py:tiny"), "tiny"),
        (("--checkpoint", "{work}/none.pt"), "none.pt"),
        (("--device", "cuda:77"), "cuda:77"),
        (("--device", "toaster"), "toaster"),
        (("--batch-size", "0"), "--batch-size is '0'"),
        (("--keep", "some"), "some"),
        (("--layer", "4"), "'4' gives no plane of more than one pixel"),
        (("--kernel", "fc"), "'fc'"),
        (("--classes", "{work}/none.txt"), "none.txt"),
        (("--resume", "--overwrite"), "--resume and --overwrite"),
        (("--output", "logits"), "logits"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2_and_leaves_nothing(
    work: Path, capfd: pytest.CaptureFixture[str], more: tuple[str, ...], says: str
) -> None:
    assert main(arguments(work, *(text.format(work=work) for text in more))) == 2
    said = capfd.readouterr().err
    assert re.search(says, said), said
    assert "Traceback" not in said
    # What takes long, as on a busy machine, is told before.
    beside = ("Usage", "Try", "loading the model", "trying the model")
    lines = [line for line in said.splitlines() if line and not line.startswith(beside)]
    assert len(lines) == 1, said
    assert not (work / "run" / "plan.json").exists()


@pytest.mark.slow
def test_a_taken_folder_is_refused_and_resume_and_overwrite_are_the_ways(work: Path) -> None:
    assert main(arguments(work)) == 0
    assert main(arguments(work)) == 2
    assert main(arguments(work, "--resume")) == 0
    assert main(arguments(work, "--resume", "--seed", "5")) == 2
    assert main(arguments(work, "--overwrite", "--seed", "5")) == 0


def test_a_dry_run_says_what_would_run_and_writes_nothing(
    work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(work, "--dry-run", "--map", "eigencam")) == 0
    said = capfd.readouterr().out
    assert re.search(r"images +6 of", said)
    assert re.search(r"layers +3 ", said)
    # As reports call it, not as its factory is called.
    assert re.search(r"model +Sequential, ", said)
    assert re.search(r"pass 1 .*gradcam", said)
    assert re.search(r"time +about .* estimated from a batch of 4", said)
    assert re.search(r"disk +about", said)
    assert not (work / "run").exists()


def test_a_dry_run_counts_passes_instead_of_running_them(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    real = nn.Linear.forward

    def forward(self: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        rows.append(len(inputs))
        return real(self, inputs)

    monkeypatch.setattr(nn.Linear, "forward", forward)
    # A millisecond for each image that goes through the model.
    monkeypatch.setattr(
        "exporter.describe.time", SimpleNamespace(perf_counter=lambda: sum(rows) / 1e3)
    )
    methods = ("integratedgradients:steps=1000000", "smoothgrad:samples=1000000", "occlusion")
    asked = [part for name in (*methods, "scorecam") for part in ("--map", name)]
    assert main(arguments(work, "--dry-run", *asked)) == 0
    assert sum(rows) < 300
    said = capfd.readouterr().out
    assert "1000000 forwards of images between" in said
    # 4 ms for each of two million steps of a batch of 4, for 6 images.
    assert re.search(r"time +about 3\.3 h to compute, estimated from a batch of 4\n", said), said


@pytest.mark.slow
def test_layers_counts_a_resnet50(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "resnet50", "--json"]) == 0
    described = json.loads(capfd.readouterr().out)
    kinds = [layer["type"] for layer in described["layers"]]
    names = [layer["name"] for layer in described["layers"] if layer["type"] == "Conv2d"]
    assert len(names) == 53
    assert sum("downsample" in name for name in names) == 4
    assert kinds.count("Linear") == 1
    assert kinds.count("Bottleneck") == 16
    shapes = {layer["name"]: layer["output"] for layer in described["layers"]}
    assert shapes["layer4"] == [2048, 7, 7]
    assert described["explained"][-1] == "layer4"
    text = json.dumps(described["counts"])
    for number in ("49", "4", "1", "16"):
        assert re.search(rf"\b{number}\b", text)


@pytest.mark.slow
def test_layers_prints_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "resnet18"]) == 0
    said = capfd.readouterr().out
    assert re.search(r"layer4 .*512×7×7", said)
    assert "17 convolutions (and 3 in shortcuts), 1 linear layer" in said
    assert "8 blocks of type BasicBlock" in said
    assert "never called" not in said


@pytest.mark.slow
def test_a_terminal_without_the_characters_shows_question_marks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "maps"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout


def test_only_a_run_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exporter.store.check", interrupted)
    assert main(["check", "anywhere"]) == 130
    assert capfd.readouterr().err.strip() == "interrupted"


def test_maps_lists_every_method_with_its_paper(capfd: pytest.CaptureFixture[str]) -> None:
    from exporter.maps import METHODS

    assert main(["maps", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capfd.readouterr().out)}
    assert set(METHODS) < set(listed)
    assert {"captum:DeepLift", "captum:Lime", "zennit:epsilon_plus_flat"} < set(listed)
    assert listed["captum:Lime"]["settings"]["n_samples"] == "25"
    assert not {"captum:LayerConductance", "captum:Occlusion"} & set(listed)
    assert all(
        entry["formula"] and entry["url"].startswith("https://") for entry in listed.values()
    )
    assert main(["maps"]) == 0
    said = capfd.readouterr().out
    assert all(name in said for name in METHODS)
    assert "captum:NAME" in said
    assert "zennit:epsilon_gamma_box" in said


def test_maps_says_how_to_get_those_of_a_library_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from exporter.maps import of_zennit

    class Without:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] == "zennit":
                raise ModuleNotFoundError(name, name="zennit")

    of_zennit.method_named.cache_clear()
    for module in [entry for entry in sys.modules if entry.partition(".")[0] == "zennit"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    assert main(["maps"]) == 0
    assert "maps of zennit need zennit, which is not installed: pip" in capfd.readouterr().out


@pytest.mark.slow
def test_check_finds_a_damaged_shard(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(work)) == 0
    assert main(["check", str(work / "run")]) == 0
    shard = work / "run/shards/00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    capfd.readouterr()
    assert main(["check", str(work / "run")]) == 2
    assert "shards/00000.parquet" in capfd.readouterr().out


def test_every_flag_of_the_design_is_there() -> None:
    flags = {name for parameter in group.commands["run"].params for name in parameter.opts}
    wanted = """--model --images --out --map --layer --target --writer --weights --checkpoint
        --output --batch-size --shard-size --workers --device --seed --limit --dry-run --classes
        --top-k --activation --kernel --keep --report-url --tensorboard-url --wandb
        --wandb-project --wandb-entity --resume --overwrite --config"""
    assert set(wanted.split()) <= flags


@pytest.mark.slow
def test_the_former_flag_of_faithfulness_works_and_is_not_shown(work: Path) -> None:
    assert main(arguments(work, "--quality")) == 0
    assert open_run(work / "run").settings["faithfulness"] is True
    (former,) = [flag for flag in group.commands["run"].params if "--quality" in flag.opts]
    assert former.hidden  # type: ignore[attr-defined]


@pytest.mark.slow
def test_interrupted_is_130_and_resumable(work: Path) -> None:
    for index in range(162):
        (work / f"photos/more{index}.jpg").write_bytes((work / "photos/0.jpg").read_bytes())
    asked = arguments(work, "--shard-size", "4")
    command = [sys.executable, "-m", "exporter", *asked]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not list((work / "run/shards").glob("0*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert not (work / "run/run.json").exists()
    before = {p.name: p.stat().st_mtime_ns for p in (work / "run/shards").glob("0*.parquet")}
    assert 0 < len(before) < 42
    assert main([*asked, "--resume"]) == 0
    after = {p.name: p.stat().st_mtime_ns for p in (work / "run/shards").glob("0*.parquet")}
    assert len(after) == 42
    assert {name: after[name] for name in before} == before


def test_pixel_methods_are_not_counted_at_every_layer(sampling: ModuleType) -> None:
    plan = sampling.sample_plan(sampling.default_images())
    first, *rest = plan.methods
    methods = (*rest, dataclasses.replace(first, pixel=True))
    plan = dataclasses.replace(plan, methods=methods, explained=("a", "b", "fused"))
    told = explained(plan)
    assert told.endswith(" at 2 layers and 1 pixel method")
    assert told.startswith(f"{len(rest)} method")


def test_a_metric_is_a_name_and_a_number() -> None:
    assert given({"metrics": ("val=a=0.5", "loss=1")}) == {"metrics": {"val=a": "0.5", "loss": "1"}}
    for wrong in ("loss", "=1"):
        with pytest.raises(ConfigError, match="does not have the form NAME=VALUE"):
            given({"metrics": (wrong,)})
