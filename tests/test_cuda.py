"""The whole job on a CUDA card: the same maps and rows as on the CPU, whatever happens there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import exporter
from benchmarks.photographs import make_photographs
from exporter.config import build_config
from exporter.engines import Computed, Recipe, local
from exporter.errors import ExporterError
from exporter.maps import METHODS
from exporter.planning import bind
from exporter.watch import Watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
DRAWS_ON_THE_DEVICE = {"smoothgrad"}
"""One seed gives other numbers on a card than on the CPU."""


class Convolutions(nn.Sequential):
    """Two convolutions, average pooling and one linear layer: every method but attention fits."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3, 2),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 7),
        )  # fmt: skip


def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(64, 16, 3, 4, 32, 64, num_classes=7)
    nn.init.normal_(model.heads.head.weight)  # torchvision begins with a head of zeros
    return model


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Compute in full float32: TF32 is a format of its own, with its own rounding."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in DRAWS_ON_THE_DEVICE])
def test_every_method_gives_the_cpus_maps(name: str) -> None:
    compared = 0
    for model, layers in ((Convolutions(), ["4"]), (transformer(), ["encoder.layers.*_1"])):
        try:
            expected = exporter.compute_maps(model, images(), maps=[name], layers=layers)
        except ExporterError:
            continue  # attention needs a transformer, cam a pooled plane
        found = exporter.compute_maps(model.cuda(), images(), maps=[name], layers=layers)
        assert found.keys() == expected.keys()
        for key, maps in expected.items():
            assert found[key].is_cuda
            spread = float(maps.max() - maps.min())
            # HiResCAM of a transformer's block adds up to rounding alone: 1e-7.
            assert float((found[key].cpu() - maps).abs().max()) <= 1e-4 * spread + 1e-6
            compared += 1
    assert compared


def test_a_run_on_the_card_equals_one_on_the_cpu(tmp_path: Path) -> None:
    runs = {
        device: exporter.export(
            Convolutions().to(device),
            PHOTOS,
            out=tmp_path / device,
            maps=("gradcam", "layercam", "eigencam"),
            layers=("1", "4"),
            device=device,
            batch_size=4,
            writers=(),
            preprocessing={"size": 64},
        )
        for device in ("cpu", "cuda")
    }
    rows = zip(runs["cpu"].rows(), runs["cuda"].rows(), strict=True)
    for here, there in rows:
        assert (here.id, len(here.maps)) == (there.id, len(there.maps))
        assert [p.index for p in here.predictions] == [p.index for p in there.predictions]
        for left, right in zip(here.maps, there.maps, strict=True):
            assert (left.method, left.layer, left.target) == (
                right.method,
                right.layer,
                right.target,
            )
            spread = max(left.hi - left.lo, 1e-12)
            assert np.abs(left.array() - right.array()).max() <= 2e-4 * spread


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    """A few hundred MB are left of the card: 13 images of 512 pixels do not fit at once."""
    wide = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    wide.cuda()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2.5e9 / total)
    try:
        run = exporter.export(
            wide, PHOTOS, out=tmp_path / "run", maps=("gradcam",), layers=("1", "3"), device="cuda",
            batch_size=13, writers=(), preprocessing={"size": 512},
        )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert all(row.maps and row.error is None for row in run.rows())


def test_two_models_share_a_card() -> None:
    models = [Convolutions().cuda(), transformer().cuda()]
    layers = [["4"], ["encoder.layers.encoder_layer_0"]]

    def explain(which: int, times: int) -> list[Tensor]:
        wanted = {"maps": ["gradcam"], "layers": layers[which]}
        maps = [exporter.compute_maps(models[which], images(), **wanted) for _ in range(times)]
        return [next(iter(of_a_call.values())).cpu() for of_a_call in maps]

    alone = [explain(which, 1)[0] for which in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(explain, (0, 1), (8, 8)))
    for expected, maps_of_calls in zip(alone, together, strict=True):
        for maps in maps_of_calls:
            torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


