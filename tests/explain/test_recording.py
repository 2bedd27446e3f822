"""What an encoder makes of a layer is recorded as the channels of ``features``."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter import export
from exporter.config import WriterConfig
from exporter.demo import photographs
from exporter.errors import ExporterError
from exporter.store import Run
from exporter.writers import write
from exporter.writers.writing import writer_options
from tests.small import small

WEIGHTS = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
ENCODER = """
import torch

WEIGHTS = torch.tensor({weights})

def sparse(activations):
    return torch.einsum("fc,nchw->nfhw", WEIGHTS, activations).sub(0.05).relu()

def flat(activations):
    return activations.mean((2, 3))

def broken(activations):
    raise KeyError("no weights")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("encoder") / "sae.py"
    place.write_text(ENCODER.format(weights=WEIGHTS.tolist()))
    return place


def run_with(encoder: str, out: Path, **settings: object) -> Run:
    given = {"maps": ["gradcam"], "limit": 3, "writers": (), **settings}
    return export(small(), photographs(), out=out, encoder=encoder, **given)


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_with(f"{file}:sparse", tmp_path_factory.mktemp("run") / "run", activations=["0"])


def test_features_are_the_encoder_of_the_deepest_explained_layer(run: Run, file: Path) -> None:
    assert run.plan.recorded == ("0", "features")
    assert run.plan.explained[-1] == "3"
    # The layer's channels are carried whole beside them, in 8 bits each.
    layers = {stage.id: torch.tensor(stage.activation.array()) for stage in run.stages()}
    weights = torch.tensor(WEIGHTS)
    features = {
        id: torch.einsum("fc,chw->fhw", weights, layer).sub(0.05).relu()
        for id, layer in layers.items()
    }
    rows = run.channels("features")
    assert [row.channel for row in rows] == list(range(12))
    for row in rows:
        means = [float(each[row.channel].mean()) for each in features.values()]
        assert row.mean == pytest.approx(np.mean(means), abs=5e-3)
    for row in run.rows(["activations"]):
        (kept,) = [each for each in row.activations if each.layer == "features"]
        means = features[row.id].mean((1, 2))
        assert kept.channels[0] == int(means.argmax())
        strongest = features[row.id][kept.channels[0]].numpy()
        np.testing.assert_allclose(kept.array()[0], strongest, atol=0.02)


def test_their_pages_are_those_of_channels(run: Run) -> None:
    write(run, "html", writer_options(run, WriterConfig())["html"])
    layers = (run.path / "html" / "layers.html").read_text("utf-8")
    assert "what the encoder" in layers
    file = re.search(r'href="(layers/\d+\.html)"[^>]*>(?:<[^>]*>)*features<', layers)
    assert file is not None
    page = (run.path / "html" / file[1]).read_text("utf-8")
    assert page.count('<tr id="c') == 12
    assert "sae.py:sparse makes of 3: each channel is a feature." in page


def test_another_layer_is_named_before_it(file: Path, tmp_path: Path) -> None:
    module = small()
    module[2] = torch.nn.Conv2d(6, 8, 3, stride=1)
    run = run_with(f"2={file}:sparse", tmp_path / "run")
    assert run.plan.recorded[-1] == "features"
    (kept,) = [
        each for each in next(run.rows(["activations"])).activations if each.layer == "features"
    ]
    assert (kept.height, kept.width) == (55, 55)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (":flat", r"the encoder '.*sae.py:flat' gave \(1, 8\) for \(1, 8, 55, 55\) of '3'; let it"),
        (":broken", r"the encoder '.*sae.py:broken' failed.*no weights"),
        (":missing", r"missing"),
        ("*", r"'\*' are \d+ layers, and the encoder .* reads one; name it: LAYER="),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_batch(
    encoder: str, said: str, file: Path, tmp_path: Path
) -> None:
    spec = f"*={file}:sparse" if encoder == "*" else f"{file}{encoder}"
    with pytest.raises(ExporterError, match=said):
        run_with(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_layer_of_the_model_called_features_is_not_taken_for_them(
    file: Path, tmp_path: Path
) -> None:
    whole = small()
    parts = {"features": whole[:4], "head": whole[4:]}
    model = torch.nn.Sequential(OrderedDict(parts))
    given = {"maps": ["gradcam"], "limit": 1, "encoder": f"{file}:sparse", "writers": ["html"]}
    with pytest.raises(ExporterError, match="the model has a layer 'features', as what the enc"):
        export(model, photographs(), out=tmp_path / "run", layers=["features"], **given)
    run = export(model, photographs(), out=tmp_path / "run", layers=["features.3"], **given)
    assert run.plan.recorded == ("features.3", "features")
    layers = (run.path / "html" / "layers.html").read_text("utf-8")
    (number,) = set(re.findall(r'href="layers/(\d+)\.html"[^>]*>(?:<[^>]*>)*features<', layers))
    page = (run.path / "html" / "layers" / f"{number}.html").read_text("utf-8")
    assert "sae.py:sparse makes of features.3: each channel is a feature." in page
    assert "Sequential, output" not in page
