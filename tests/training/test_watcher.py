"""A training that is watched: unchanged bit for bit, and every epoch a run."""

from __future__ import annotations

import copy
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

import exporter
from exporter import Watcher
from exporter.cli import main
from exporter.errors import ExporterError
from exporter.store import check
from exporter.store.lock import RunLock
from exporter.training import Budget
from exporter.training.watcher import TrainingWarning
from exporter.writers.tensorboard.serving import _log
from tests.writers.wandb.test_writer import history, records

SETTINGS: dict[str, Any] = {
    "maps": ["gradcam", "layercam"],
    "layers": ["block.0"],
    "limit": 4,
    "budget": None,
    "preprocessing": {"size": 16},
}


class Net(nn.Module):
    """Draws random numbers and keeps running statistics in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d())
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x).mean((2, 3)))


def data() -> TensorDataset:
    numbers = torch.Generator().manual_seed(0)
    images = torch.randn(24, 3, 16, 16, generator=numbers)
    return TensorDataset(images, torch.randint(3, (24,), generator=numbers))


def step_of(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    return loss


def accumulated(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Step at every second batch, so that the watcher meets gradients."""
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimiser.steps = getattr(optimiser, "steps", 0) + 1  # type: ignore[attr-defined]
    if optimiser.steps % 2 == 0:  # type: ignore[attr-defined]
        optimiser.step()
        optimiser.zero_grad()
    return loss


def scaled(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Step in mixed precision."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(x), y)
    SCALER.scale(loss).backward()
    SCALER.step(optimiser)
    SCALER.update()
    optimiser.zero_grad()
    return loss


SCALER = torch.amp.GradScaler("cpu")
Step = Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor], torch.Tensor]


def train(step: Step, watch: Callable[[nn.Module, int], object]) -> tuple[list[float], nn.Module]:
    """Train, look at the model in the middle of an epoch too, and draw from every generator."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    model = Net()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for epoch in range(2):
        for batch, (x, y) in enumerate(DataLoader(data(), 8, shuffle=True)):
            noise = np.random.rand() + random.random()
            losses.append(step(model, optimiser, x + noise, y).item())
            if batch == 0:  # with gradients where they are accumulated
                outer = torch.autocast("cpu", torch.bfloat16) if step is scaled else nullcontext()
                with outer:
                    watch(model, epoch)
    return losses, model


def state(model: nn.Module) -> dict[str, Any]:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    flags = {name: module.training for name, module in model.named_modules()}
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    return copy.deepcopy({"values": model.state_dict(), "grad": gradients, **flags, "h": hooks})


@pytest.mark.parametrize(
    "step",
    [step_of, *(pytest.param(step, marks=pytest.mark.slow) for step in (accumulated, scaled))],
)
def test_a_training_goes_on_bit_for_bit_as_if_nobody_watched(step: Step, tmp_path: Path) -> None:
    seen: list[exporter.Run | None] = []

    def watch(model: nn.Module, epoch: int) -> None:
        before, autocast = state(model), torch.is_autocast_enabled("cpu")
        seen.append(watcher.step(model, epoch))
        after = state(model)
        assert str(after) == str(before)
        assert torch.is_autocast_enabled("cpu") is autocast

    alone, left = train(step, lambda *_: None)
    with Watcher(data(), out=tmp_path / "watched", **SETTINGS) as watcher:
        losses, model = train(step, watch)
    assert losses == alone
    assert str(state(model)) == str(state(left))
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), left.state_dict().values(), strict=True)
    )
    assert all(run is not None and run.complete for run in seen)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of three epochs."""
    out = tmp_path_factory.mktemp("training") / "run"
    torch.manual_seed(0)
    model = Net()
    with Watcher(data(), out=out, classes=[*"012"], **SETTINGS) as watcher:
        for epoch in range(3):
            nn.init.normal_(model.block[0].weight)
            watcher.step(model, epoch, loss=1 / (1 + epoch), name="text", bad=float("nan"))
    return out


pytestmark = pytest.mark.filterwarnings("ignore:metrics that are no finite number")


