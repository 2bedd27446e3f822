"""The model randomised stage by stage, and what the maps say of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

import exporter
from exporter import Run
from exporter.capture import guest
from exporter.errors import ModelError
from exporter.faithfulness.randomisation import cascade, drawn, stages_of
from exporter.layers import run_trial
from exporter.records import MethodSanity
from exporter.store import check
from exporter.summaries.sanity import overall, unmoved
from exporter.writers.scalars import method_scalars
from exporter.writers.wandb.rows import methods

SIDE = 16
STAGES = ["10", "6", "3", "0"]
METHODS = ("gradcam", "cam", "guidedbackprop", "saliency")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A network that tells digits, and images that it has not seen."""
    digits = load_digits()
    images = [cv2.resize(np.uint8(image * 15), (SIDE, SIDE)) for image in digits.images]
    folder = tmp_path_factory.mktemp("digits")
    for number, image in enumerate(images[:12]):
        cv2.imwrite(str(folder / f"{number:02d}.png"), image)
    model = network()
    inputs = (torch.from_numpy(np.stack(images))[12:, None].float() / 255 - 0.5) / 0.5
    labels = torch.from_numpy(digits.target[12:]).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(4):
        for batch in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimiser.step()
    with torch.no_grad():
        assert (model(inputs).argmax(1) == labels).float().mean() > 0.8
    return model.eval(), folder


