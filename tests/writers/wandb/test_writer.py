"""The offline W&B run, read back record by record with W&B's own protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.errors import RunError, WriterError
from exporter.paths import without_folders
from exporter.records import Written
from exporter.render import decode_image, encode_jpeg
from exporter.store import open_run
from exporter.store.checksums import recorded
from exporter.store.files import RunFiles
from exporter.store.layout import writer_folder
from exporter.writers import check, write
from exporter.writers.montages import montage_jpeg, overlay_jpeg
from exporter.writers.scalars import precision_recall
from exporter.writers.wandb import WandbOptions
from exporter.writers.wandb import rows as wandb_rows
from exporter.writers.wandb import writer as wandb_writer
from exporter.writers.wandb.media import media_names
from exporter.writers.wandb.place import verify_offline
from exporter.writers.wandb.process import HERE, WORK, work_folder
from exporter.writers.wandb.writer import log_offline
from tests.hostile.mutations import forge
from tests.small import two_classes

ROOT = Path(__file__).resolve().parents[3]
SECRET = "host-of-an-anonymous-author"


def records(folder: Path) -> list[Any]:
    """Read the log with W&B's classes: framing and checksums are checked here once more."""
    from wandb.proto import wandb_internal_pb2

    (log,) = folder.glob("offline-run-*/run-*.wandb")
    data, position, parts, found = log.read_bytes(), 7, b"", []
    assert data[:7] == b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + 7 : position + 7 + length]
        assert zlib.crc32(bytes([kind]) + part) == checksum
        parts = part if kind in {1, 2} else parts + part
        if kind in {1, 4}:
            found.append(wandb_internal_pb2.Record.FromString(parts))
        position += 7 + length
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """Return what was logged at each step, by name, as `records` reads it."""
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in row.history.item}
        for row in records(folder)
        if row.HasField("history")
    ]


def local(folder: Path, entry: Any) -> Path:
    """Return where the file of an artifact is, for a process that runs in the writer's folder."""
    place = Path(entry.local_path)
    assert place.is_absolute()
    return folder / place.relative_to(HERE or folder)


def logged_artifacts(folder: Path) -> list[Any]:
    """Return all that were logged."""
    kept = (r for r in records(folder) if r.WhichOneof("record_type") == "artifact")
    return [record.artifact for record in kept]


def artifacts(folder: Path) -> dict[str, Any]:
    """Return the logged artifacts by the name of the table that they hold."""
    return {
        entry.path.removesuffix(".table.json"): artifact
        for artifact in logged_artifacts(folder)
        for entry in artifact.manifest.contents
        if entry.path.endswith(".table.json") and not entry.ref
    }


def picture(folder: Path, name: str, path: str) -> bytes:
    """Return a picture of a table, found as W&B finds it: there, or in what is referred to."""
    (entry,) = [e for e in artifacts(folder)[name].manifest.contents if e.path == path]
    if entry.ref:
        client, _, inside = entry.ref.removeprefix("wandb-client-artifact://").partition("/")
        (other,) = [a for a in logged_artifacts(folder) if a.client_id == client]
        (entry,) = [e for e in other.manifest.contents if e.path == inside]
    return local(folder, entry).read_bytes()


def table(folder: Path, name: str) -> dict[str, Any]:
    """Return a logged table as its JSON says it, found through the log."""
    (file,) = [
        local(folder, entry)
        for entry in artifacts(folder)[name].manifest.contents
        if entry.path == f"{name}.table.json"
    ]
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def updates(folder: Path, kind: str) -> dict[str, Any]:
    """Return what the log's config or summary ends with."""
    found = {}
    for record in records(folder):
        part = record.run.config if kind == "config" else record.summary
        for update in part.update:
            key = update.key or ".".join(update.nested_key)
            found[key] = json.loads(update.value_json)
    return found