def test_every_epoch_is_a_run_of_the_same_images(watched: Path) -> None:
    last = exporter.open_run(watched)
    assert list(last.epochs) == [0, 1, 2]
    assert last.path == last.epochs[2].path == watched / "epochs/00002"
    keys = [[row.key for row in run.rows(["key"])] for run in last.epochs.values()]
    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) == 4
    weights = {run.plan.model.weights for run in last.epochs.values()}
    assert len(weights) == 3
    assert all(check(run.path) == () for run in last.epochs.values())
    assert not any((run.path / "tensorboard").exists() for run in last.epochs.values())
    told = json.loads((watched / "training.json").read_text())
    assert told["rule"] == "4 of 24: at random with seed 0"
    assert [(e["epoch"], e["state"], e["metrics"]) for e in told["epochs"]] == [
        (epoch, "explained", {"loss": 1 / (1 + epoch)}) for epoch in range(3)
    ]


def test_the_maps_are_those_of_the_model_at_the_epoch(tmp_path: Path) -> None:
    model, items = Net(), data()
    watcher = Watcher(items, out=tmp_path / "run", **SETTINGS)
    for epoch in range(2):
        nn.init.normal_(model.head.weight)
        run = watcher.step(model, epoch)
        assert run is not None
        row = next(iter(run.rows(["maps"])))
        drawn = watcher._images.indices[int(row.path.rpartition("-")[2])]
        maps = exporter.compute_maps(
            model, items[drawn][0][None], maps=["gradcam"], layers=["block.0"]
        )
        mine = run.map(row.id, "gradcam", "block.0")
        expected = maps["gradcam", "block.0"][0].numpy()
        np.testing.assert_allclose(mine, expected, atol=np.ptp(expected) / 65000)


def steps_of(log: Path) -> dict[str, list[int]]:
    """Return the steps of each tag."""
    steps: dict[str, list[int]] = {}
    for file in sorted(log.rglob("*tfevents*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                steps.setdefault(value.tag, []).append(event.step)
    return steps


def test_tensorboard_has_a_step_per_epoch_and_the_metrics(watched: Path) -> None:
    steps = steps_of(watched / "tensorboard")
    assert steps["given/loss"] == [0, 1, 2]
    sliders = [own for tag, own in steps.items() if tag.startswith("montage/")]
    assert sliders == [[0, 1, 2]] * 4


def test_the_comparison_reads_epochs_as_steps(watched: Path) -> None:
    comparison = exporter.open_comparison(watched / "comparison")
    told = comparison.contents
    assert [run.step for run in told.runs] == [0, 1, 2]
    assert [run.metrics for run in told.runs] == [{"loss": 1 / (1 + epoch)} for epoch in range(3)]
    assert told.runs[0].accuracy is not None  # labels are numbers, and classes are called so
    page = (watched / "comparison/html/index.html").read_text()
    assert ">dead channels</text>" in page
    assert ">agreement</text>" in page
    assert "Loss, given" in (watched / "comparison/html/runs.html").read_text()


def test_what_the_guide_says_of_a_page_is_on_it(watched: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs/training.md").read_text()
    said = re.findall(r"`runs/baseline/(comparison/html/\S+)` \| (.*) \|", guide)
    assert len(said) == 2
    for page, words in said:
        slider = 'data-control="viewer-slider"' in (watched / page).read_text()
        assert slider == ("slider over the epochs" in words), page


def test_the_command_compares_a_training_at_any_time(watched: Path, tmp_path: Path) -> None:
    compare = ["compare", str(watched), "--out", str(tmp_path / "cmp"), "--writer", "html"]
    assert main(compare) == 0
    assert len(exporter.open_comparison(tmp_path / "cmp").contents.runs) == 3


def test_check_and_tensorboard_take_the_folder(
    watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _log(watched) == watched / "tensorboard"
    assert main(["check", str(watched)]) == 0
    assert "is intact: 3 epochs" in capsys.readouterr().out
    copy = shutil.copytree(watched, tmp_path / "copy")
    shard = copy / "epochs/00001/shards/00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["check", str(copy)]) == 2
    assert "epochs/00001: " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["render", "sync", "finish"])
def test_a_command_that_takes_one_run_names_an_epoch(
    watched: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, str(watched)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is a training, and each of its epochs a run; give one, such as" in said
    assert "epochs/00002" in said
    assert "exporter compare" in said


def test_a_killed_training_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    model, out = Net(), tmp_path / "run"
    Watcher(data(), out=out, **SETTINGS).step(model, 0)
    (out / "epochs/00001").mkdir()
    (out / "epochs/00001/plan.json").write_text("{")  # half an epoch
    assert list(exporter.open_run(out).epochs) == [0]
    watcher = Watcher(data(), out=out, **SETTINGS)
    run = watcher.step(model, 1)
    assert run is not None
    assert list(run.epochs) == [0, 1]
    with pytest.raises(ExporterError, match="was watched on other images"):
        Watcher(data(), out=out, **SETTINGS | {"seed": 1})


@pytest.mark.parametrize(("moment", "marked"), [("export", []), ("Watcher._note", [(1, "failed")])])
def test_an_epoch_that_a_kill_has_cut_is_marked_and_leaves_nothing(
    tmp_path: Path, moment: str, marked: list[tuple[int, str]]
) -> None:
    """Killed before the first epoch is explained, and after the second one is, but not noted."""
    out, settings = tmp_path / "run", SETTINGS | {"limit": 2}
    watcher = Watcher(data(), out=out, **settings)
    if marked:
        watcher.step(Net(), 0)
    child = os.fork()
    if child == 0:
        kill = mock.Mock(side_effect=lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        with mock.patch(f"exporter.training.watcher.{moment}", kill):
            watcher.step(Net(), len(marked))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (out / ".training.json.0.tmp").write_text("{")
    again = Watcher(data(), out=out, **settings)
    assert not list(out.rglob("*.tmp"))
    run = again.step(Net(), 2)
    assert run is not None
    assert list(run.epochs) == ([0, 2] if marked else [2])
    told = json.loads((out / "training.json").read_text())["epochs"]
    assert [(e["epoch"], e["state"]) for e in told if e["state"] != "explained"] == marked
    assert main(["check", str(out)]) == 0


def test_two_trainings_do_not_explain_into_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    Watcher(data(), out=out, **SETTINGS)
    (out / "epochs/00000").mkdir(parents=True)
    held = RunLock(out / "epochs/00000")
    with pytest.raises(ExporterError, match=r"another process is writing the run .*00000"):
        Watcher(data(), out=out, **SETTINGS)
    held.release()


class Bright(nn.Module):
    """Two resolutions; where the bias of the second is low, no image excites it."""

    def __init__(self, name: str = "first") -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Conv2d(3, 4, 3, 2))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 2), nn.ReLU())
        self.head = nn.Linear(4, 3)

    def excite(self, bias: float) -> Bright:
        nn.init.constant_(self.second[0].bias, bias)  # type: ignore[arg-type]
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.get_submodule(self.name)(x)).mean((2, 3)))


