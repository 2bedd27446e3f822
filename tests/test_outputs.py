"""Whole runs of models that are no classifiers, from the command to the report."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import exporter
from exporter.cli import main
from exporter.errors import MapError, ModelError, TargetError
from exporter.store import Run, check, open_run

MODELS = """
import torch
from torch import nn

def features():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
    )

class Head(nn.Module):
    def __init__(self, outputs, plane=False):
        super().__init__()
        self.features = features()
        self.head = nn.Conv2d(8, outputs, 1)
        self.plane = plane

    def forward(self, x):
        planes = self.head(self.features(x))
        if self.plane:
            return {"out": nn.functional.interpolate(planes, x.shape[-2:]), "aux": planes}
        return planes.mean((2, 3))

def segmenter():
    return Head(4, plane=True)

def masker():
    return Head(1, plane=True)

def classifier():
    return Head(4)

def regressor():
    return Head(1)

class Detector(nn.Module):
    '''A box per class whose score is above one half; an image that is dark has none.'''
    def __init__(self):
        super().__init__()
        self.net = Head(3)

    def forward(self, x):
        found = []
        for image, logits in zip(x, self.net(x)):
            scores, labels = logits.sigmoid().sort(descending=True)
            keep = (image.mean() > 0.2) & (scores > 0.1)
            boxes = (labels + 1)[:, None] * torch.tensor([4.0, 2.0, 8.0, 6.0])
            found.append({"boxes": boxes[keep], "labels": labels[keep] + 1, "scores": scores[keep]})
        return found

def detector():
    return Detector()