@dataclass
class Made:
    run: Path
    folder: Path
    written: Written
    home: Path
    outside: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def made(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """One run written as a stranger would: fake home, another run's settings, a telling host."""
    base = tmp_path_factory.mktemp("wandb")
    run = base / "a run & 'more' 猫"
    shutil.copytree(sample_run, run)
    home, outside, site = base / "home", base / "cwd", base / "site"
    for folder in (home, outside, site):
        folder.mkdir()
    # Every Python process below takes this for the name of its host.
    (site / "sitecustomize.py").write_text(
        f"import socket, platform\nsocket.gethostname = platform.node = lambda: {SECRET!r}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_RUN_ID", "somebodys")
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("WANDB_API_KEY", "k" * 40)
        patch.setenv("WANDB_DIR", str(outside / "theirs"))
        patch.syspath_prepend(str(site))
        patch.chdir(outside)
        before = dict(os.environ)
        plan = json.loads((run / "plan.json").read_text())
        photos = base / "my photos"
        plan["settings"]["images"] = str(photos)
        plan["command"] = (
            f"exporter run --model resnet18 --images '{photos}' --out={base}/run "
            f"--target similar:{base}/a.jpg"
        )
        (run / "plan.json").write_text(json.dumps(plan))
        forge(run)
        opened = open_run(run)
        kept = tuple(row.id for row in opened.index)
        options = WandbOptions(
            kept=kept,
            kept_reason=dict.fromkeys(kept, "most wrong"),
            report_url="https://example.org/supplement/index.html",
            wandb_project="maps",
        )
        written = write(opened, "wandb", options)
        assert dict(os.environ) == before
    yield Made(run, run / "wandb", written, home, outside, before)


def test_the_table_has_a_row_an_image_that_was_read(made: Made) -> None:
    run = open_run(made.run)
    found = table(made.folder, "images")
    names = found["columns"]
    rows = {cells[0]: dict(zip(names, cells, strict=True)) for cells in found["data"]}
    wanted = {row.id: row for row in run.rows() if row.error is None}

    assert names[0] == "id"
    assert list(rows) == list(wanted)
    for id, row in wanted.items():
        cells = rows[id]
        assert cells["path"] == row.path
        assert cells["prediction"] == row.predictions[0].name
        assert cells["confidence"] == pytest.approx(row.confidence)
        assert (cells["label"], cells["correct"]) == (row.label, row.correct)
        assert cells["kept because"] == "most wrong"
        assert cells["report"] == f"https://example.org/supplement/images.html#image={id}"
    assert (made.written.shown, made.written.total) == (len(wanted), len(run.plan.images))
    assert not any("--keep" in note for note in made.written.notes)  # the others cannot be read


def test_columns_have_one_type_and_pictures_are_wandb_images(made: Made) -> None:
    types = table(made.folder, "images")["column_types"]["params"]["type_map"]

    def kinds(name: str) -> set[str]:
        allowed = types[name]["params"]["allowed_types"]
        return {kind["wb_type"] for kind in allowed} - {"none"}

    assert {name: kinds(name) for name in types} == {
        "id": {"string"},
        "photograph": {"image-file"},
        "prediction": {"string"},
        "confidence": {"number"},
        "top predictions": {"string"},
        "label": {"string"},
        "correct": {"boolean"},
        "loss": {"number"},
        "gradcam": {"image-file"},
        "layercam": {"image-file"},
        "eigencam": {"image-file"},
        "agreement": {"number"},
        "entropy": {"number"},
        "concentration": {"number"},
        "montage": {"image-file"},
        "kept because": {"string"},
        "path": {"string"},
        "model": {"string"},
        "step": {"number"},
        "report": {"string"},
    }


TABLES = {
    "kernels": "layer, kernels, type, shape, lowest, highest, shown, total",
    "maximised": "layer, channel, name, picture, mean, mean of noise, largest, made",
    "channels": "layer, channel, images, mean, maximum, sparsity, dead, top image, top picture",
    "classes": "index, name, support, correct, predicted, precision, recall, confidence, "
    "confidence spread, entropy, entropy spread, top share, agreement",
    "confusion": "label, predicted, label name, predicted name, images",
    "methods": "method, layer, images, uniform, measured, entropy, top share, annotated, pointing, "
    "box energy, box overlap, stage",
    "calibration": "lower, upper, images, confidence, accuracy",
    "photographs": "id, photograph",
}


def test_the_tables_and_their_columns(made: Made) -> None:
    page = (ROOT / "docs" / "wandb.md").read_text("utf-8")
    logged = {name for name in artifacts(made.folder) if "chart" not in name}
    assert logged == {"images", *TABLES}
    for name, columns in TABLES.items():
        assert ", ".join(table(made.folder, name)["columns"]) == columns
        assert f"**`{name}`**" in page


def test_the_set_s_tables_are_the_run_s(made: Made) -> None:
    run = open_run(made.run)
    classes = table(made.folder, "classes")["data"]
    assert [(cells[1], cells[2], cells[6]) for cells in classes] == [
        (row.name, row.support, pytest.approx(row.recall)) for row in run.classes()
    ]
    confusion = table(made.folder, "confusion")["data"]
    assert [(c[2], c[3], c[4]) for c in confusion] == [
        (pair.label_name.replace("\n", " "), pair.predicted_name, pair.images)
        for pair in run.confusion()
    ]
    methods = table(made.folder, "methods")["data"]
    assert [(cells[0], cells[1], cells[-1]) for cells in methods] == [
        (row.method, row.layer, {"layer4": "deepest", "layer3": "stage-4"}[row.layer])
        for row in run.methods()
    ]


def test_what_is_measured_of_an_image_is_in_its_row(made: Made) -> None:
    run, found = open_run(made.run), table(made.folder, "images")
    measures = {row.id: row for row in run.measures()}
    for cells in found["data"]:
        row = dict(zip(found["columns"], cells, strict=True))
        own, stored = measures[row["id"]], run.row(row["id"])
        told = (row["agreement"], row["entropy"], row["concentration"])
        assert told == (own.agreement, own.entropy, own.top_share)
        first = stored.predictions[0]
        assert row["top predictions"].startswith(f"{first.name} {first.score:.3g}, ")
        assert (row["model"], row["step"]) == ("resnet18@none", None)


def test_a_channel_shows_the_image_that_excites_it_most(made: Made) -> None:
    run, found = open_run(made.run), table(made.folder, "channels")
    for cells, channel in zip(found["data"], run.channels(), strict=True):
        row = dict(zip(found["columns"], cells, strict=True))
        if channel.top:
            assert row["top image"] == channel.top[0]
            shown = picture(made.folder, "channels", row["top picture"]["path"])
            assert shown == run.image(channel.top[0])


@pytest.mark.slow
def test_calibration_and_precision_and_recall_have_charts(tmp_path: Path) -> None:
    run = two_classes(tmp_path, "wandb")
    found = table(run.path / "wandb", "precision and recall")
    assert found["columns"] == ["threshold", "precision", "recall"]
    curve = precision_recall(run)
    assert curve is not None
    threshold, *both = np.array(found["data"]).T
    assert threshold == pytest.approx(np.linspace(0, 1, curve.shape[1]))
    assert np.array(both) == pytest.approx(curve[4:])
    charts = {
        update.nested_key[-1]: json.loads(update.value_json)["panel_config"]
        for record in records(run.path / "wandb")
        for update in record.config.update
        if list(update.nested_key[:2]) == ["_wandb", "visualize"]
    }
    assert {name: chart["stringSettings"]["title"] for name, chart in charts.items()} == {
        "calibration chart": "Calibration",
        "precision and recall chart": "Precision and recall of night",
    }
    drawn = charts["precision and recall chart"]["fieldSettings"]
    assert (drawn["x"], drawn["y"]) == ("recall", "precision")


def test_metrics_are_over_the_step(made: Made) -> None:
    defined = {
        record.metric.name or record.metric.glob_name: record.metric.step_metric
        for record in records(made.folder)
        if record.HasField("metric")
    }
    assert defined == {"step": "", "*": "step"}
    (history,) = [r.history for r in records(made.folder) if r.HasField("history")]
    told = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in history.item}
    summary = open_run(made.run).summary
    assert summary is not None
    assert told["step"] == 0
    assert told["set/accuracy"] == pytest.approx(summary.accuracy)
    assert told["set/calibration error"] == pytest.approx(summary.calibration_error)
    assert -1 <= told["gradcam/agreement"] <= 1