def export(model: nn.Module, images: Path, out: Path, **settings: object) -> Run:
    return exporter.export(
        model, images, out=out, maps=METHODS, live=False,
        preprocessing={"size": SIDE, "resize": SIDE, "mean": (0.5,), "std": (0.5,)},
        **{"writers": (), "sanity": True, "batch_size": 4, "layers": ["1", "7"], **settings},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(trained: tuple[nn.Module, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    model, images = trained
    before = [value.clone() for value in model.state_dict().values()]
    made = export(
        model, images, tmp_path_factory.mktemp("run") / "run", shard_size=8, writers=("html",)
    )
    after = model.state_dict().values()
    assert all(torch.equal(value, own) for value, own in zip(before, after, strict=True))
    return made


def test_stages_are_those_of_auto_and_what_is_behind_them() -> None:
    model = network()
    stages = stages_of(run_trial(model, torch.rand(1, 1, SIDE, SIDE)))
    assert list(stages) == STAGES
    assert stages["10"] == ("10.weight", "10.bias")


def test_a_parameter_whose_module_is_not_called_is_of_the_one_around_it() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale[:, None, None] + self.unused.bias[0]

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), Own(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    stages = stages_of(run_trial(model, torch.rand(1, 3, 8, 8)))
    assert stages == {
        "4": ("4.weight", "4.bias"),
        "0 to 1.unused": (
            "0.weight", "0.bias", "1.scale", "1.unused.weight", "1.unused.bias",
        ),
    }  # fmt: skip


def test_values_have_the_trained_mean_and_spread_and_depend_on_the_seed() -> None:
    model = nn.Linear(200, 200)
    stages = {"all": ("weight", "bias")}
    (((weight, other), _),) = drawn(model, stages, seed=3)
    assert weight is model.weight
    assert float(other.std()) == pytest.approx(float(weight.detach().std()), rel=0.02)
    assert torch.equal(other, drawn(model, stages, seed=3)[0][0][1])
    assert not torch.equal(other, drawn(model, stages, seed=4)[0][0][1])
    assert abs(float(torch.corrcoef(torch.stack((other, weight.detach())).flatten(1))[0, 1])) < 0.02


def test_each_step_randomises_a_stage_more_and_an_error_puts_all_back() -> None:
    model, inputs = network(), torch.rand(1, 1, SIDE, SIDE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = drawn(model, stages_of(run_trial(model, inputs)), seed=0)
    changed = []
    with pytest.raises(ZeroDivisionError), cascade(model, values) as steps:
        model(inputs)
        for step in steps:
            now = model.state_dict().items()
            changed.append(sorted(k for k, v in now if not torch.equal(v, before[k])))
            if step == 3:
                model(inputs)
                assert changed[2] == [
                    f"{n}.{part}" for n in ("10", "3", "6") for part in ("bias", "weight")
                ]
                1 / 0  # noqa: B018
    assert [len(names) for names in changed] == [2, 4, 6]
    now = model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in now.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_guided_backprop_hardly_moves_and_is_the_one_that_is_marked(run: Run) -> None:
    rows = run.sanity()
    assert [row.randomised for row in rows if row.method == "gradcam"] == STAGES
    means = overall(rows)
    assert means["guidedbackprop"][0] > 0.6
    assert abs(means["gradcam"][0] or 0) < 0.3
    assert unmoved(rows) == ("guidedbackprop",)
    page = (run.path / "html/methods.html").read_text(encoding="utf-8")
    assert page.count("hardly moves</span>") == 2  # of both tables
    assert "<b>Guided backpropagation</b> hardly moves: such maps say" in page
    overview = (run.path / "html/index.html").read_text(encoding="utf-8")
    assert "The maps of Guided backpropagation hardly change as the model is randomised" in overview
    (spearman,) = (
        value for name, value, _ in method_scalars(run)["gradcam"]
        if name == "sanity rank correlation"
    )  # fmt: skip
    assert spearman == means["gradcam"][0]
    columns = {name: value for name, _, value in methods(run)}
    of = {(row.method, row.layer): columns["sanity ssim"](row) for row in run.methods()}
    assert of["guidedbackprop", ""] == means["guidedbackprop"][1]
    assert of["gradcam", "1"] is None


@pytest.mark.slow
def test_a_value_is_the_correlation_with_the_map_of_the_model_with_another_head(
    run: Run, trained: tuple[nn.Module, Path]
) -> None:
    model, images = trained
    stages = {"10": ("10.weight", "10.bias")}
    other = network()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter, value in drawn(other, stages, seed=0)[0]:
            parameter.copy_(value)
    known = {(row.id, row.method, row.step): row for row in run.image_sanity()}
    moved = 0
    for row in run.rows():
        picture = cv2.imread(str(images / Path(row.path).name), cv2.IMREAD_GRAYSCALE)
        inputs = (torch.from_numpy(picture)[None, None].float() / 255 - 0.5) / 0.5
        index = row.predictions[0].index
        moved += int(other(inputs).argmax()) != index
        for method in ("gradcam", "cam"):
            maps = [
                exporter.compute_maps(m, inputs, maps=[method], layers=["7"], targets=[index])[
                    method, "7"
                ].flatten()
                for m in (model, other)
            ]
            expected = spearmanr(*maps).statistic
            value = known[row.id, method, 1].spearman
            # 16 cells of 16 bits: a tie of two moves the correlation by up to a hundredth or two.
            assert value == pytest.approx(expected, abs=3e-2), (row.path, method)
    assert moved > 6  # the class is the trained model's, not the one that is predicted now


@pytest.mark.slow
def test_means_are_those_of_the_images_and_a_shard_computed_again_is_the_same(
    run: Run, trained: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    images = list(run.image_sanity())
    assert len(images) == 12 * len(METHODS) * len(STAGES)
    for row in run.sanity():
        mine = [i for i in images if (i.method, i.step) == (row.method, row.step)]
        known = [i.ssim for i in mine if i.ssim is not None]
        assert row.ssim == pytest.approx(np.mean(known), abs=1e-9)
        assert row.images == sum(i.spearman is not None for i in mine) > 0
        assert row.layer == ("7" if row.method in ("gradcam", "cam") else "")
    assert check(run.path) == ()

    again = tmp_path / "again"
    shutil.copytree(run.path, again)
    (again / "shards/00001.parquet").unlink()
    (again / "run.json").unlink()
    export(*trained, again, shard_size=8, resume=True)
    assert check(again) == ()
    for name in ("summaries/00001-sanity.parquet", "set/sanity.parquet"):
        assert pq.read_table(again / name).equals(pq.read_table(run.path / name))


def test_the_last_step_is_not_in_the_mean_where_there_are_others() -> None:
    def rows(*values: float | None) -> list[MethodSanity]:
        return [MethodSanity("m", "7", n, "", 1, v, v) for n, v in enumerate(values, 1)]

    assert overall(rows(0.8, 0.4, -1.0)) == {"m": (pytest.approx(0.6), pytest.approx(0.6))}
    assert unmoved(rows(0.8, 0.4, -1.0)) == ("m",)
    assert unmoved(rows(0.8, 0.1, 1.0)) == ()
    assert overall(rows(0.8)) == {"m": (0.8, 0.8)}
    assert unmoved(rows(None, None, None)) == ()


class Writing(nn.Module):
    """A network that writes to a parameter whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.inner[0].bias.add_(1e-3)
        return self.inner(x)


@pytest.mark.slow
def test_a_model_that_writes_to_its_parameters_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(
        str(tmp_path / "grey.png"), np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, -1)
    )
    with pytest.raises(ModelError, match=r"its own parameters .* leave out sanity=True"):
        export(Writing(), tmp_path / "grey.png", tmp_path / "run", layers=["auto"])


@pytest.fixture
def broken(trained: tuple[nn.Module, Path]) -> Iterator[nn.Module]:
    """The trained network, which fails once its head is not the trained one."""
    model, _ = trained
    head = model[10].weight.detach().clone()

    def fail(module: nn.Module, *_: object) -> None:
        if not torch.equal(module.weight, head):
            raise ValueError("not the head that I know")

    handle = model[10].register_forward_hook(fail)
    yield model
    handle.remove()


def test_a_parameter_that_cannot_be_written_leaves_the_others_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.PReLU())
    model[1].weight = nn.Parameter(torch.ones(1).expand(2))
    trained = model[0].weight.detach().clone()
    values = drawn(model, {"all": ("0.weight", "1.weight")}, seed=0)
    with guest(model):  # which learns that it need not copy the parameters
        model(torch.rand(1, 2))
    with pytest.raises(RuntimeError, match="single memory location"), cascade(model, values) as it:
        list(it)
    assert torch.equal(model[0].weight, trained)


@pytest.mark.slow
def test_a_model_that_fails_when_it_is_randomised_gets_its_weights_back(
    broken: nn.Module, trained: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in broken.state_dict().items()}
    with pytest.raises(ModelError, match="not the head that I know"):
        export(broken, trained[1], tmp_path / "run")
    now = broken.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in now.items())
