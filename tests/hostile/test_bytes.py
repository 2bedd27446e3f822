"""A changed byte of a run is noticed, and what is then said repairs the run.

One run is made and one is interrupted; every kind of file in them is harmed in several ways. What
``check`` and ``render`` say of it has to agree, and whoever follows it has to end with a whole run:
byte for byte the unharmed one where docs/run-folder.md promises it.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import exporter
from exporter.cli import main
from exporter.errors import RunError
from exporter.store import check, open_run
from exporter.watch import Watch
from tests.older import make_older
from tests.small import small

PROMISED = ("shards", "summaries", "set", "kernels", "maximised", "channels.parquet")

OF_SHARDS = (
    "shards/00001.parquet",
    "summaries/00001.parquet",
    "summaries/00001-set.parquet",
    "summaries/00001-images.parquet",
    "summaries/00001-faithfulness.parquet",
    "summaries/00001-stage.parquet",
    "checksums/shards-00001.sha256",
)
FROM_THE_START = (
    "plan.json",
    "checksums/plan.json.sha256",
    "kernels/kernels.json",
    "kernels/*.png",
    "kernels/0*.npy",
    "kernels/head.npy",
    "checksums/kernels-kernels.json.sha256",
)
AT_THE_END = (
    "run.json",
    "checksums/run.json.sha256",
    "channels.parquet",
    "set/summary.json",
    "set/classes.parquet",
    "set/methods.parquet",
    "set/class-maps.parquet",
    "set/faithfulness.parquet",
    "set/confusion.parquet",
    "set/agreement.parquet",
    "set/redundant.parquet",
)
OF_PICTURES = ("maximised/00000.parquet", "checksums/maximised-00000.sha256")
OF_RECIPE = ("recipe.json", "checksums/recipe.json.sha256")
OF_WRITERS = (
    "writers.json",
    "checksums/writers.json.sha256",
    "html/index.html",
    "html/data/00000.js",
    "html/assets/report.css",
    "html/photos/*/*.jpg",
    "html/kernels/0.png",
    "checksums/writers-html.sha256",
    "tensorboard/*/events*",
    "tensorboard/*/gradcam/events*",
    "checksums/writers-tensorboard.sha256",
)
OF_WANDB = (
    "wandb/artifacts/pictures/*/*",
    "wandb/artifacts/staging/*",
    "wandb/offline-run-*/*.wandb",
    "wandb/offline-run-*/files/media/table/images*.json",
    "checksums/writers-wandb.sha256",
)


FOLDERS = ("kernels", "shards", "summaries", "checksums", "set", "maximised")


def _flip(at: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        place = min(len(content) - 1, int(at * len(content)))
        return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]

    return flip


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "first byte": _flip(0),
    "middle byte": _flip(0.5),
    "last byte": _flip(1),
    "cut short": lambda content: content[:-1],
    "emptied": lambda _: b"",
}
GONE = "deleted"


def cases(*patterns: str, quick: frozenset[str] = frozenset()) -> list[Any]:
    """Return three harms of each file: a byte within it, one of the others in turn, and no file."""
    others = [harm for harm in HARMS if harm != "middle byte"]
    return [
        pytest.param(
            pattern,
            harm,
            id=f"{pattern}-{harm}",
            marks=() if pattern in quick and harm == "middle byte" else pytest.mark.slow,
        )
        for number, pattern in enumerate(patterns)
        for harm in ("middle byte", others[number % len(others)], GONE)
    ]


class _Interrupting(Watch):
    """Interrupts the run when the second shard has been computed."""

    def __init__(self) -> None:
        self.images = 0

    def advance(self, steps: int = 1) -> None:
        self.images += steps
        if self.images > 6:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for n in range(8):
        picture = noise.integers(0, 255, (40, 40, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), picture)
    return folder


def export(photos: Path, out: Path, writers: tuple[str, ...] = (), **more: Any) -> None:
    exporter.export(
        small(),
        photos,
        out=out,
        preprocessing={"size": 32},
        layers=("1", "3"),
        maps=("gradcam", "eigencam"),
        maximise=("3:0",),
        faithfulness=True,
        batch_size=3,
        shard_size=3,
        writers=writers,
        **more,
    )


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    export(photos, out)
    assert problems(out) == []
    return out


@pytest.fixture(scope="module")
def written(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the whole run with a report and a log."""
    out = tmp_path_factory.mktemp("written") / "run"
    shutil.copytree(whole, out)
    assert main(["render", str(out), "--writer", "html", "--writer", "tensorboard"]) == 0
    assert problems(out) == []
    return out