def test_a_few_images_are_shown_by_step_and_run(made: Made) -> None:
    run = open_run(made.run)
    (history,) = [r.history for r in records(made.folder) if r.HasField("history")]
    media: dict[str, dict[str, Any]] = {}
    for item in history.item:
        if item.nested_key and item.nested_key[0].startswith("maps/"):
            name, what = item.nested_key
            media.setdefault(name, {})[what] = json.loads(item.value_json)
    shown = {name: run.row(id) for name, id in media_names(run).items()}
    shown = {name: row for name, row in shown.items() if row.image is not None}
    assert media.keys() == shown.keys()
    assert 4 < len(media) <= 8
    for name, row in shown.items():
        (file,) = made.folder.glob(f"offline-run-*/files/{media[name]['path']}")
        assert file.read_bytes() == montage_jpeg(run, row)
        first = row.predictions[0]
        assert media[name]["caption"] == f"{first.name} {first.score:.2f}"


def test_boxes_and_masks_lie_over_the_photograph(
    make_run: Any, sampling: Any, tmp_path: Path
) -> None:
    """Given and predicted, class and score, the explained box marked; maps as four levels."""
    region = np.zeros((8, 8), bool)
    region[:4] = True
    images = (
        sampling.SampleImage(
            "cats/a.jpg",
            "cat",
            boxes=((50, 0, 250, 150),),
            region=region,
            predicted_boxes=((100, 100, 200, 200), (0, 0, 150, 300)),
        ),
        sampling.SampleImage("cats/b.jpg", "cat"),
    )
    run = open_run(make_run(tmp_path / "run", images=images))
    kept = tuple(entry.id for entry in run.plan.images)
    write(run, "wandb", WandbOptions(kept=kept, wandb_masks=True))
    folder, found = run.path / "wandb", table(run.path / "wandb", "images")
    contents = artifacts(folder)["images"].manifest.contents
    files = {e.path: local(folder, e) for e in contents if not e.ref}
    row = run.row(kept[0])
    photograph, plain = (cells[found["columns"].index("photograph")] for cells in found["data"])
    assert "boxes" not in plain
    boxes = photograph["boxes"]
    # The view is the middle 300 by 300 pixels of 400 by 300, at 224.
    (given,) = boxes["given"]
    assert given["position"] == {"minX": 0, "minY": 0, "maxX": 149, "maxY": 112}
    assert given["box_caption"] == "cat"
    first, second = boxes["predicted"]
    said = row.predictions[0]
    assert first["box_caption"] == f"{said.name} {said.score:.2f}"
    assert first["scores"] == {"score": said.score}
    assert second["box_caption"].endswith(", explained")
    masks = {
        name: decode_image(files[layer["path"]].read_bytes())[..., 0]
        for name, layer in photograph["masks"].items()
    }
    names = {f"map {method.name}" for method in run.plan.methods}
    assert set(masks) == {"given", "predicted box:1", *names}
    assert (masks["given"][:112] == 255).all()
    assert (masks["predicted box:1"][:112] == 254).all()
    assert (masks["predicted box:1"][112:] == 0).all()
    for name in names:
        levels, counts = np.unique(masks[name], return_counts=True)
        assert levels.tolist() == [250, 251, 252, 253]
        assert counts / 224**2 == pytest.approx([0.25] * 4, abs=0.01)
    classes = json.loads(files[photograph["classes"]["path"]].read_text())["class_set"]
    assert {"id": 253, "name": "highest quarter"} in classes