@pytest.mark.slow
def test_the_layers_of_the_first_epoch_are_explained_at_all(tmp_path: Path) -> None:
    auto = {"layers": ["auto"], "activations": ["auto"]}
    settings, out = SETTINGS | auto, tmp_path / "run"
    with Watcher(data(), out=out, **settings) as watcher:
        watcher.step(Bright().excite(9), 0)
        watcher.step(Bright().excite(-9), 1)
    # The same in a training that was killed and goes on.
    again = Watcher(data(), out=out, **settings)
    run = again.step(Bright().excite(-9), 2)
    assert run is not None
    for epoch in run.epochs.values():
        assert epoch.plan.explained == epoch.plan.recorded == ("first", "second")
    # Where a layer is gone, that is said, and what is chosen then stays.
    with pytest.warns(TrainingWarning, match="epoch 3: .* has no layer 'first'.*auto") as said:
        again.step(Bright("entry").excite(9), 3)
        again.step(Bright("entry").excite(-9), 4)
    assert len(said) == 1
    assert [run.epochs[n].plan.explained for n in (3, 4)] == [("entry", "second")] * 2


@pytest.mark.parametrize(
    ("file", "held"),
    [("epochs/00000", "a run"), ("comparison", "a comparison"), ("tensorboard", "other files")],
)
def test_a_folder_that_holds_something_else_is_left_to_its_owner(
    file: str, held: str, watched: Path
) -> None:
    before = sorted(watched.rglob("*"))
    with pytest.raises(ExporterError, match=f"holds {held}, and no training; give another") as said:
        Watcher(data(), out=watched / file, **SETTINGS)
    assert "remove" not in str(said.value)
    assert sorted(watched.rglob("*")) == before