@pytest.fixture(scope="module")
def killed(photos: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was interrupted after two of its three shards."""
    out = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(KeyboardInterrupt):
        export(photos, out, watch=_Interrupting())
    assert open_run(out).shards == (0, 1)
    # Its pictures are those of the whole run, so that no test waits for them again.
    shutil.copytree(whole / "maximised", out / "maximised")
    shutil.copy(whole / "checksums/maximised-00000.sha256", out / "checksums")
    return out


def arguments(photos: Path, out: Path) -> list[str]:
    """Return what plans a run whose parts other processes can compute."""
    model = photos.parent / "small.py"
    model.write_text(
        "import torch\nfrom torch import nn\ndef small():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))\n"
    )
    flags = ["--out", str(out), "--map", "gradcam", "--shard-size", "3", "--writer", "html"]
    return ["plan", "--model", f"{model}:small", "--images", str(photos), *flags]


def problems(run: Path) -> list[str]:
    from exporter.writers import check as check_written

    try:
        return [*check(run), *check_written(open_run(run))]
    except RunError as error:
        return [str(error)]


def harmed(run: Path, to: Path, pattern: str, harm: str) -> None:
    shutil.copytree(run, to)
    harm_one(to, pattern, harm)


def harm_one(run: Path, pattern: str, harm: str) -> None:
    """Harm the first file, or folder, of a pattern."""
    file = sorted(run.glob(pattern))[0]
    if harm == GONE:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    else:
        file.write_bytes(HARMS[harm](file.read_bytes()))


def promised(run: Path) -> dict[str, bytes]:
    files = [file for name in PROMISED for file in [run / name, *(run / name).rglob("*")]]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files if file.is_file()}


def follow(advice: str, photos: Path, run: Path, writers: tuple[str, ...] = ()) -> None:
    """Do what a problem says, and nothing else."""
    render = re.search(r"exporter (render --writer \w+)", advice)
    part = re.search(r"go on with exporter (work|finish) ", advice)
    assert "--overwrite" not in advice, "nothing has to be computed again that is whole"
    if render:
        command, *flags = render[1].split()
        assert main([command, str(run), *flags]) == 0
    elif part:
        assert main([part[1], str(run)]) == 0
    elif "plan the run again with --resume" in advice:
        assert main([*arguments(photos, run), "--resume"]) == 0
    elif "writers.json" in advice:
        assert advice.endswith("run exporter render with the writers' flags again")
        if "remove it" in advice:
            (run / "writers.json").unlink()
        assert main(["render", str(run), "--writer", "html", "--writer", "tensorboard"]) == 0
    else:
        assert "go on with --resume" in advice
        export(photos, run, writers, resume=True)


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        *cases(
            *FROM_THE_START, *OF_SHARDS, *AT_THE_END, *OF_PICTURES, quick=frozenset({"run.json"})
        ),
        *(pytest.param(name, GONE, id=name, marks=pytest.mark.slow) for name in FOLDERS),
    ],
)
def test_a_finished_run_is_mended_by_what_is_said(
    whole: Path, photos: Path, tmp_path: Path, *, pattern: str, harm: str
) -> None:
    run = tmp_path / "run"
    harmed(whole, run, pattern, harm)
    said = problems(run)
    assert said, "nobody has noticed"
    assert main(["render", str(run), "--writer", "html"]) == 2, "and it was rendered"
    assert all(line.endswith("; go on with --resume") for line in said)
    follow(said[0], photos, run)
    assert problems(run) == []
    assert promised(run) == promised(whole)


@pytest.mark.parametrize(
    ("pattern", "harm"),
    cases(*FROM_THE_START, *OF_SHARDS, *OF_PICTURES, quick=frozenset({"shards/00001.parquet"})),
)
def test_an_interrupted_run_is_mended_by_going_on(
    whole: Path, killed: Path, photos: Path, tmp_path: Path, *, pattern: str, harm: str
) -> None:
    run = tmp_path / "run"
    harmed(killed, run, pattern, harm)
    said = problems(run)
    if (pattern, harm) in ((OF_SHARDS[0], GONE), (OF_PICTURES[0], GONE)):  # as if never made
        count = 2 if pattern in OF_PICTURES else 1
        there = f"{count} of 3 shards are done"
        assert said == [f"the run is not complete: {there}; go on with --resume"]
    else:
        assert re.search(
            "has changed since it was written|damaged|lacks plan.json", "; ".join(said)
        ), said
        assert main(["render", str(run), "--writer", "html"]) == 2
    follow(said[-1], photos, run)
    assert problems(run) == []
    assert promised(run) == promised(whole)


def test_an_interrupted_run_of_the_first_version_is_rendered(killed: Path, tmp_path: Path) -> None:
    """It has no checksums, and so nothing that could differ from them."""
    run = tmp_path / "run"
    shutil.copytree(killed, run)
    make_older(run)
    assert main(["render", str(run), "--writer", "html"]) == 0
    assert problems(run) == ["the run is not complete: 2 of 3 shards are done; go on with --resume"]


@pytest.mark.parametrize(("pattern", "harm"), cases(*OF_WRITERS, quick=frozenset({"writers.json"})))
def test_what_a_writer_made_is_written_again(
    written: Path, photos: Path, tmp_path: Path, *, pattern: str, harm: str
) -> None:
    run = tmp_path / "run"
    harmed(written, run, pattern, harm)
    said = problems(run)
    assert said, "nobody has noticed"
    computed = {name: (run / name).stat().st_mtime_ns for name in promised(run)}
    follow(said[0], photos, run)
    assert problems(run) == []
    assert computed == {name: (run / name).stat().st_mtime_ns for name in promised(run)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_run_harmed_in_several_files_is_mended_step_by_step(
    written: Path, photos: Path, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    run = tmp_path / "run"
    shutil.copytree(written, run)
    files = sorted(file for file in run.rglob("*") if file.is_file() and file.name != ".lock")
    for file in draw.sample(files, 4):
        content = bytearray(file.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
    said = problems(run)
    assert said, "nobody has noticed"
    for _ in range(5):
        if said:
            follow(said[0], photos, run, writers=("html", "tensorboard"))
            said = problems(run)
    assert said == []
    assert promised(run) == promised(written)


@pytest.fixture(scope="module")
def with_wandb(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wandb") / "run"
    shutil.copytree(whole, out)
    assert main(["render", str(out), "--writer", "html", "--writer", "wandb"]) == 0
    assert problems(out) == []
    return out


@pytest.mark.parametrize(("pattern", "harm"), cases(*OF_WANDB))
def test_what_a_sync_would_send_is_written_again(
    with_wandb: Path, photos: Path, tmp_path: Path, *, pattern: str, harm: str
) -> None:
    run = tmp_path / "run"
    harmed(with_wandb, run, pattern, harm)
    shutil.rmtree(run / "html")
    said = problems(run)
    assert said[0].startswith(("wandb/", "checksums/writers-wandb"))
    follow(said[0], photos, run)
    assert problems(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("lacking", [False, True])
def test_pictures_of_a_run_in_parts_are_made_again_by_finishing(
    photos: Path, tmp_path: Path, *, lacking: bool
) -> None:
    """Workers make no pictures: to be sent to ``work`` again and again would mend nothing."""
    run, settings = tmp_path / "run", tmp_path / "run.toml"
    settings.write_text("[preprocessing]\nsize = 32\n")
    plan = [*arguments(photos, run), "--config", str(settings), "--maximise", "1:0"]
    assert main(plan) == 0
    assert main(["work", str(run)]) == 0
    assert main(["finish", str(run)]) == 0
    pictures = (run / "maximised/00000.parquet").read_bytes()
    # As a `finish` leaves it that was killed, and whose pictures rotted after that.
    (run / "run.json").unlink()
    assert main([*plan, "--resume"]) == 0
    (run / "maximised/00000.parquet").write_bytes(HARMS["middle byte"](pictures))
    if lacking:
        (run / "shards/00001.parquet").unlink()
    (said,) = [line for line in problems(run) if line.startswith("maximised/")]
    assert said.endswith(f"go on with exporter finish {run}")
    for _ in range(3):
        if open_run(run).complete:
            break
        follow(problems(run)[0], photos, run)
    assert problems(run) == []
    assert (run / "maximised/00000.parquet").read_bytes() == pictures


@pytest.fixture(scope="module")
def worked(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run in parts whose shards are computed."""
    out = tmp_path_factory.mktemp("worked") / "run"
    assert main(arguments(photos, out)) == 0
    assert main(["work", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def finished(worked: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return what such a run has to hold once it is finished."""
    out = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(worked, out)
    assert main(["finish", str(out)]) == 0
    return promised(out)


@pytest.mark.parametrize("harm", ["middle byte", "cut short", GONE])
@pytest.mark.parametrize("pattern", [*OF_RECIPE, *FROM_THE_START, *OF_SHARDS[:4]])
@pytest.mark.slow
def test_a_run_in_parts_is_not_finished_with_what_rotted(
    worked: Path,
    finished: dict[str, bytes],
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    pattern: str,
    harm: str,
) -> None:
    run = tmp_path / "run"
    harmed(worked, run, pattern, harm)
    said = problems(run)
    capsys.readouterr()
    assert main(["finish", str(run)]) == 2, "it was certified"
    if pattern.startswith(("kernels", "checksums/kernels", *OF_RECIPE)):
        assert len({line.rpartition("; ")[2] for line in said}) == 1, said
    finish = " ".join(capsys.readouterr().err.split())
    assert finish.rpartition("; ")[2] == said[-1].rpartition("; ")[2]
    follow(finish, photos, run)
    assert main(["work", str(run)]) == 0
    assert main(["finish", str(run)]) == 0
    assert problems(run) == []
    assert promised(run) == finished
