"""Hugging Face's own Trainer on a small task, watched and alone."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import exporter
from exporter.cli import main
from exporter.store import check
from tests.training.test_watcher import SETTINGS, data

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from exporter.integrations.transformers import MapsCallback  # noqa: E402


class Labelled(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = data()[index]
        return {"pixel_values": image, "labels": label}


def trained(folder: Path, *callbacks: Any) -> Any:
    transformers.set_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3
    )
    model = transformers.ResNetForImageClassification(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        logging_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    own = list(callbacks)
    transformers.Trainer(model, arguments, train_dataset=Labelled(), callbacks=own).train()
    return model


@pytest.mark.slow
def test_a_trainer_trains_bit_for_bit_and_every_epoch_is_a_run(tmp_path: Path) -> None:
    alone = trained(tmp_path / "alone")
    settings = SETTINGS | {"layers": ["auto"]}
    model = trained(tmp_path / "watched", MapsCallback(data(), **settings))
    assert all(
        torch.equal(a, b)
        for a, b in zip(alone.state_dict().values(), model.state_dict().values(), strict=True)
    )
    runs = exporter.open_run(tmp_path / "watched/maps").epochs
    assert list(runs) == [0, 1]
    assert (tmp_path / "watched/maps/comparison/html/index.html").exists()
    assert exporter.open_comparison(tmp_path / "watched/maps/comparison").contents.runs[1].metrics


@pytest.mark.slow
def test_after_an_exception_the_epochs_so_far_are_compared(tmp_path: Path) -> None:
    class Fails(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.epoch == 2:
                raise KeyError("out of luck")

    callback: Any = MapsCallback(data(), **SETTINGS | {"layers": ["auto"]})
    written = tmp_path / "run/maps/comparison/html/index.html"
    with pytest.raises(KeyError):
        trained(tmp_path / "run", callback, Fails())
    assert list(exporter.open_run(tmp_path / "run/maps").epochs) == [0, 1]
    assert not written.exists()
    del callback
    gc.collect()
    assert written.exists()


ENDS = """
import sys
from pathlib import Path
from tests.integrations.test_transformers import SETTINGS, MapsCallback, data, trained, transformers

class Ends(transformers.TrainerCallback):
    def on_epoch_end(self, args, state, control, **_):
        if state.epoch == 2:
            raise KeyError("out of luck")

callback = MapsCallback(data(), **SETTINGS | {"layers": ["auto"]})
trained(Path(sys.argv[1]), callback, Ends())
"""


@pytest.mark.slow
def test_a_program_that_ends_in_its_training_leaves_whole_epochs_compared(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "KeyError: 'out of luck'")
    assert "TrainingWarning" not in done.stderr
    assert "Exception ignored" not in done.stderr
    out = tmp_path / "maps"
    runs = exporter.open_run(out).epochs
    assert list(runs) == [0, 1]
    assert all(check(run.path) == () for run in runs.values())
    comparison = exporter.open_comparison(out / "comparison")
    assert [run.step for run in comparison.contents.runs] == [0, 1]
    assert main(["check", str(out / "comparison")]) == 0
    assert (out / "comparison/html/index.html").exists()