class Fails(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            raise ValueError("no evaluation today")
        return super().forward(x)


def test_a_failure_is_one_warning_and_the_training_goes_on(tmp_path: Path) -> None:
    model = Fails()
    before = state(model)
    with Watcher(data(), out=tmp_path / "run", **SETTINGS) as watcher:
        with pytest.warns(TrainingWarning, match="epoch 3 is not explained: .*no evaluation today"):
            assert watcher.step(model, 3) is None
        assert str(state(model)) == str(before)
        assert watcher.step(Net(), 4) is not None
    told = json.loads((tmp_path / "run/training.json").read_text())
    assert [(e["epoch"], e["state"]) for e in told["epochs"]] == [(3, "failed"), (4, "explained")]
    assert "no evaluation today" in told["epochs"][0]["why"]


def test_a_method_that_does_not_fit_the_model_is_one_warning(tmp_path: Path) -> None:
    pytest.importorskip("captum")

    class Twice(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.block[2](self.block(x)).mean((2, 3)))

    own = SETTINGS | {"maps": ["captum:DeepLift"], "limit": 1}
    watcher = Watcher(data(), out=tmp_path / "run", **own)
    with pytest.warns(TrainingWarning, match="epoch 0 is not explained: captum's DeepLift failed"):
        assert watcher.step(Twice(), 0) is None


def test_no_space_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(data(), out=tmp_path / "run", **SETTINGS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.warns(TrainingWarning, match="epoch 0 is not explained: there is no space left"):
        assert watcher.step(Net(), 0) is None


def test_where_memory_runs_out_fewer_images_are_explained_together_and_it_is_said_once(
    tmp_path: Path,
) -> None:
    class Large(Net):
        sizes: list[int] = []  # noqa: RUF012

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    model, watcher = Large(), Watcher(data(), out=tmp_path / "run", **SETTINGS)
    with pytest.warns(TrainingWarning, match="^memory ran out; from now on 2 images are") as warned:
        runs = [watcher.step(model, epoch) for epoch in range(2)]
    assert len(warned) == 1
    assert all(run is not None and run.complete for run in runs)
    first = model.sizes.index(4)
    assert 4 not in model.sizes[first + 1 :]


def test_what_wraps_a_model_is_taken_off(tmp_path: Path) -> None:
    watcher = Watcher(data(), out=tmp_path / "run", **SETTINGS)
    for epoch, model in enumerate([torch.compile(Net(), dynamic=False), AveragedModel(Net())]):
        run = watcher.step(model, epoch)
        assert run is not None
        assert run.plan.model.name == "Net"


@pytest.mark.parametrize("epoch", [-1, 1.5, True, "one", None])
def test_an_epoch_that_is_no_number_is_one_warning(epoch: Any, watcher: Watcher) -> None:
    with pytest.warns(TrainingWarning, match="give its number, from 0"):
        assert watcher.step(Net(), epoch) is None


def test_a_model_that_is_none_is_one_warning(watcher: Watcher) -> None:
    with pytest.warns(TrainingWarning, match="give a torch.nn.Module"):
        assert watcher.step("resnet50", 0) is None  # type: ignore[arg-type]


def test_a_metric_beyond_floats_is_one_warning(watcher: Watcher) -> None:
    with pytest.warns(TrainingWarning, match="no finite number are left out, such as tokens"):
        assert watcher.step(Net(), 0, tokens=10**400, loss=1) is not None


@pytest.fixture
def watcher(tmp_path: Path) -> Watcher:
    return Watcher(data(), out=tmp_path / "run", **SETTINGS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"every": 0}, "every is 0; give the number of epochs between two, from 1"),
        ({"limit": 0}, "limit is 0; give a number of images from 1"),
        ({"images": DataLoader(data())}, "give its data set, .dataset"),
        ({"summary_writer": "logs"}, "is not a SummaryWriter"),
        ({"wandb_run": 3}, "is not the id of a W&B run"),
        ({"maps": ["gradcom"]}, "gradcam"),
        ({"step": 3}, "'step' is not a setting of a Watcher"),
        ({"budget": "lots"}, "give a share of the training's time"),
        ({"colour": "red"}, "there is no setting 'colour'"),
    ],
)
def test_wrong_settings_are_one_sentence(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ExporterError, match=said):
        Watcher(**({"images": data(), "out": tmp_path / "run"} | SETTINGS | given))


def test_epochs_between_are_left_alone(tmp_path: Path) -> None:
    watcher = Watcher(data(), out=tmp_path / "run", **SETTINGS | {"every": 2})
    runs = [watcher.step(Net(), epoch) for epoch in range(3)]
    assert [run is not None for run in runs] == [True, False, True]