@pytest.mark.slow
def test_names_and_an_id_are_those_that_were_given(sample_run: Path, tmp_path: Path) -> None:
    run = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    told = {"wandb_name": "baseline", "wandb_notes": "as in the paper", "wandb_tags": "a, b"}
    ids = {"wandb_group": "ablation", "wandb_job_type": "eval"}
    write(run, "wandb", WandbOptions(kept=(), step=30, **told, **ids))
    logged = next(r.run for r in records(run.path / "wandb") if r.HasField("run"))
    assert (logged.display_name, logged.notes) == ("baseline", "as in the paper")
    assert (logged.run_group, logged.job_type) == ("ablation", "eval")
    assert {"a", "b", "gradcam"} <= set(logged.tags)
    history = next(r.history for r in records(run.path / "wandb") if r.HasField("history"))
    told_of = {item.key or item.nested_key[0]: item.value_json for item in history.item}
    assert json.loads(told_of["step"]) == 30


@pytest.mark.slow
def test_a_run_that_is_gone_on_with_keeps_its_name_and_settings(
    sample_run: Path, tmp_path: Path
) -> None:
    run = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    told = {"wandb_run": "abc123", "wandb_tags": "maps", "wandb_artifacts": True}
    write(run, "wandb", WandbOptions(kept=(), step=30, **told))
    (own,) = [a for a in logged_artifacts(run.path / "wandb") if a.type == "run-folder"]
    for entry in own.manifest.contents:
        assert HERE is None or str(tmp_path) not in entry.local_path
        there = local(run.path / "wandb", entry).resolve()
        assert there == run.path.resolve() / entry.path
    logged = next(r.run for r in records(run.path / "wandb") if r.HasField("run"))
    assert logged.run_id == "abc123"
    assert (logged.display_name, logged.run_group, logged.job_type) == ("", "", "")
    assert list(logged.tags) == ["maps"]
    assert updates(run.path / "wandb", "config").keys() - {"_wandb"} == {"exporter"}
    history = next(r.history for r in records(run.path / "wandb") if r.HasField("history"))
    names = {item.key or item.nested_key[0] for item in history.item}
    assert {name for name in names if not name.startswith("exporter/")} <= {
        *("_step", "_runtime", "_timestamp"),
    }


