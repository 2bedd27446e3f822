from __future__ import annotations

import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from exporter.errors import ModelError
from exporter.models import resolve


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(11)
    return torchvision.models.squeezenet1_1(weights=None, num_classes=7)


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


def prefixed(state: Any, prefix: str) -> Any:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model_state_dict": state},
        lambda state: prefixed(state, "module."),
        lambda state: {"state_dict": prefixed(state, "model.")},
        lambda state: prefixed(state, "module._orig_mod."),
        lambda state: {"state_dict": prefixed(state, "net."), "epoch": 3},
        lambda state: {**prefixed(state, "backbone.encoder."), "epoch": 3},
        lambda state: {"module": state, "dp_world_size": 1},
        lambda state: {"model": state, "opt": {"state": {}}},
        lambda state: {"state_dict_ema": state, "arch": "squeezenet1_1"},
        lambda state: {"state_dict": state, "metric": np.float64(0.7), "best": np.int64(3)},
        lambda state: {"weights": state, "epoch": 3},
        lambda state: {"teacher": prefixed(state, "backbone."), "step": torch.tensor(3)},
        lambda state: {"best_state": {k: v * 0 for k, v in state.items()}, "state_dict": state},
        lambda state: {"params_ema": prefixed(state, "x."), "params": state},
        lambda state: {"ema": prefixed(state, "module."), "args": Namespace(lr=0.1, out=Path("x"))},
    ],
)
def test_state_dicts_are_found_wherever_they_usually_are(
    tmp_path: Path, trained: nn.Module, wrap: Any
) -> None:
    file = tmp_path / "last.pth"
    torch.save(wrap(trained.state_dict()), file)
    resolved = resolve("squeezenet1_1", checkpoint=file)
    assert same(trained, resolved.module)
    assert resolved.record.checkpoint == "last.pth"
    assert resolved.record.weights.startswith("checkpoint ")
    assert resolved.record.classes == ()  # seven outputs are not ImageNet's thousand


@pytest.mark.parametrize(
    ("beside", "step"),
    [
        ({"epoch": 3}, (3, "epoch")),
        ({"epoch": 3, "global_step": torch.tensor(1200)}, (1200, "global_step")),
        ({"iteration": np.int64(40)}, (40, "iteration")),
        ({"epoch": "best", "step": True, "iter": -1}, (None, "")),
        ({}, (None, "")),
    ],
)
def test_a_checkpoint_says_how_far_it_was_trained(
    tmp_path: Path, trained: nn.Module, beside: Any, step: Any
) -> None:
    file = tmp_path / "last.pth"
    torch.save({"state_dict": trained.state_dict(), **beside}, file)
    record = resolve("squeezenet1_1", checkpoint=file).record
    assert (record.step, record.step_key) == step


def _lightning(state: Any) -> Any:
    loss = {"criterion.pos_weight": torch.ones(7)}
    return {"state_dict": prefixed(state, "model.") | loss, "epoch": 3}, "criterion.pos_weight"


def _averaged(state: Any) -> Any:
    return prefixed(state, "module.") | {"n_averaged": torch.tensor(9)}, "n_averaged"


def _both(state: Any) -> Any:
    other = {key: value + 1 for key, value in state.items()}
    return {"state_dict": state, "state_dict_ema": other}, "all under 'state_dict_ema'"


def _counted(state: Any) -> Any:
    return {**state, "epoch": torch.tensor(3)}, "epoch"


def _averaged_beside(state: Any) -> Any:
    averaged = {f"ema_model.{key}": value + 1 for key, value in state.items()}
    return {"state_dict": averaged | prefixed(state, "model.")}, "ema_model.features.0.weight"


@pytest.mark.parametrize("wrap", [_lightning, _averaged, _both, _counted, _averaged_beside])
def test_what_is_no_part_of_the_model_is_left_out_and_said(
    tmp_path: Path, trained: nn.Module, wrap: Any
) -> None:
    content, left = wrap(trained.state_dict())
    torch.save(content, tmp_path / "last.ckpt")
    resolved = resolve("squeezenet1_1", checkpoint=tmp_path / "last.ckpt")
    assert same(trained, resolved.module)
    (note,) = resolved.notes
    assert f"left out: {left}" in note


def test_a_checkpoint_that_holds_the_model_twice_is_refused(
    tmp_path: Path, trained: nn.Module
) -> None:
    state = trained.state_dict()
    twice = prefixed(state, "student.") | prefixed(state, "teacher.")
    torch.save({"state_dict": twice}, tmp_path / "twice.pt")
    refused(tmp_path / "twice.pt", r"holds the model 2 times, under 'student\.' and 'teacher\.'")
    torch.save({"student": prefixed(state, "net."), "teacher": state}, tmp_path / "both.pt")
    refused(
        tmp_path / "both.pt", r"holds the model 2 times, under 'student\.net\.' and 'teacher\.'"
    )


