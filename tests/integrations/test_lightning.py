"""Lightning's own trainer on a small task, watched and alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import exporter
from exporter.training.watcher import TrainingWarning
from tests.training.test_watcher import SETTINGS, Net, data, steps_of

lightning = pytest.importorskip("pytorch_lightning")
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

from exporter.integrations.lightning import MapsCallback  # noqa: E402


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("epoch", 7.0)
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(folder: Path, *callbacks: Any, logger: Any = None) -> Module:
    lightning.seed_everything(0, verbose=False)
    module, loader = Module(), DataLoader(data(), 8)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        default_root_dir=folder,
        logger=TensorBoardLogger(folder, version=0) if logger is None else logger,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, loader, loader)
    if logger is None:
        trainer.logger.experiment.add_scalar("open", 1)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_trainer_fits_bit_for_bit_and_its_logger_has_the_maps(tmp_path: Path) -> None:
    alone = fitted(tmp_path / "alone")
    settings = SETTINGS | {"layers": ["net.block.0"]}
    module = fitted(tmp_path / "watched", MapsCallback(data(), **settings))
    assert all(
        torch.equal(a, b)
        for a, b in zip(alone.state_dict().values(), module.state_dict().values(), strict=True)
    )
    log = tmp_path / "watched/lightning_logs/version_0"
    maps = tmp_path / "watched/maps/version_0"
    assert list(exporter.open_run(maps).epochs) == [0, 1]
    assert (maps / "comparison/html/index.html").exists()
    steps = steps_of(log / "Module")
    assert steps["given/val loss"] == [0, 1]
    assert [own for tag, own in steps.items() if tag.startswith("montage/")] == [[0, 1]] * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_part_of_the_module_is_explained(tmp_path: Path) -> None:
    callback = MapsCallback(data(), model=lambda module: module.net, out=tmp_path / "m", **SETTINGS)
    fitted(tmp_path, callback)
    assert exporter.open_run(tmp_path / "m").plan.model.name == "Net"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["CSVLogger", None])
def test_a_logger_of_another_kind_is_said_and_the_maps_have_a_log_of_their_own(
    tmp_path: Path, kind: str | None
) -> None:
    logger = CSVLogger(tmp_path / "csv") if kind else False
    callback = MapsCallback(data(), out=tmp_path / "m", **SETTINGS | {"layers": ["net.block.0"]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(tmp_path, callback, logger=logger)
    told = [str(each.message) for each in caught if each.category is TrainingWarning]
    assert [said.partition(" takes no maps; ")[0] for said in told] == (
        [f"the trainer's {kind}"] if kind else []
    )
    assert steps_of(tmp_path / "m/tensorboard")["given/val loss"] == [0, 1]