OWN_RUN = """
import json, os, sys
import wandb
from exporter.store import open_run
from exporter.writers import write
from exporter.writers.wandb import WandbOptions

with wandb.init(mode="offline", dir=sys.argv[2], id="mine") as mine:
    mine.log({"loss": 1.0})
    run = open_run(sys.argv[1])
    kept = tuple(entry.id for entry in run.plan.images[:2])
    written = write(run, "wandb", WandbOptions(kept=kept, step=7, wandb_run=mine))
    mine.log({"loss": 0.5})
    print(json.dumps({"shown": written.shown, "there": (run.path / "wandb").exists()}))
"""


@pytest.mark.slow
def test_a_run_of_the_callers_is_logged_to_and_left_open(sample_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sample_run, tmp_path / "run")
    said = subprocess.run(
        [sys.executable, "-c", OWN_RUN, str(run), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(said.stdout.splitlines()[-1]) == {"shown": 2, "there": False}
    rows = [r.history for r in records(tmp_path / "wandb") if r.HasField("history")]
    told = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in row.item}
        for row in rows
    ]
    assert [row["loss"] for row in (told[0], told[-1])] == [1.0, 0.5]
    assert told[1]["exporter/step"] == 7
    assert "exporter/set/accuracy" in told[1]
    assert {"exporter/images", "exporter/kernels"} <= artifacts(tmp_path / "wandb").keys()
    defined = [r.metric for r in records(tmp_path / "wandb") if r.HasField("metric")]
    assert {metric.name or metric.glob_name for metric in defined} == {
        *("exporter/step", "exporter/*"),
    }


def test_pictures_are_the_bytes_of_the_run_and_are_where_the_log_says(made: Made) -> None:
    run = open_run(made.run)
    entries = {e.path: e for e in artifacts(made.folder)["images"].manifest.contents}
    found = table(made.folder, "images")
    column = found["columns"].index
    for cells in found["data"]:
        row = run.row(cells[0])
        for name, encoded in (("photograph", row.image), ("montage", montage_jpeg(run, row))):
            cell = cells[column(name)]
            entry = entries[cell["path"]]
            content = picture(made.folder, "images", cell["path"])
            assert content == encoded
            assert cell["sha256"] == hashlib.sha256(content).hexdigest()
            assert entry.digest == base64.b64encode(hashlib.md5(content).digest()).decode()
            assert entry.size == (0 if entry.ref else len(content))
        deepest = [stored for stored in row.maps if stored.layer == "layer4"]
        assert len(deepest) == len(run.plan.methods)
        for stored in deepest:
            content = picture(made.folder, "images", cells[column(stored.method)]["path"])
            view = decode_image(row.image or b"")
            assert content == overlay_jpeg(run, row, stored, lambda view=view: view)
    for name in ("photograph", *(method.name for method in run.plan.methods)):
        cell = found["data"][0][column(name)]
        assert (cell["width"], cell["height"], cell["format"]) == (224, 224, "jpg")


def test_photographs_are_one_artifact_keyed_by_hash_that_tables_refer_to(made: Made) -> None:
    run = open_run(made.run)
    (shelf,) = [a for a in logged_artifacts(made.folder) if a.name == "exporter-photographs"]
    files = {e.path: e for e in shelf.manifest.contents}
    kept = {row.id: row.image for row in run.rows() if row.image is not None}
    assert files.keys() == {f"{id}.jpg" for id in kept} | {"photographs.table.json"}
    for id, encoded in kept.items():
        assert local(made.folder, files[f"{id}.jpg"]).read_bytes() == encoded
    assert [cells[0] for cells in table(made.folder, "photographs")["data"]] == list(kept)
    for name in ("images", "channels"):
        entries = artifacts(made.folder)[name].manifest.contents
        shown = {e.path: e.ref for e in entries if e.path.startswith("photographs/")}
        assert shown
        for path, ref in shown.items():
            assert ref == f"wandb-client-artifact://{shelf.client_id}/{Path(path).name}"