def test_a_run_waits_for_nothing_but_the_rows_of_batches_before(tmp_path: Path) -> None:
    config = build_config(
        model="convolutions", images=str(PHOTOS), out=tmp_path / "run", layers=("1", "4"),
        maps=("gradcam", "layercam"), batch_size=2, workers=2, preprocessing={"size": 64},
    )  # fmt: skip
    taken: list[Computed] = []
    with bind(Recipe(config, module=Convolutions().cuda())) as job:
        local.run(job, [0], lambda _index, parts: taken.extend(parts), Watch())
        pinned = torch.cuda.host_memory_stats()["num_host_alloc"]
        torch.cuda.set_sync_debug_mode("error")
        try:
            local.run(job, [0], lambda _index, parts: taken.extend(parts), Watch())
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.cuda.host_memory_stats()["num_host_alloc"] <= pinned + 2
    rows = [row for part in taken for row in part.rows]
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_16_bits_is_near_float32(precision: str, tmp_path: Path) -> None:
    run = exporter.export(
        Convolutions().cuda(), PHOTOS, out=tmp_path / "run", maps=("gradcam", "saliency"),
        layers=("1", "4"), batch_size=4, writers=(), preprocessing={"size": 64},
        precision=precision,
    )  # fmt: skip
    record = run.plan.precision
    assert record is not None
    assert 0 < record.median <= record.largest < 0.05


def test_the_batch_size_is_what_fits(tmp_path: Path) -> None:
    run = exporter.export(
        Convolutions().cuda(), PHOTOS, out=tmp_path / "run", maps=("gradcam",), layers=("4",),
        batch_size="auto", writers=(), preprocessing={"size": 64},
    )  # fmt: skip
    assert run.plan.settings["batch_size"] == 16
    assert run.plan.notes[-1] == "the batch size 16 was found by trying: no shard has more"


def test_a_compiled_run_has_the_maps_of_a_plain_one(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {
        "maps": ("gradcam", "eigencam"), "layers": ("1", "4"), "batch_size": 4, "writers": (),
        "preprocessing": {"size": 64},
    }  # fmt: skip
    model = Convolutions().cuda()
    plain = exporter.export(model, PHOTOS, out=tmp_path / "plain", **wanted)
    quick = exporter.export(model, PHOTOS, out=tmp_path / "quick", compile=True, **wanted)
    for before, after in zip(plain.rows(), quick.rows(), strict=True):
        for old, new in zip(before.maps, after.maps, strict=True):
            spread = max(old.hi - old.lo, 1e-12)
            assert np.abs(old.array() - new.array()).max() <= 1e-3 * spread


def test_rounding_to_tf32_is_not_taken_for_a_batch_that_mixes_its_images(tmp_path: Path) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    config = build_config(
        model="resnet50", images=str(PHOTOS), out=tmp_path / "run", device="cuda", maps=("gradcam",)
    )
    model = torchvision.models.resnet50().cuda().eval()
    with bind(Recipe(config, module=model)) as job:
        assert job.plan.findings is not None
        assert job.plan.findings.alone is True
        assert job.plan.execution["products"] == "TF32"
        assert any("NVIDIA_TF32_OVERRIDE=0" in note for note in job.plan.notes)
    assert torch.backends.cudnn.allow_tf32


def test_two_processes_on_one_card_make_the_run_of_one(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "maps": ("gradcam", "layercam"), "layers": ("layer3", "layer4"), "device": "cuda",
        "weights": "none", "batch_size": 8, "shard_size": 8, "writers": (),
    }  # fmt: skip
    make_photographs(tmp_path / "images", 1200)
    runs = [
        exporter.export(
            "torchvision:resnet18", tmp_path / "images", out=tmp_path / str(count), processes=count,
            **settings,
        )
        for count in (2, 1)
    ]  # fmt: skip
    for here, there in zip(runs[0].rows(), runs[1].rows(), strict=True):
        assert here.predictions[0].index == there.predictions[0].index
        for left, right in zip(here.maps, there.maps, strict=True):
            spread = max(left.hi - left.lo, 1e-12)
            # Some of cuDNN's backward kernels add in an order that differs from run to run.
            assert np.abs(left.array() - right.array()).max() <= 1e-4 * spread
