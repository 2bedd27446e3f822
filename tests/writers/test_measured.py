"""What was measured of the maps stands in TensorBoard and W&B: of each method and each image."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata as hparams

import exporter
from exporter.demo import photographs
from exporter.store import Run
from tests.small import small
from tests.writers.wandb.test_writer import records, table

pytestmark = pytest.mark.slow

METRICS = ("deletion", "insertion", "road")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two photographs whose maps' faithfulness was measured."""
    return exporter.export(
        small(),
        photographs(),
        out=tmp_path_factory.mktemp("measured") / "run",
        maps=["gradcam", "layercam"],
        limit=2,
        faithfulness=True,
        writers=["tensorboard", "wandb"],
    )


def test_faithfulness_is_a_scalar_of_each_method_in_tensorboard(run: Run) -> None:
    (base,) = (run.path / "tensorboard").iterdir()

    def values(name: str) -> dict[str, object]:
        (file,) = (base / name).glob("*.exporter")
        events = EventFileLoader(str(file)).Load()
        return {value.tag: value for event in events for value in event.summary.value}

    measured = {row.method: row for row in run.faithfulness()}
    assert measured.keys() == {"gradcam", "layercam"}
    for method, row in measured.items():
        own = values(method)
        told = [
            own[f"set/{name}"].tensor.float_val[0] for name in ("deletion", "insertion", "ROAD")
        ]
        assert told == pytest.approx([row.deletion, row.insertion, row.road])
    content = values("")[hparams.EXPERIMENT_TAG].metadata.plugin_data.content
    metrics = hparams.parse_experiment_plugin_data(content).metric_infos
    held = {(info.name.group, info.name.tag) for info in metrics}
    names = ("agreement", "deletion", "insertion", "ROAD")
    assert held >= {(method, f"set/{name}") for method in measured for name in names}


def test_faithfulness_is_in_w_and_b_s_rows_of_images_and_methods(run: Run) -> None:
    folder: Path = run.path / "wandb"
    images = table(folder, "images")
    rows = {cells[0]: dict(zip(images["columns"], cells, strict=True)) for cells in images["data"]}
    measured = list(run.image_faithfulness())
    assert len(measured) == 2 * 2
    for own in measured:
        told = [rows[own.id][f"{name} {own.method}"] for name in METRICS]
        assert told == pytest.approx([getattr(own, name) for name in METRICS])
    methods = table(folder, "methods")
    deepest = next(iter(run.faithfulness())).layer
    means = [dict(zip(methods["columns"], cells, strict=True)) for cells in methods["data"]]
    assert {
        row["method"]: [row[name] for name in METRICS] for row in means if row["layer"] == deepest
    } == {row.method: [getattr(row, name) for name in METRICS] for row in run.faithfulness()}
    (history,) = [one.history for one in records(folder) if one.HasField("history")]
    names = {item.key or item.nested_key[0] for item in history.item}
    assert {"gradcam/ROAD", "layercam/deletion", "layercam/insertion"} <= names