def test_a_picture_is_on_the_disk_once(made: Made) -> None:
    run, found = open_run(made.run), table(made.folder, "images")
    written = [file for file in (made.folder / "artifacts").rglob("*") if file.is_file()]
    hashes = Counter(hashlib.sha256(file.read_bytes()).hexdigest() for file in written)
    kinds = [place for place, cell in enumerate(found["data"][0]) if isinstance(cell, dict)]
    assert len(kinds) == 2 + len(run.plan.methods)
    shown = Counter(cells[place]["sha256"] for cells in found["data"] for place in kinds)
    assert {own: hashes[own] for own in shown} == shown


def test_a_photograph_that_is_cut_short_is_logged_as_it_is(tmp_path: Path) -> None:
    """W&B takes the size of a picture and its bytes: that it cannot be decoded, others say."""
    whole = encode_jpeg(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    short, path = whole[: len(whole) // 2], f"{WORK}/short.jpg"
    pictures = {
        "name": "images",
        "columns": [("id", "text"), ("photograph", "picture")],
        "rows": [["a", path]],
        "chart": None,
    }
    empty = ("init", "photographs", "media", "metrics", "summary")
    job: dict[str, Any] = {name: {} for name in empty}
    folder = tmp_path / "wandb"
    with work_folder(folder):
        (folder / path).write_bytes(short)
        log_offline(folder, {**job, "prefix": "", "tables": [pictures], "artifacts": []})
    ((_, cell),) = table(folder, "images")["data"]
    assert (cell["width"], cell["height"]) == (80, 60)
    assert picture(folder, "images", cell["path"]) == short


def test_every_file_that_the_log_names_has_a_checksum(made: Made) -> None:
    kept = recorded(RunFiles(made.run), writer_folder("wandb")) or {}
    for artifact in logged_artifacts(made.folder):
        for entry in artifact.manifest.contents:
            if entry.ref:
                continue
            file = local(made.folder, entry)
            known = kept[file.relative_to(made.run).as_posix()]
            assert known == hashlib.sha256(file.read_bytes()).hexdigest()
    for record in records(made.folder):
        for entry in record.files.files:
            (log,) = made.folder.glob("offline-run-*")
            assert f"wandb/{log.name}/files/{entry.path}" in kept


def test_config_summary_and_names(made: Made) -> None:
    run = open_run(made.run)
    config, summary = updates(made.folder, "config"), updates(made.folder, "summary")
    logged = next(r.run for r in records(made.folder) if r.HasField("run"))
    judged = [row.correct for row in run.index if row.correct is not None]
    scores = [row.confidence for row in run.index if row.confidence is not None]

    assert (config["seed"], config["target"]) == (0, "predicted")
    assert config["model"]["spec"] == "torchvision:resnet18"
    assert config["versions"]["torch"] == "2.14.1"
    assert summary["accuracy"] == pytest.approx(sum(judged) / len(judged))
    assert summary["mean_confidence"] == pytest.approx(sum(scores) / len(scores))
    assert (summary["read"], summary["skipped"], summary["complete"]) == (19, 1, True)
    # A number of the same name would take the place of a table.
    assert not artifacts(made.folder).keys() & summary.keys()
    assert (logged.project, logged.display_name) == ("maps", "resnet18@none")
    assert logged.run_id != "somebodys"
    assert {"gradcam", "resnet18"} <= set(logged.tags)


def test_kernels_and_channels_are_tables(made: Made) -> None:
    run = open_run(made.run)
    kernels = table(made.folder, "kernels")
    logged = artifacts(made.folder)["kernels"].manifest.contents
    entries = {entry.path: local(made.folder, entry) for entry in logged}
    for record, cells in zip(run.kernels(), kernels["data"], strict=True):
        assert cells[0] == record.name
        sheet = entries[cells[1]["path"]].read_bytes()
        assert sheet == run.kernel_sheet(record)
    channels = table(made.folder, "channels")
    dead = channels["columns"].index("dead")
    assert len(channels["data"]) == len(run.channels()) == 32
    assert [cells[1] for cells in channels["data"] if cells[dead]] == [
        row.channel for row in run.channels() if row.dead
    ]


def test_maximised_pictures_are_a_table(made: Made) -> None:
    logged = table(made.folder, "maximised")
    files = artifacts(made.folder)["maximised"].manifest.contents
    entries = {entry.path: local(made.folder, entry) for entry in files}
    stored = list(open_run(made.run).maximised())
    rows = [dict(zip(logged["columns"], cells, strict=True)) for cells in logged["data"]]
    for row, one in zip(rows, stored, strict=True):
        assert (row["layer"], row["channel"]) == (one.layer, one.channel)
        assert entries[row["picture"]["path"]].read_bytes() == one.picture
        assert one.settings in row["made"]
    assert [row["mean"] for row in rows] == [4.5, 5.5, None, 7.5, 8.5]
    assert [row["name"] for row in rows[2:4]] == ["channel 5", '5 a "quoted" <b>class</b> & more']


def test_nothing_tells_the_host_or_the_key(made: Made) -> None:
    for file in made.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in (SECRET, sys.executable, "k" * 40):
                assert secret.encode() not in content, (file, secret)
            if HERE or file.suffix != ".wandb":
                assert str(made.run.parent).encode() not in content, file
    logged = next(r.run for r in records(made.folder) if r.HasField("run"))
    assert logged.host not in {SECRET, socket.gethostname()}


def test_the_log_tells_no_path_that_was_typed(made: Made) -> None:
    """The command and the image set were typed with absolute paths."""
    for record in records(made.folder):
        for entry in record.artifact.manifest.contents:
            entry.local_path = ""
        assert str(made.run.parent).encode() not in record.SerializeToString()
    config = updates(made.folder, "config")
    assert config["images"] == "my photos"
    assert config["command"] == (
        "exporter run --model resnet18 --images 'my photos' --out=run --target similar:a.jpg"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/data/photos/", "photos"),
        ("/data", "data"),
        ("C:\\Users\\me\\model.py:build", "model.py:build"),
        ("--images=/data/my photos", "--images=my photos"),
        ("similar:/data/cat.jpg", "similar:cat.jpg"),
        ("~/models/net.pt", "net.pt"),
        ("/data/it's mine/photos", "photos"),
        ("('/data/a.jpg'", "('a.jpg'"),
        ("photos/cats", "photos/cats"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("--to=sftp://me:secret@example.org/a", "--to=sftp://example.org/a"),
        ("https://token@example.org/a", "https://example.org/a"),
        ("abfs://box@account.example.org/a", "abfs://box@account.example.org/a"),
        ("layer4.0/relu", "layer4.0/relu"),
    ],
)
def test_an_absolute_path_becomes_its_last_part(text: str, told: str) -> None:
    assert without_folders(text) == told


def test_all_that_is_written_is_in_the_writers_folder(made: Made) -> None:
    assert list(made.home.rglob("*")) == []
    assert list(made.outside.rglob("*")) == []
    assert {path.name for path in made.run.iterdir() if path.name.startswith(".")} == set()
    names = {path.name.split("-")[0] for path in made.folder.iterdir()}
    assert names == {"artifacts", "offline", "seal.txt"} | (set() if HERE else {"folder.json"})


def test_no_process_is_left(made: Made) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    assert processes_of(made.run) == []


def processes_of(run: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(run) in str((process / "cwd").readlink()):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_the_command_names_the_run(made: Made) -> None:
    assert made.written.open == f"exporter sync {shlex.quote(str(made.run))}"


def test_what_is_missing_is_found_before_a_sync(made: Made, tmp_path: Path) -> None:
    assert list(check(open_run(made.run))) == []
    run = shutil.copytree(made.run, tmp_path / "moved")
    moved = list(check(open_run(run)))
    assert len(moved) == (0 if HERE else 1)
    assert all("was written at another path" in line for line in moved)

    largest, *_, smallest = sorted(
        (file for file in (run / "wandb" / "artifacts").rglob("*") if file.is_file()),
        key=lambda file: -file.stat().st_size,
    )
    largest.unlink()
    smallest.write_bytes(smallest.read_bytes()[:-1])
    problems = list(check(open_run(run)))
    assert len(problems) == 2 + len(moved)
    assert any(largest.name in line and "missing" in line for line in problems)
    assert any(
        smallest.name in line and "has changed since it was written" in line for line in problems
    )
    assert all("exporter render --writer wandb" in line for line in problems)

    note = run / "wandb" / "folder.json"
    note.write_text('"of another machine"')
    assert any("was written at another path" in line for line in verify_offline(RunFiles(run)))
    note.write_text("{")
    with pytest.raises(RunError, match=r"folder\.json' is damaged"):
        list(verify_offline(RunFiles(run)))
    assert list(verify_offline(RunFiles(tmp_path))) == []


@pytest.mark.slow
def test_large_tables_are_cut_and_hostile_text_stays_text(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(tmp_path / "run", shards=1)
    run = open_run(path)
    monkeypatch.setattr(wandb_rows, "MAX_TABLE_ROWS", 3)
    kept = tuple(entry.id for entry in run.plan.images)
    reason = "wandb-artifact://nobody/nothing:latest"
    written = write(run, "wandb", WandbOptions(kept=kept, kept_reason=dict.fromkeys(kept, reason)))

    names = [name for name in artifacts(path / "wandb") if name.startswith("images/")]
    assert names == [f"images/{n}" for n in range(len(names))]
    cells = [row for name in names for row in table(path / "wandb", name)["data"]]
    assert [row[0] for row in cells] == [row.id for row in run.index]
    assert len(cells) == 8
    assert {row[-4].strip() for row in cells} == {reason}
    assert updates(path / "wandb", "summary")["complete"] is False
    assert any("8 of 20" in note for note in written.notes)
    assert any("tables" in note for note in written.notes)
    assert list(verify_offline(RunFiles(path))) == []


def test_off_writes_nothing_and_says_so(made: Made) -> None:
    before = sorted(made.folder.rglob("*"))
    written = write(open_run(made.run), "wandb", WandbOptions(kept=(), wandb="off"))
    assert written.shown == 0
    assert "off" in written.notes[0]
    assert sorted(made.folder.rglob("*")) == before


def test_without_wandb_the_error_says_how_to_install_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(WriterError, match="pip install wandb"):
        write(open_run(made.run), "wandb", WandbOptions(kept=()))


def test_a_name_that_wandb_refuses_is_one_sentence_and_the_former_folder_stays(made: Made) -> None:
    before = sorted(made.folder.rglob("*"))
    with pytest.raises(WriterError, match=r"(?s)refused.*a/b") as caught:
        write(open_run(made.run), "wandb", WandbOptions(kept=(), wandb_project="a/b"))
    assert "Traceback" not in str(caught.value)
    assert sorted(made.folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_writer_leaves_no_process(
    sample_run: Path, tmp_path: Path, blow: signal.Signals
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sample_run, run)
    slow = (
        "import time, wandb\n"
        "from exporter.writers.wandb import session\n"
        "wandb.Table.add_data = lambda *cells: time.sleep(60)\n"
        "session.main()\n"
    )
    program = (
        "import signal, sys\n"
        # Whatever starts the tests may ignore it, as a shell does for what it runs beside itself.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from exporter.store import open_run\n"
        "from exporter.writers import write\n"
        "from exporter.writers.wandb import WandbOptions\n"
        "from exporter.writers.wandb import writer\n"
        "run_python = writer.run_python\n"
        f"slow = {slow!r}\n"
        "writer.run_python = lambda given, *more: run_python(('-c', slow, given[1]), *more)\n"
        "run = open_run(sys.argv[1])\n"
        "write(run, 'wandb', WandbOptions(kept=tuple(e.id for e in run.plan.images)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(run)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def wait_for(wanted: bool) -> bool:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if any("wandb-core" in line for line in processes_of(run)) is wanted:
                return True
            time.sleep(0.1)
        return False

    try:
        assert wait_for(True)
        process.send_signal(blow)
        process.wait(60)
        assert wait_for(False)
        end = time.monotonic() + 10
        while processes_of(run) and time.monotonic() < end:
            time.sleep(0.1)
        assert processes_of(run) == []
    finally:
        process.kill()
    if blow == signal.SIGINT:
        assert not (run / "wandb").exists()
        assert not (run / ".wandb.tmp").exists()
    else:
        (problem,) = check(open_run(run))
        assert "wandb/ is incomplete" in problem
        options = WandbOptions(kept=tuple(entry.id for entry in open_run(run).plan.images[:2]))
        assert write(open_run(run), "wandb", options).shown == 2
        assert list(check(open_run(run))) == []


def test_a_wandb_that_does_not_finish_is_ended(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(made.folder.rglob("*"))
    monkeypatch.setattr(wandb_writer, "SECONDS", 0.05)
    monkeypatch.setattr(wandb_writer, "SECONDS_PER_ROW", 0.0)
    with pytest.raises(WriterError, match="did not finish within"):
        write(open_run(made.run), "wandb", WandbOptions(kept=()))
    assert sorted(made.folder.rglob("*")) == before