def energy(output):
    return output.square().sum(1)
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with models, four photographs (the last one black) and a list with masks."""
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "run.toml").write_text(
        "[preprocessing]\nsize = 32\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n"
    )
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(4):
        pixels = noise.integers(0, 255 if index < 3 else 1, (40, 40, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"photos/{index}.png"), pixels)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:20] = 255
    cv2.imwrite(str(tmp_path / "photos/mask.png"), mask)
    with (tmp_path / "photos/list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "mask"])
        rows.writerows(
            [[f"{index}.png", "", "mask.png" if index < 2 else ""] for index in range(4)]
        )
    return tmp_path


def run(work: Path, model: str, target: str, *more: str) -> Run:
    code = main(
        [
            "run",
            "--model",
            f"{work / 'models.py'}:{model}",
            "--images",
            str(work / "photos/list.csv"),
            "--out",
            str(work / "run"),
            "--config",
            str(work / "run.toml"),
            "--writer",
            "html",
            "--map",
            "gradcam",
            "--target",
            target,
            "--batch-size",
            "3",
            *more,
        ]
    )
    assert code == 0
    assert check(work / "run") == ()
    assert (work / "run/html/index.html").exists()
    return open_run(work / "run")


def targets(run: Run) -> list[list[str]]:
    layer = run.plan.explained[-1]
    return [[one.target for one in row.maps if one.layer == layer] for row in run.rows()]


def test_a_segmentation_runs_with_no_configuration(work: Path) -> None:
    made = run(work, "segmenter", "predicted")
    for row in made.rows():
        assert row.error is None
        assert sum(one.score for one in row.predictions) == pytest.approx(1)
        first = row.predictions[0]
        assert {one.target for one in row.maps} == {f"class:{first.index}"}
        assert row.correct is None
    assert any("--output names another (aux)" in note for note in made.plan.notes)
    assert any("mean logit over the region" in note for note in made.plan.notes)
    assert (made.plan.model.output, made.plan.model.outputs) == ("out", 4)
    assert made.plan.model.scores == "share"
    page = (made.path / "html/list/00000.html").read_text("utf-8")
    assert "Predictions, share of the area" in page
    assert "probability" not in page


def test_a_given_mask_decides_where_a_segmentation_is_explained(work: Path) -> None:
    """The stored maps are those of the mean logit inside the mask, resized as the image is."""
    made = run(work, "segmenter", "mask:2", "--layer", "features.3")
    from exporter.images import normalise, open_images

    images = open_images(work / "photos/list.csv")
    steps = made.plan.model.preprocessing
    entries = images.entries
    views = torch.from_numpy(np.stack([images.load(entry, steps).view for entry in entries]))
    mask = images.load_mask(entries[0], steps)
    assert mask is not None
    assert mask.shape == (32, 32)
    assert set(np.unique(mask)) == {0, 1}
    given = [[r for r in row.regions if r.target == "given"] for row in made.rows()]
    assert [len(regions) for regions in given] == [1, 1, 0, 0]
    # One is asked at the centres of cells, the other is resized as the photograph is.
    assert (given[0][0].array() != (mask == 1)).mean() < 0.06
    namespace: dict[str, object] = {}
    exec(MODELS, namespace)
    model = namespace["segmenter"]()  # type: ignore[operator]
    inside = torch.from_numpy(mask).bool()
    maps = exporter.compute_maps(
        model,
        normalise(views, steps)[:2],
        maps=["gradcam"],
        layers=["features.3"],
        targets=[lambda planes: planes[2][inside].mean()] * 2,
    )
    with torch.no_grad():
        predicted = model(normalise(views, steps))["out"].argmax(1) == 2
    for row, region in zip(made.rows(), predicted, strict=True):
        # What is stored is where the class is predicted, whatever mask is given.
        assert row.regions[0].target == "class:2"
        assert np.array_equal(row.regions[0].array(), region.numpy())
    assert predicted[:2].any()
    overlaps = [one.region_overlap for one in made.measures()]
    cells = torch.from_numpy(given[0][0].array())
    common, either = (predicted[:2] & cells).sum((1, 2)), (predicted[:2] | cells).sum((1, 2))
    assert overlaps == [*map(pytest.approx, (common / either).tolist()), None, None]
    table = (made.path / "html/classes.html").read_text("utf-8").partition("Predicted regions")[2]
    told = re.search(r'<th scope="row">(.*?)</th><td>(\d+)</td><td>([\d.]+)</td>', table)
    assert told
    assert told.groups()[:2] == ("2", "2")
    assert float(told[3]) == pytest.approx(float((common / either).mean()), abs=1e-3)
    for n, row in enumerate(list(made.rows())[:2]):
        expected = maps["gradcam", "features.3"][n].numpy()
        np.testing.assert_allclose(
            made.map(row.id, "gradcam", "features.3"), expected, atol=1e-4 * np.ptp(expected)
        )


def test_a_sigmoid_mask_is_called_mask(work: Path) -> None:
    made = run(work, "masker", "predicted", "--layer", "features.3")
    assert targets(made) == [["mask"]] * 4


def test_boxes_have_maps_each_and_images_without_boxes_none(work: Path) -> None:
    made = run(work, "detector", "top-2", "--layer", "net.features.3")
    assert targets(made) == [["box:0", "box:1"]] * 3 + [[]]
    rows = list(made.rows())
    assert [len(row.predictions) for row in rows] == [3, 3, 3, 0]
    assert rows[0].predictions[0].score >= rows[0].predictions[1].score
    assert all(1 <= one.index <= 3 for one in rows[0].predictions)
    assert rows[3].predicted_boxes is None
    high, wide = made.plan.model.preprocessing.size
    for row in rows[:3]:
        assert row.crop is not None
        left, top, right, bottom = row.crop
        x, y = (right - left) / wide, (bottom - top) / high
        # The model's boxes are in pixels of its input, the stored ones in those of the original.
        expected = [
            (left + 4 * n * x, top + 2 * n * y, left + 8 * n * x, top + 6 * n * y)
            for n in (said.index for said in row.predictions)
        ]
        np.testing.assert_allclose(row.predicted_boxes, expected, rtol=1e-6)


def test_label_prediction_and_contrast_stand_in_one_row(work: Path) -> None:
    made = run(work, "classifier", "predicted+second+predicted-second", "--layer", "features.3")
    for row, found in zip(made.rows(), targets(made), strict=True):
        first, second = (one.index for one in row.predictions[:2])
        assert found == [f"class:{first}", f"class:{second}", f"class:{first}-{second}"]
        # Grad-CAM is linear in the score.
        maps = [made.map(row.id, "gradcam", "features.3", target) for target in found]
        np.testing.assert_allclose(maps[2], maps[0] - maps[1], atol=1e-4 * np.ptp(maps[2]))


def test_a_row_holds_label_and_prediction_once_where_they_are_the_same(work: Path) -> None:
    made = run(work, "classifier", "predicted+label", "--layer", "features.3")
    assert all(len(found) == 1 for found in targets(made))


@pytest.mark.parametrize("target", ["value", "binary", "similar", "function"])
def test_values_likeness_and_functions(work: Path, target: str) -> None:
    model, text, named, outputs = {
        "value": ("classifier", "value:2", "value", 1),
        "binary": ("regressor", "binary", "class", 2),
        "similar": ("classifier", f"similar:{work / 'photos/0.png'}", "value", 1),
        "function": ("classifier", f"{work / 'models.py'}:energy", "value", 1),
    }[target]
    made = run(work, model, text, "--layer", "features.3")
    rows = list(made.rows())
    assert made.plan.model.outputs == outputs
    assert all(one.target.startswith(named) for row in rows for one in row.maps)
    if target == "similar":
        assert rows[0].predictions[0].score == pytest.approx(1, abs=1e-6)
        assert rows[0].predictions[0].name == "similarity"
        assert "reference image" in made.plan.execution
    if target == "binary":
        assert all(row.predictions[0].score >= 0.5 for row in rows)


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        ("classifier", "mask", "is for planes of scores"),
        ("segmenter", "mask", "the image set has none; give a list"),
        ("classifier", "box:0", "no boxes"),
        ("classifier", "9", "no class 9"),
        ("detector", "prob:predicted", "gives boxes"),
        ("classifier", "models:nothing", "there is no module 'models'"),
    ],
)
def test_a_target_that_does_not_fit_is_one_line(
    work: Path, capfd: pytest.CaptureFixture[str], model: str, target: str, message: str
) -> None:
    code = main(
        [
            "run",
            *("--model", f"{work / 'models.py'}:{model}", "--images", str(work / "photos")),
            *("--out", str(work / "run"), "--config", str(work / "run.toml"), "--target", target),
        ]
    )
    assert code == 2
    said = " ".join(capfd.readouterr().err.split())
    assert message in said
    assert "Traceback" not in said


def test_cam_is_refused_where_no_logit_is_explained(work: Path) -> None:
    namespace: dict[str, object] = {}
    exec(MODELS, namespace)
    model = namespace["classifier"]()  # type: ignore[operator]
    with pytest.raises(MapError, match="explains the logit of a class"):
        exporter.compute_maps(
            model, torch.rand(1, 3, 16, 16), maps=["cam"], layers=["features.3"], targets="prob:1"
        )
    with pytest.raises(TargetError, match="neither a class index nor a function"):
        exporter.compute_maps(model, torch.rand(1, 3, 16, 16), targets=["prob:1"])


def quantised() -> nn.Module:
    from torch.ao import quantization

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = quantization.QuantStub(), quantization.DeQuantStub()
            self.net = nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.dequant(self.net(self.quant(x)))
            return found

    torch.manual_seed(0)
    before = torch.backends.quantized.engine
    engines = [one for one in torch.backends.quantized.supported_engines if one != "none"]
    if not engines:
        pytest.skip("this build of torch has no quantised operations")
    torch.backends.quantized.engine = engines[-1]
    try:
        model = Model().eval()
        model.qconfig = quantization.get_default_qconfig(engines[-1])
        prepared = quantization.prepare(model)
        prepared(torch.rand(4, 3, 16, 16))
        return quantization.convert(prepared)
    finally:
        torch.backends.quantized.engine = before


def test_a_quantised_model_has_maps_of_activations_only_and_says_so(
    work: Path, tmp_path: Path
) -> None:
    model = quantised()
    made = exporter.export(
        model,
        work / "photos/list.csv",
        out=tmp_path / "run",
        writers=(),
        layers=("net.1",),
        preprocessing={"size": 16},
    )
    assert [method.name for method in made.plan.methods] == ["eigencam"]
    assert (
        "the model is quantised and has no gradients: only methods of activations, "
        "not gradcam, layercam"
    ) in made.plan.notes
    assert {one.method for row in made.rows() for one in row.maps} == {"eigencam"}
    with pytest.raises(
        MapError, match=r"quantised .*only methods of activations, not gradcam; choose"
    ):
        exporter.compute_maps(model, torch.rand(1, 3, 16, 16), maps=["gradcam"], layers=["net.1"])


def test_torchscript_is_refused_in_one_sentence(work: Path, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 8, 8)
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    for model in (torch.jit.script(whole), torch.jit.trace(whole, images)):
        with pytest.raises(ModelError, match=r"the model is TorchScript .* hand over the module"):
            exporter.compute_maps(model, images, maps=["eigencam"])
        with pytest.raises(ModelError, match=r"the model is TorchScript .* hand over the module"):
            exporter.export(model, work / "photos/list.csv", out=tmp_path / "run", writers=())
    holding = nn.Sequential(torch.jit.script(whole[:2]), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(ModelError, match="the layer '0' is TorchScript"):
        exporter.compute_maps(holding, images)


def test_a_model_without_planes_says_what_is_the_matter() -> None:
    images = torch.rand(1, 3, 8, 8)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(exporter.errors.NoLayerError, match="has no spatial layer"):
        exporter.compute_maps(flat, images)


@pytest.mark.parametrize("target", ["prob:predicted", "multilabel", "predicted-label", "value:1"])
def test_an_output_that_is_no_number_spoils_its_own_row_only(
    work: Path, tmp_path: Path, target: str
) -> None:
    class Spoilt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = self.features(x).mean((2, 3))
            return torch.where(x.amax((1, 2, 3))[:, None] == 0, torch.nan, rows)

    made = exporter.export(
        Spoilt(),
        work / "photos/list.csv",
        out=tmp_path / "run",
        writers=(),
        layers=("features",),
        maps=("gradcam",),
        target=target,
        preprocessing={"size": 16, "mean": [0.0, 0, 0], "std": [1.0, 1, 1]},
    )
    rows = list(made.rows())
    assert [row.error is None for row in rows] == [True, True, True, False]
    assert [len(row.maps) for row in rows] == [1, 1, 1, 0]
