"""The chain from Python: a module and images of one's own, and what the run says of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import exporter
from exporter.describe import describe_layers
from exporter.errors import ConfigError, ImageSetError, RunError, TargetError
from exporter.records import MAP_LEVELS


class Small(nn.Module):
    """Two convolutions and a classifier whose first class follows the red channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(inputs).mean((2, 3))))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of ten photographs, two of them with the same contents."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index in range(9):
        cv2.imwrite(str(folder / f"{index}.jpg"), noise.integers(0, 255, (40, 48, 3)))
    (folder / "same as 0.jpg").write_bytes((folder / "0.jpg").read_bytes())
    return folder


SETTINGS: dict[str, object] = {
    "writers": (),
    "preprocessing": {"size": 32},
    "layers": ("features",),
}


def test_the_stored_maps_are_those_of_compute_maps(photos: Path, tmp_path: Path) -> None:
    model = Small()
    run = exporter.export(
        model, photos, out=tmp_path / "run", maps=("gradcam", "hirescam"), batch_size=4, **SETTINGS
    )
    image_set = exporter.images.open_images(photos)
    preprocessing = run.plan.model.preprocessing
    views = np.stack([image_set.load(entry, preprocessing).view for entry in image_set.entries])
    inputs = exporter.images.normalise(torch.from_numpy(views), preprocessing)
    maps = exporter.compute_maps(model, inputs, maps=("gradcam", "hirescam"), layers=("features",))
    for n, row in enumerate(run.rows()):
        for method in ("gradcam", "hirescam"):
            expected = maps[method, "features"][n].numpy()
            stored = run.map(row.id, method, "features")
            span = expected.max() - expected.min()
            np.testing.assert_allclose(stored, expected, atol=2e-5 * span)