@pytest.mark.slow
def test_a_deeper_network_is_not_cut_down_to_the_model(tmp_path: Path) -> None:
    state = torchvision.models.resnet34(weights=None).state_dict()
    torch.save({"state_dict": prefixed(state, "model.")}, tmp_path / "deeper.pt")
    with pytest.raises(ModelError, match=r"does not fit ResNet: unexpected layer1\.2\.conv1"):
        resolve("resnet18", checkpoint=tmp_path / "deeper.pt")


def test_safetensors_and_its_hash_are_read(tmp_path: Path, trained: nn.Module) -> None:
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(trained.state_dict(), file)
    save_file({k: v + 1 for k, v in trained.state_dict().items()}, other)
    resolved = resolve("squeezenet1_1", checkpoint=file)
    assert same(trained, resolved.module)
    assert resolved.record.weights != resolve("squeezenet1_1", checkpoint=other).record.weights


def test_a_checkpoint_with_all_classes_keeps_their_names(tmp_path: Path) -> None:
    file = tmp_path / "all.pt"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    assert len(resolve("squeezenet1_1", checkpoint=file).record.classes) == 1000


def test_old_files_may_lack_batchnorm_counters(tmp_path: Path) -> None:
    module = torchvision.models.shufflenet_v2_x0_5(weights=None)
    state = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pt")
    assert same(module, resolve("shufflenet_v2_x0_5", checkpoint=tmp_path / "old.pt").module)


@pytest.mark.slow
def test_auxiliary_heads_may_be_missing_or_too_many(tmp_path: Path) -> None:
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save({**state, "aux_classifier.0.weight": torch.zeros(1)}, tmp_path / "more.pt")
    assert resolve("squeezenet1_1", checkpoint=tmp_path / "more.pt").record.classes
    module = torchvision.models.googlenet(
        weights=None, aux_logits=False, init_weights=False, num_classes=3
    )
    torch.save(module.state_dict(), tmp_path / "less.pt")
    resolved = resolve("googlenet", checkpoint=tmp_path / "less.pt")
    assert resolved.module.fc.out_features == 3
    assert torch.equal(resolved.module.fc.weight, module.fc.weight)


@pytest.mark.slow
def test_old_densenet_keys_are_understood(tmp_path: Path) -> None:
    module = torchvision.models.densenet121(weights=None)
    state = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for key, value in module.state_dict().items()
    }
    assert any(".norm.1." in key for key in state)
    torch.save(state, tmp_path / "old.pt")
    assert same(module, resolve("densenet121", checkpoint=tmp_path / "old.pt").module)


def refused(file: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        resolve("squeezenet1_1", checkpoint=file)
    assert "\n" not in str(caught.value)
    assert file.name in str(caught.value)


@pytest.mark.slow
def test_what_does_not_fit_is_named(tmp_path: Path, trained: nn.Module) -> None:
    state = trained.state_dict()
    broken = {key: value for key, value in state.items() if key != "features.0.weight"}
    broken |= {"head.weight": torch.zeros(2), "features.0.bias": torch.zeros(3)}
    torch.save(broken, tmp_path / "broken.pt")
    refused(
        tmp_path / "broken.pt",
        r"missing features.0.weight; unexpected head.weight; shapes: features.0.bias is \(3,\) in "
        r"the file and \(64,\) in the model",
    )
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), tmp_path / "alexnet.pt")
    refused(tmp_path / "alexnet.pt", r"does not fit SqueezeNet: missing .* and \d+ more")


class Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def test_code_in_a_pickle_is_never_run(
    tmp_path: Path, trained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": trained.state_dict(), "hook": Payload()}, tmp_path / "evil.pt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps({"hook": Payload()}, 2))
    (tmp_path / "evil4.pt").write_bytes(pickle.dumps({"hook": Payload()}, 4))
    torch.save(trained, tmp_path / "whole.pt")
    for name in ("evil.pt", "evil2.pt", "whole.pt"):
        refused(tmp_path / name, r"holds Python code or objects \(\S+\), which are not loaded")
    refused(tmp_path / "evil4.pt", "not a file of tensors that torch.save wrote")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("these are not weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 half a zip")
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "epoch.pt")
    refused(tmp_path / "text.safetensors", "cannot be read")
    for name in ("text.pt", "empty.pt", "cut.pt"):
        refused(tmp_path / name, "is damaged, or not a file of tensors")
    refused(tmp_path / "epoch.pt", "holds no state dict, .* it has epoch, loss")
    refused(tmp_path / "absent.pt", "there is no checkpoint")
