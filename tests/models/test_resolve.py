from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import exporter
from exporter.config import PreprocessingConfig
from exporter.errors import ModelError
from exporter.models import adopt, check_classes, resolve

FACTORY = """
import functools
import torch
from torch import nn
from neighbour import WIDTH

class Net(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)

def build():
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.Flatten())

def pick(weights="plain"):
    net = Net()
    net.note = weights
    return net

ready = Net(2)
not_a_model = lambda: 42

def broken():
    raise RuntimeError("no such file:\\nweights.bin")

def needy(classes, width, depth=3, *more, **others):
    return Net()

strange = functools.partial(lambda: Net(), 4)
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 5\n")
    file = tmp_path / "my models.py"
    file.write_text(FACTORY)
    return file


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fail on every look-up of an address, as a machine without a network does, and hide caches."""

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "resnet18"])
def test_torchvision_models_come_by_name(spec: str, no_network: None) -> None:
    resolved = resolve(spec, weights="none")
    assert type(resolved.module) is torchvision.models.ResNet
    assert not resolved.module.training
    record = resolved.record
    assert (record.name, record.spec, record.weights) == ("resnet18", spec, "none")
    assert record.classes[281] == "tabby"
    assert record.preprocessing.resize == 256
    assert record.parameters == 11_689_512


def test_random_weights_are_the_seeds_and_leave_the_random_state(no_network: None) -> None:
    before = torch.get_rng_state()
    one, two = (resolve("squeezenet1_1", weights="none", seed=4).module for _ in range(2))
    other = resolve("squeezenet1_1", weights="none", seed=5).module
    assert torch.equal(torch.get_rng_state(), before)
    weight = [m.features[0].weight for m in (one, two, other)]
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])


def test_weights_are_called_random_only_where_they_are_known_to_be(
    factory: Path, tmp_path: Path, no_network: None
) -> None:
    bare = resolve("squeezenet1_1", weights="none")
    assert bare.record.random
    torch.save(bare.module.state_dict(), tmp_path / "c.pt")
    read = resolve("squeezenet1_1", weights="none", checkpoint=tmp_path / "c.pt")
    own = resolve(f"{factory}:build", weights="none")  # it may load some itself
    assert not any(each.record.random for each in (read, own, adopt(bare.module)))


def test_segmentation_without_weights_needs_no_network(no_network: None) -> None:
    record = resolve("lraspp_mobilenet_v3_large", weights="none").record
    assert record.classes[0] == "__background__"
    assert record.preprocessing.size == (520, 520)


@pytest.mark.parametrize("spec", ["resnet18", "timm:resnet18"])
def test_weights_that_cannot_be_had_say_what_to_do(spec: str, no_network: None) -> None:
    with pytest.raises(ModelError, match=r"could not be loaded") as caught:
        resolve(spec)
    assert "use --weights none or --checkpoint FILE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_never_fetches_the_default_weights(no_network: None, tmp_path: Path) -> None:
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save(state, tmp_path / "c.pt")
    assert resolve("squeezenet1_1", checkpoint=tmp_path / "c.pt").record.checkpoint == "c.pt"


@pytest.mark.slow
def test_named_weights_bring_their_transforms(no_network: None, tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "c.pt")
    for name, resize in (("IMAGENET1K_V1", 256), ("ResNet50_Weights.IMAGENET1K_V2", 232)):
        resolved = resolve("resnet50", weights=name, checkpoint=tmp_path / "c.pt")
        assert resolved.record.preprocessing.resize == resize


@pytest.mark.slow
def test_timm_models_come_by_name() -> None:
    record = resolve("timm:tf_efficientnet_lite0", weights="none").record
    assert (record.name, record.weights) == ("tf_efficientnet_lite0", "none")
    assert record.preprocessing.mean == (0.5, 0.5, 0.5)
    assert record.classes[967] == "espresso"
    other = resolve("timm:convnext_nano.in12k", weights="none").record
    assert len(other.classes) == 11821


def test_factories_come_from_files(factory: Path) -> None:
    resolved = resolve(f"{factory}:build")
    assert resolved.record.name == "build"
    assert resolved.module[0].out_channels == 5
    assert resolved.record.preprocessing.source.startswith("default")
    assert resolve(f"{factory}:ready").record.preprocessing.channels == 1
    assert resolve(f"{factory}:Net").module.conv.out_channels == 5
    assert resolve(f"{factory}:pick", weights="mine").module.note == "mine"
    one, two = (resolve(f"{factory}:Net", seed=2).module.conv.weight for _ in range(2))
    assert torch.equal(one, two)