def test_epochs_beyond_the_budget_are_left_out_and_it_is_said_once(tmp_path: Path) -> None:
    watcher = Watcher(data(), out=tmp_path / "run", **SETTINGS | {"budget": "0.001 %"})
    assert watcher.step(Net(), 0) is not None
    with pytest.warns(TrainingWarning, match="epochs are left out to keep the budget") as warned:
        assert watcher.step(Net(), 1) is None
        assert watcher.step(Net(), 2) is None
    assert len(warned) == 1
    told = json.loads((tmp_path / "run/training.json").read_text())
    assert [epoch["state"] for epoch in told["epochs"]] == ["explained", "left out", "left out"]


def test_fewer_images_are_explained_where_all_would_cost_too_much(tmp_path: Path) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    watcher = Watcher(data(), out=tmp_path / "run", **SETTINGS | {"limit": 12, "budget": "10 %"})
    watcher._budget = budget = Budget("10 %", clock)
    explained: dict[int, set[str]] = {}
    with pytest.warns(TrainingWarning) as warned:
        for epoch in range(5):
            clock.now += 100
            run = watcher.step(Net(), epoch)
            if run is not None:
                explained[epoch] = {entry.id for entry in run.plan.images}
                # As if each image took two seconds.
                budget.last = 2.0 * len(explained[epoch])
                budget.spent += budget.last
                clock.now += budget.last
    # 24 s of 10 s that an epoch may cost: 5 images; with them the next that fits is at 400 s.
    assert {epoch: len(ids) for epoch, ids in explained.items()} == {0: 12, 3: 5, 4: 5}
    assert explained[3] == explained[4]
    assert explained[3] < explained[0]
    said = [str(warning.message) for warning in warned]
    assert said[0].startswith("from now on fewer images are explained, 5 of 24: at random with")
    assert said[1].startswith("epochs are left out to keep the budget")
    assert len(said) == 2


def test_nothing_of_the_model_is_held_afterwards(watcher: Watcher) -> None:
    model = Net()
    watcher.step(model, 0)
    gc.collect()
    before = sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
    watcher.step(model, 1)
    gc.collect()
    assert sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()) <= before


@pytest.mark.slow
def test_a_writer_and_a_wandb_run_of_the_callers_are_added_to_and_stay_open(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    log = SummaryWriter(tmp_path / "log")
    quiet = wandb.Settings(silent=True, console="off", x_disable_meta=True)
    with wandb.init(mode="offline", dir=tmp_path, settings=quiet) as mine:
        own = SETTINGS | {"summary_writer": log, "wandb_run": mine, "limit": 2}
        watcher = Watcher(data(), out=tmp_path / "run", **own)
        for epoch in range(2):
            watcher.step(Net(), epoch, loss=0.5 - epoch / 4)
        log.add_scalar("still", 1)
        mine.log({"still": 1})
    assert not (tmp_path / "run/tensorboard").exists()
    assert steps_of(tmp_path / "log")["given/loss"] == [0, 1]
    written = records(tmp_path / "wandb")
    over = {r.metric.glob_name: r.metric.step_metric for r in written if r.HasField("metric")}
    assert over["exporter/*"] == "exporter/step"
    told = history(tmp_path / "wandb")
    watched = [row for row in told if "exporter/step" in row]
    assert [row["exporter/step"] for row in watched] == [0, 1]
    assert [row["exporter/given/loss"] for row in watched] == [0.5, 0.25]
    assert watched[0].keys() == watched[1].keys()
    assert told[-1]["still"] == 1


PARALLEL = """
import sys
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from exporter import Watcher
from tests.training.test_watcher import SETTINGS, Net, data

distributed.init_process_group("gloo")
rank = distributed.get_rank()
watcher = Watcher(data(), out=sys.argv[1], **SETTINGS)

def trained(watch):
    torch.manual_seed(rank)
    model = DistributedDataParallel(Net())
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(2):
        for x, y in torch.utils.data.DataLoader(data(), 6):
            nn.functional.cross_entropy(model(x[rank::2]), y[rank::2]).backward()
            optimiser.step()
            optimiser.zero_grad()
        if watch:
            assert (watcher.step(model, epoch) is None) == (rank == 1)
    return [value.tolist() for value in model.module.state_dict().values()]

assert trained(False) == trained(True) != []
if rank:  # alone, with nobody to wait for
    assert watcher.step(Net(), 7) is None
watcher.close()
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_one_of_two_processes_explains_and_the_training_stays_equal(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PARALLEL)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(tmp_path / "train.py"), str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, *command, *script],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert list(exporter.open_run(tmp_path / "run").epochs) == [0, 1]