def test_the_model_is_left_as_it_was_found(photos: Path, tmp_path: Path) -> None:
    model = Small().train()
    model.features[0].eval()
    model.head.weight.requires_grad_(False)
    model.head.bias.grad = torch.ones(4)
    modes = [module.training for module in model.modules()]
    strides = [parameter.stride() for parameter in model.parameters()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    random = torch.get_rng_state()
    threads = torch.get_num_threads()
    exporter.export(model, photos, out=tmp_path / "run", **SETTINGS)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert not model.head.weight.requires_grad
    assert model.head.bias.requires_grad
    assert torch.equal(model.head.bias.grad, torch.ones(4))
    assert model.features[0].weight.grad is None
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_repeated_contents_share_a_key_and_not_an_id(photos: Path, tmp_path: Path) -> None:
    rows = list(exporter.export(Small(), photos, out=tmp_path / "run", **SETTINGS).rows())
    first, last = rows[0], next(row for row in rows if row.path == "same as 0.jpg")
    assert first.key == last.key == first.id
    assert last.id == f"{first.key}-2"
    assert first.maps == last.maps


@pytest.mark.slow
def test_any_cut_into_shards_gives_the_same_rows_and_statistics(
    photos: Path, tmp_path: Path
) -> None:
    runs = [
        exporter.export(
            Small(), photos, out=tmp_path / str(size), shard_size=size, batch_size=1, **SETTINGS
        )
        for size in (2, 3, 256)
    ]
    assert len({tuple(run.rows()) for run in runs}) == 1
    assert len({run.channels() for run in runs}) == 1


def test_a_run_goes_on_with_smaller_batches(photos: Path, tmp_path: Path) -> None:
    def run(out: str, batch_size: int, **more: object) -> exporter.store.Run:
        return exporter.export(
            Small(), photos, out=tmp_path / out, shard_size=4, batch_size=batch_size,
            **SETTINGS, **more,
        )  # fmt: skip

    whole, cut = run("whole", 4), run("cut", 4)
    before = list(cut.rows())
    (cut.path / "shards" / "00001.parquet").unlink()
    resumed = list(run("cut", 1, resume=True).rows())
    assert resumed[:4] == before[:4]
    assert [row.id for row in resumed] == [row.id for row in whole.rows()]
    for ours, theirs in zip(resumed, whole.rows(), strict=True):
        for one, other in zip(ours.maps, theirs.maps, strict=True):
            span = other.hi - other.lo
            assert abs(one.lo - other.lo) <= 1e-6 * span
            assert abs(one.hi - other.hi) <= 1e-6 * span
            # Two values that are equal to 1e-6 may be rounded to neighbouring levels.
            assert np.abs(one.array() - other.array()).max() <= span * (1e-6 + 1 / MAP_LEVELS)


def test_statistics_are_those_of_the_activations(photos: Path, tmp_path: Path) -> None:
    model = Small().eval()
    run = exporter.export(model, photos, out=tmp_path / "run", **SETTINGS)
    image_set = exporter.images.open_images(photos)
    preprocessing = run.plan.model.preprocessing
    views = np.stack([image_set.load(entry, preprocessing).view for entry in image_set.entries])
    with torch.no_grad():
        seen = model.features(exporter.images.normalise(torch.from_numpy(views), preprocessing))
    ids = [row.id for row in run.rows()]
    for row in run.channels("features"):
        values = seen[:, row.channel]
        assert row.images == 10
        assert row.mean == pytest.approx(values.mean().item(), rel=1e-5, abs=1e-7)
        assert row.maximum == pytest.approx(values.max().item(), rel=1e-5)
        assert row.sparsity == pytest.approx((values == 0).float().mean().item(), abs=1e-6)
        assert row.dead == bool((values == 0).all())
        if not row.dead:
            best = values.amax((1, 2)).max()
            assert values[ids.index(row.top[0])].max() == best


class Poisoned(Small):
    """A model whose output is not a number for very bright images."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        bright = (inputs.mean((1, 2, 3)) > 1.5)[:, None]
        return super().forward(inputs).masked_fill(bright, float("nan"))


def test_an_output_that_is_not_a_number_is_said_and_the_others_go_on(
    photos: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(photos / "bright.jpg"), np.full((40, 40, 3), 255, np.uint8))
    run = exporter.export(Poisoned(), photos, out=tmp_path / "run", **SETTINGS)
    rows = {row.path: row for row in run.rows()}
    assert "not a number" in (rows["bright.jpg"].error or "")
    assert rows["bright.jpg"].maps == ()
    assert all(row.maps and not row.error for path, row in rows.items() if path != "bright.jpg")
    assert run.totals is not None
    assert [path for path, _ in run.totals.skipped] == ["bright.jpg"]
    assert all(row.images == 10 and np.isfinite(row.mean) for row in run.channels())


class Tensors(torch.utils.data.Dataset):
    """Model-ready tensors with labels, in a data set of one's own."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index)), index % 2


def test_a_data_set_of_tensors_is_taken_as_it_is(tmp_path: Path) -> None:
    model = Small()
    run = exporter.export(model, Tensors(), out=tmp_path / "run", maps=("gradcam",), **SETTINGS)
    inputs = torch.stack([Tensors()[index][0] for index in range(5)])
    maps = exporter.compute_maps(model, inputs, maps=("gradcam",), layers=("features",))
    for n, row in enumerate(run.rows()):
        expected = maps["gradcam", "features"][n].numpy()
        stored = run.map(row.id, "gradcam", "features")
        np.testing.assert_allclose(stored, expected, atol=2e-5 * np.ptp(expected))


def test_a_model_of_one_channel_works_by_its_normalisation_alone(
    photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    run = exporter.export(
        model,
        photos,
        out=tmp_path / "run",
        writers=(),
        layers=("1",),
        maps=("gradcam",),
        preprocessing={"size": 32, "mean": (0.25,), "std": (0.5,)},
    )
    row = next(run.rows())
    grey = cv2.imdecode(np.frombuffer(row.image or b"", np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (32, 32)
    entry = run.plan.images[0]
    view = exporter.images.open_images(photos).load(entry, run.plan.model.preprocessing).view
    inputs = torch.from_numpy((view[None, :, :, 0].astype(np.float32) / 255 - 0.25) / 0.5)
    expected = exporter.compute_maps(model, inputs[None], maps=("gradcam",), layers=("1",))
    stored = run.map(row.id, "gradcam", "1")
    wanted = expected["gradcam", "1"][0].numpy()
    np.testing.assert_allclose(stored, wanted, atol=2e-5 * np.ptp(wanted))


def test_labels_that_are_classes_are_counted_and_others_are_only_text(
    photos: Path, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("ant\nbee\ncat\ndog\n")
    for index in range(9):
        folder = photos / ("bee" if index % 2 else "umbrella")
        folder.mkdir(exist_ok=True)
        (photos / f"{index}.jpg").rename(folder / f"{index}.jpg")
    (photos / "same as 0.jpg").unlink()
    (tmp_path / "small_model.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))\n"
    )
    run = exporter.export(
        f"{tmp_path / 'small_model.py'}:build",
        photos,
        out=tmp_path / "run",
        classes=classes,
        writers=(),
        preprocessing={"size": 32},
        layers=("1",),
    )
    for row in run.rows():
        if row.label == "bee":
            assert row.label_index == 1
            assert row.correct == (row.predictions[0].index == 1)
            scores = {p.index: p.score for p in row.predictions}
            assert row.loss == pytest.approx(-np.log(scores[1]), rel=1e-4)
        else:
            assert (row.label, row.label_index, row.correct, row.loss) == (
                "umbrella",
                None,
                None,
                None,
            )
    assert run.totals is not None
    assert run.totals.labelled == 4


def test_a_device_that_the_model_is_not_on_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the model is on 'cpu'.*'meta'"):
        exporter.export(Small(), photos, out=tmp_path / "run", device="meta", **SETTINGS)


def test_a_set_without_one_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"")
    with pytest.raises(ImageSetError, match=r"no image of .* can be read"):
        exporter.export(Small(), tmp_path / "photos", out=tmp_path / "run", **SETTINGS)


def test_another_models_weights_are_not_mixed_into_a_run(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    exporter.export(Small(), photos, out=out, shard_size=5, **SETTINGS)
    (out / "shards/00001.parquet").unlink()
    other = Small()
    with torch.no_grad():
        other.head.bias += 1
    with pytest.raises(RunError, match="weights was"):
        exporter.export(other, photos, out=out, shard_size=5, resume=True, **SETTINGS)
    run = exporter.export(Small(), photos, out=out, shard_size=5, resume=True, **SETTINGS)
    assert run.complete


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_other_types_take_inputs_of_theirs(
    photos: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    run = exporter.export(Small().to(dtype), photos, out=tmp_path / "run", **SETTINGS)
    assert run.plan.execution["dtype"] == str(dtype).removeprefix("torch.")
    single = exporter.export(Small(), photos, out=tmp_path / "single", **SETTINGS)
    for row, other in zip(run.rows(), single.rows(), strict=True):
        assert row.predictions[0].score == pytest.approx(other.predictions[0].score, abs=0.01)


def test_a_device_without_memory_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no device 'meta' here; choose auto or one of cpu"):
        exporter.export(
            "resnet18", photos, out=tmp_path / "run", weights="none", device="meta", **SETTINGS
        )


def test_more_classes_than_the_model_has_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="asks for 99 classes and the model has 4"):
        exporter.export(Small(), photos, out=tmp_path / "run", target="top-99", **SETTINGS)


def test_labels_that_are_not_known_are_told(photos: Path, tmp_path: Path) -> None:
    run = exporter.export(Small(), photos, out=tmp_path / "run", target="label", **SETTINGS)
    assert any(note.startswith("10 of 10 images have no known label") for note in run.plan.notes)


def test_a_taken_folder_is_refused_before_the_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="is not empty and is not a run"):
        exporter.export(Small(), tmp_path / "nothing", out=tmp_path, **SETTINGS)


def test_a_map_that_its_relu_leaves_nothing_of_is_flagged_with_the_reason(
    photos: Path, tmp_path: Path
) -> None:
    from exporter.console import flagged_lines

    model = Small()
    nn.init.constant_(model.head.weight, -1.0)
    run = exporter.export(
        model, photos, out=tmp_path / "run", maps=("gradcam", "eigencam"), **SETTINGS
    )
    flags = {(one.method, one.flags) for row in run.rows() for one in row.maps}
    assert ("gradcam", "negative") in flags
    assert ("eigencam", "negative") not in flags
    assert run.totals is not None
    assert run.totals.flagged == {"gradcam features negative": 10}
    assert flagged_lines(run.totals.flagged) == [
        "gradcam features: 10 (every value is negative, so the method's ReLU leaves nothing)"
    ]


def test_layers_of_a_model_in_half_precision_are_described(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).bfloat16()\n"
    )
    found = describe_layers(f"{tmp_path / 'half.py'}:build")
    assert [layer["type"] for layer in found["layers"]] == ["Conv2d", "ReLU"]
    assert found["explained"] == ["1"]


def test_a_model_of_13_channels_runs_over_files_of_13_bands(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 4001, (3, 13, 32, 32), dtype=np.uint16)
    folder = tmp_path / "scenes"
    folder.mkdir()
    for index, bands in enumerate(values):
        tifffile.imwrite(folder / f"{index}.tif", bands, planarconfig="separate")
    cv2.imwrite(str(folder / "photo.png"), np.zeros((32, 32, 3), np.uint8))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(13, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    run = exporter.export(
        model,
        folder,
        out=tmp_path / "run",
        maps=("gradcam",),
        layers=("1",),
        writers=(),
        preprocessing={"size": 32, "resize": 0, "bands": [4, 3, 2], "range": [0, 4000]},
    )
    assert "shown: bands 4, 3, 2 from 0 to 4000" in run.plan.notes
    inputs = torch.from_numpy(values.astype(np.float32) / 4000)
    scores = model(inputs).softmax(1).detach()
    maps = exporter.compute_maps(model, inputs, maps=("gradcam",), layers=("1",))
    *rows, photo = sorted(run.rows(), key=lambda row: row.path != "photo.png", reverse=True)
    assert photo.error == (
        "the picture has 3 bands and the model takes 13 channels; give pictures of as many bands"
    )
    for n, row in enumerate(rows):
        assert row.predictions[0].score == pytest.approx(float(scores[n].max()), abs=1e-6)
        expected = maps["gradcam", "1"][n].numpy()
        stored = run.map(row.id, "gradcam", "1")
        np.testing.assert_allclose(stored, expected, atol=2e-5 * np.ptp(expected))