def test_factories_come_from_modules_also_of_the_working_folder(
    factory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(factory.parent)
    (factory.parent / "exporter_test_nets.py").write_text(FACTORY)
    assert resolve("exporter_test_nets:Net").module.conv.out_channels == 5
    module = resolve("torchvision.models:squeezenet1_1").module
    assert type(module) is torchvision.models.SqueezeNet


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("resnet51", {}, "torchvision has no model 'resnet51'; did you mean 'resnet50'"),
        ("timm:resnt18", {}, "timm has no model 'resnt18'; did you mean 'resnet18'"),
        ("timm:resnet18", {"weights": "in22k"}, "resnet18 has no weights 'in22k'; "),
        ("resnet18", {"weights": "IMAGENET1K_V9"}, "did you mean 'IMAGENET1K_V1'"),
        ("demo", {"weights": "V2"}, "'demo' has no weights 'V2'"),
        ("r3d_18", {"weights": "none"}, "not one photograph at a time"),
        ("", {}, "the model '' is incomplete"),
        ("timm:", {}, "the model 'timm:' is incomplete"),
        ("nets.py", {}, "write nets.py:FACTORY"),
        ("nowhere/nets.py:build", {}, "there is no file 'nowhere/nets.py'"),
        (
            "NEAR:build",
            {},
            r"there is no file '.*/my modles.py' .*; did you mean '.*/my models.py'",
        ),
        ("no_such_package.nets:build", {}, "there is no module 'no_such_package'"),
        ("torchvision.models:resnet51", {}, "has no factory 'resnet51'; did you mean"),
        ("FILE:zzzzz", {}, "has no factory 'zzzzz'; choose one of (?!.*(torch|nn,))"),
        (
            "FILE:broken",
            {},
            r"failed: RuntimeError: no such file: weights.bin \(my models.py, line \d+\); fix it ",
        ),
        ("FILE:needy", {}, r"the factory '.*:needy' needs 'classes', 'width', and is called with"),
        (
            "FILE:strange",
            {},
            r"failed: TypeError: [^(]*\(\) takes 0 pos[^()]*; fix it and try again$",
        ),
        ("FILE:not_a_model", {}, "gave an int, not a torch.nn.Module"),
        ("FILE:build", {"weights": "V1"}, "takes no weights, so it cannot give 'V1'"),
    ],
)
def test_what_cannot_be_resolved_is_one_sentence(
    factory: Path, spec: str, options: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        near = str(factory.with_name("my modles.py"))
        resolve(spec.replace("FILE", str(factory)).replace("NEAR", near), **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text("import no_such_package\n")
    with pytest.raises(ModelError, match="cannot be run: ModuleNotFoundError"):
        resolve(f"{file}:build")


def test_class_names_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"class {i}" for i in range(1000)))
    record = resolve("squeezenet1_1", weights="none", classes=tmp_path / "names.txt").record
    assert record.classes[999] == "class 999"
    check_classes(record.classes, 1000)
    with pytest.raises(ModelError, match="1000 class names and the model gives 10 values"):
        check_classes(record.classes, 10)


def test_settings_override_the_preprocessing() -> None:
    config = PreprocessingConfig(size=64)
    found = resolve("squeezenet1_1", weights="none", preprocessing=config).record.preprocessing
    assert (found.size, found.resize) == ((64, 64), 73)


def test_an_adopted_model_is_left_untouched() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout()).train()
    resolved = adopt(module, name=None, preprocessing=PreprocessingConfig(), classes=["a", "b"])
    assert resolved.module is module
    assert module.training
    assert (resolved.record.name, resolved.record.classes) == ("Sequential", ("a", "b"))
    assert resolved.record.parameters == 8


class Learner:
    """What holds a model, as a pipeline of transformers or a learner of fastai does."""

    model = nn.Conv2d(3, 2, 1)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18", "a str; give a torch.nn.Module$"),
        (nn.Conv2d(3, 2, 1).state_dict(), "an OrderedDict; give a torch.nn.Module$"),
        (nn.Conv2d(3, 2, 1).forward, "a method; give a torch.nn.Module$"),
        ((nn.Conv2d(3, 2, 1), None), "a tuple; give a torch.nn.Module$"),
        (nn.Conv2d, "a type; give a torch.nn.Module$"),
        (Learner(), "a Learner; give a torch.nn.Module, which its attribute 'model' is$"),
    ],
)
def test_what_is_no_module_is_named(model: Any, said: str) -> None:
    with pytest.raises(ModelError, match=f"^the model is {said}"):
        adopt(model)
    with pytest.raises(ModelError, match=f"^the model is {said}"):
        exporter.compute_maps(model, torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_the_module_inside_a_wrapper_is_taken_and_said(wrap: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    resolved = adopt(wrap(module))
    assert resolved.module is module
    assert resolved.record.name == "Sequential"
    assert resolved.notes[0].startswith("what runs is the Sequential inside the ")


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Sequential(nn.LazyConv2d(2, 1)), "0.weight"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.LazyBatchNorm2d()), "1.weight"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), "1.weight"),
        (nn.DataParallel(nn.ModuleDict({"head": nn.LazyConvTranspose2d(2, 1)})), "head.weight"),
    ],
)
def test_a_lazy_model_is_refused_in_one_sentence(module: nn.Module, named: str) -> None:
    said = rf"'{named}' has no shape yet \(a lazy layer\); run the model once before"
    with pytest.raises(ModelError, match=said):
        adopt(module)
    for method in ("gradcam", "eigencam", "saliency"):
        with pytest.raises(ModelError, match=said):
            exporter.compute_maps(module, torch.rand(1, 3, 8, 8), maps=[method])
