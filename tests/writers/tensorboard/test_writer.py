"""Against a real TensorBoard: what was written is read back over HTTP and with its own loader."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from exporter.records import Written
from exporter.render import decode_image, heatmap, overlay_map
from exporter.render.boxes import draw_boxes, draw_region, explained_box
from exporter.store import Run, open_run
from exporter.writers import links, write
from exporter.writers.tensorboard import TensorBoardOptions
from exporter.writers.tensorboard import writer as tensorboard
from exporter.writers.tensorboard.cards import cards

BASE = "resnet18"
STEP = 7
REPORT = "https://example.org/report/"


def kept_options(run: Run, **changes: Any) -> TensorBoardOptions:
    ids = tuple(entry.id for entry in run.plan.images)
    options = TensorBoardOptions(
        kept=ids,
        kept_reason={
            id: "most wrong" if k < 5 else "seeded | <sample>" for k, id in enumerate(ids)
        },
        report_url=REPORT,
        step=STEP,
    )
    return options.model_copy(update=changes)


@pytest.fixture(scope="module")
def run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(shutil.copytree(sample_run, tmp_path_factory.mktemp("tb") / "a run"))


@pytest.fixture(scope="module")
def written(run: Run) -> Written:
    return write(run, "tensorboard", kept_options(run))


class Server:
    """A TensorBoard server of the tests' own."""

    def __init__(self, logdir: Path) -> None:
        self.log = logdir.parent / f"{logdir.name}.server.log"
        self._out = self.log.open("w")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tensorboard.main"),
                *("--logdir", str(logdir), "--port", "0", "--host", "127.0.0.1"),
            ],
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.url = self._wait_for(self._address)

    def _address(self) -> str | None:
        found = re.search(r"at (http://\S+?)/? \(", self.log.read_text())
        return found.group(1) if found else None

    def _wait_for(self, ask: Callable[[], Any]) -> Any:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = ask()
            if found:
                return found
            assert self._process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def bytes(self, path: str, **query: Any) -> bytes:
        text = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}/{path}{text}", timeout=30) as answer:
            return answer.read()

    def json(self, path: str, **query: Any) -> Any:
        return json.loads(self.bytes(path, **query))

    def images(self, run: str) -> dict[str, Any]:
        tags: dict[str, Any] = self._wait_for(lambda: self.json("data/plugin/images/tags").get(run))
        return tags

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._out.close()


@pytest.fixture(scope="module")
def server(run: Run, written: Written) -> Iterator[Server]:
    own = Server(run.path / "tensorboard")
    try:
        # The last thing written is the page, so all is loaded when it is.
        own._wait_for(lambda: own.json("data/plugin/text/tags").get(BASE))
        own.images(f"{BASE}/eigencam")
        yield own
    finally:
        own.close()


# ---------------------------------------------------------------- files


def events(run: Run, name: str) -> list[Any]:
    folder = run.path / "tensorboard" / BASE / name
    (file,) = (one for one in folder.iterdir() if one.is_file())
    return list(EventFileLoader(str(file)).Load())


def values(run: Run, name: str) -> dict[str, Any]:
    return {value.tag: value for event in events(run, name) for value in event.summary.value}


def test_tensorboards_own_loader_reads_every_record_with_its_checksum(
    run: Run, written: Written
) -> None:
    first, *rest = events(run, "gradcam")
    assert first.file_version == "brain.Event:2"
    tags = [event.summary.value[0].tag for event in rest]
    # Two layers, nineteen images that could be read; below set/ the numbers of the method.
    assert len([tag for tag in tags if not tag.startswith("set/")]) == 2 * 19
    assert {event.step for event in rest} == {STEP}
    assert {event.wall_time for event in rest} == {1767225600.0}


def test_the_input_is_there_once_as_stored_and_the_samples_are_heatmap_and_overlay(
    run: Run, written: Written
) -> None:
    row = next(run.rows())
    tag = links.image_tag("deepest", row)
    value = values(run, "layercam")[tag]
    width, height, heat, blend = value.tensor.string_val
    assert (width, height) == (b"224", b"224")
    assert list(values(run, "input")[tag].tensor.string_val) == [b"224", b"224", row.image]
    assert len(values(run, "input")) == 19
    one = next(m for m in row.maps if (m.method, m.layer) == ("layercam", "layer4"))
    exact = heatmap(one.array(), (224, 224), rectify=True)
    assert np.abs(decode_image(heat).astype(int) - exact).mean() < 4
    exact = overlay_map(decode_image(row.image or b""), one, rectify=True)
    assert np.abs(decode_image(blend).astype(int) - exact).mean() < 4


def test_boxes_and_masks_are_drawn_into_the_pictures(
    make_run: Callable[..., Path], sampling: Any, tmp_path: Path
) -> None:
    """Given and predicted over the input, the one that a map explains over its overlay."""
    region = np.zeros((8, 8), bool)
    region[:4] = True
    image = sampling.SampleImage(
        "a.jpg",
        "cat",
        boxes=((50, 0, 250, 150),),
        region=region,
        predicted_boxes=((100, 100, 200, 200), (0, 0, 150, 300)),
    )
    own = open_run(make_run(tmp_path / "run", images=(image,)))
    write(own, "tensorboard", kept_options(own))
    row = next(own.rows())
    tag = links.image_tag("deepest", row)
    (shown,) = [decode_image(one) for one in values(own, "input")[tag].tensor.string_val[2:]]
    expected = decode_image(row.image or b"").copy()
    explained = explained_box(row.maps[0].target)
    assert explained == 1
    draw_boxes(expected, row, explained)
    for part in row.regions:
        draw_region(expected, row, part.target)
    assert np.abs(shown.astype(int) - expected).mean() < 4
    assert np.abs(decode_image(row.image or b"").astype(int) - expected).mean() > 8
    drawn = decode_image(values(own, "gradcam")[tag].tensor.string_val[3])
    one = next(m for m in row.maps if (m.method, m.layer) == ("gradcam", "layer4"))
    plain = overlay_map(decode_image(row.image or b""), one, rectify=True)
    marked = plain.copy()
    draw_boxes(marked, row, explained, alone=True)
    draw_region(marked, row, one.target, alone=True)
    assert np.abs(drawn.astype(int) - marked).mean() < 4
    assert np.abs(plain.astype(int) - marked).mean() > 2


def test_several_targets_share_a_card(run: Run, tmp_path: Path) -> None:
    row = next(run.rows())
    second = tuple(replace(one, target="class:99") for one in row.maps)
    options = kept_options(run)
    made = dict.fromkeys(name for name, _ in cards(run, row, options))
    assert list(made) == ["input", *(method.name for method in run.plan.methods)]
    _, *shown = cards(run, replace(row, maps=row.maps + second), options)
    for _, summary in shown:
        (value,) = summary.value
        assert len(value.tensor.string_val) == 2 + 2 * 2
        assert "class 99" in value.metadata.summary_description


def test_the_report_s_viewer_builds_the_same_link_in_javascript(run: Run) -> None:
    """templates/beside.js cannot import `links`, so its pattern is held to it here."""
    row = replace(next(run.rows()), path="a (1)/x.jpg", id="k-2")
    link = links.image_link("https://t.example/", row)
    assert urllib.parse.unquote(link) == (
        "https://t.example/#images&tagFilter=^[^/]+/a \\(1\\)/x\\.jpg(@k-2)?$"
    )
    script = Path(__file__).parents[3] / "templates" / "beside.js"
    pattern = 'encodeURIComponent("^[^/]+/" + path + "(@" + id + ")?$")'
    assert pattern in script.read_text("utf-8")


def test_the_same_run_gives_the_same_bytes(run: Run, written: Written) -> None:
    def contents() -> dict[str, bytes]:
        base = run.path / "tensorboard"
        return {str(f.relative_to(base)): f.read_bytes() for f in base.rglob("*") if f.is_file()}

    before = contents()
    write(run, "tensorboard", kept_options(run))
    assert contents() == before


def test_more_than_the_limit_gives_a_montage_an_image(
    sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    monkeypatch.setattr(tensorboard, "CARD_LIMIT", 119)
    made = write(own, "tensorboard", kept_options(own))
    tags = [tag.partition("/")[0] for tag in values(own, "")]
    assert tags.count("montage") == 20
    assert {tag.partition("/")[0] for tag in values(own, "gradcam")} == {"set"}
    assert any("120 cards are more than 119" in note for note in made.notes)


def test_only_the_kept_images_are_shown_and_it_says_so(sample_run: Path, tmp_path: Path) -> None:
    own = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    chosen = (own.plan.images[3].id, own.plan.images[11].id)
    made = write(own, "tensorboard", kept_options(own, kept=chosen))
    assert (made.shown, made.total) == (2, 20)
    assert any(note.startswith("2 of 20 images") for note in made.notes)
    shown = {tag.partition("/")[2] for tag in values(own, "input")}
    assert shown == {own.row(id).path for id in chosen}
    page = values(own, "")["run/about"].tensor.string_val[0].decode()
    assert "2 of 20 images are shown" in page
    view = links.images_link(None, "^maximised/", links.run_regex(BASE))
    assert f"[pictures made to excite channels]({view})" in page


def test_a_larger_keep_is_not_offered_for_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    kept = tuple(row.id for row in run.index if row.error is None)
    shutil.copytree(run.path, tmp_path / "run")
    for number, offered in ((len(kept), False), (len(kept) - 1, True)):
        options = TensorBoardOptions(kept=kept[:number])
        written = write(open_run(tmp_path / "run"), "tensorboard", options)
        assert written.shown == number < written.total
        assert any("--keep N shows more" in note for note in written.notes) == offered


def test_none_kept_still_gives_the_numbers(sample_run: Path, tmp_path: Path) -> None:
    own = open_run(shutil.copytree(sample_run, tmp_path / "run"))
    made = write(own, "tensorboard", kept_options(own, kept=()))
    assert made.shown == 0
    assert "set/accuracy" in values(own, "")


def test_a_partial_run_is_written_and_says_so(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    own = open_run(make_run(tmp_path / "run", shards=1))
    made = write(own, "tensorboard", kept_options(own))
    assert made.shown == 8
    assert "partial" in made.notes[0]
    page = values(own, "")["run/about"].tensor.string_val[0].decode()
    assert "Partial run" in page
    assert "12 chosen images are in shards that are not computed yet" in page.replace("\\", "")
    there = tuple(row.id for row in own.index if row.error is None)
    written = write(own, "tensorboard", kept_options(own, kept=there))
    assert not any("--keep N" in note for note in written.notes)


@pytest.mark.parametrize(
    "name",
    ["../../outside", "/etc/passwd", "..", ".hidden", "a\x00b", "con\n", "\ud800", "猫" * 200],
)
def test_no_model_name_leaves_the_folder(name: str) -> None:
    safe = links.safe_name(f"{name}")
    assert "/" not in safe
    assert not safe.startswith(".")
    assert 0 < len(safe.encode()) <= 120
    assert safe.isprintable()


def test_a_hostile_model_name_stays_in_the_run(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    own = open_run(make_run(tmp_path / "deep" / "run", model="../../../x <b>", shards=1))
    write(own, "tensorboard", kept_options(own, step=None))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["deep"]
    (folder,) = (own.path / "tensorboard").iterdir()
    assert folder.name == "_.._.._x__b_@none"


# ---------------------------------------------------------------- server


@pytest.mark.slow
def test_runs_are_model_and_method(run: Run, server: Server) -> None:
    runs = set(server.json("data/runs"))
    methods = {f"{BASE}/{method.name}" for method in run.plan.methods}
    assert runs == {BASE, f"{BASE}/input"} | methods


@pytest.mark.slow
def test_the_server_gives_the_stored_jpeg_back_byte_for_byte(run: Run, server: Server) -> None:
    name = f"{BASE}/input"
    tags = server.images(name)
    for row in run.rows():
        if row.error is not None or row.boxes:  # which are drawn
            continue
        tag = links.image_tag("deepest", row)
        assert tag in tags, row.path
        assert tags[tag]["samples"] == 1
        (meta,) = server.json("data/plugin/images/images", run=name, tag=tag, sample=0)
        assert meta["step"] == STEP
        picture = server.bytes(f"data/plugin/images/individualImage?{meta['query']}")
        assert picture == row.image


@pytest.mark.slow
def test_title_and_description_survive_the_data_server(run: Run, server: Server) -> None:
    tags = server.images(f"{BASE}/gradcam")
    row = next(run.rows())
    entry = tags[links.image_tag("deepest", row)]
    assert entry["displayName"] == row.path
    html = entry["description"]
    assert "<strong>Grad-CAM</strong>" in html
    assert "∂y/∂A" in html
    assert 'href="https://arxiv.org/abs/1610.02391"' in html
    assert f'href="{links.report_image_link(REPORT, row)}"' in html
    one = next(m for m in row.maps if (m.method, m.layer) == ("gradcam", "layer4"))
    assert f"{one.lo:.4g} … {one.hi:.4g}" in html
    assert "most wrong" in html
    assert "<code>layer4</code>" in html
    assert f"<code>{row.id}</code>" in html


@pytest.mark.slow
def test_names_from_outside_are_text(run: Run, server: Server) -> None:
    tags = server.images(f"{BASE}/gradcam")
    page = " ".join(entry["description"] for entry in tags.values())
    assert "<b>class</b>" not in page
    assert "<sample>" not in page
    assert "&lt;b&gt;" in page


@pytest.mark.slow
def test_scalars_are_the_runs_numbers(run: Run, server: Server) -> None:
    def scalar(tag: str) -> float:
        ((_, step, number),) = server.json("data/plugin/scalars/scalars", run=BASE, tag=tag)
        assert step == STEP
        return float(number)

    rows = [row for row in run.rows() if row.error is None]
    known = [row for row in rows if row.correct is not None]
    assert scalar("set/images") == len(rows) == 19
    assert scalar("set/skipped") == 1
    assert scalar("set/accuracy") == pytest.approx(np.mean([row.correct for row in known]))
    assert scalar("set/mean loss") == pytest.approx(np.mean([row.loss for row in known]))
    assert scalar("set/mean confidence") == pytest.approx(np.mean([row.confidence for row in rows]))
    flagged = sum(bool(one.flags) for row in rows for one in row.maps)
    assert scalar("set/flagged maps") == flagged == 1
    channels = run.channels("layer4")
    assert scalar("statistics/dead channels/layer4") == pytest.approx(1 / len(channels))
    assert scalar("statistics/sparsity/layer4") == pytest.approx(
        np.mean([one.sparsity for one in channels])
    )


@pytest.mark.slow
def test_histograms_count_every_weight(run: Run, server: Server) -> None:
    for record in run.kernels():
        tag = f"weights/{record.name}"
        ((_, _, buckets),) = server.json("data/plugin/histograms/histograms", run=BASE, tag=tag)
        counts, edges = np.histogram(run.kernel_values(record), bins=30)
        assert [count for _, _, count in buckets] == counts.tolist()
        assert buckets[0][0] == pytest.approx(edges[0])
        assert buckets[-1][1] == pytest.approx(edges[-1])
    tags = server.json("data/plugin/histograms/tags")[BASE]
    means = {f"statistics/mean activation/{layer}" for layer in ("layer3", "layer4")}
    assert means | {"set/confidence"} <= set(tags)


@pytest.mark.slow
def test_kernel_sheets_are_the_runs_files(run: Run, server: Server) -> None:
    for record in run.kernels():
        tag = f"weights/kernels/{record.name}"
        (meta,) = server.json("data/plugin/images/images", run=BASE, tag=tag, sample=0)
        picture = server.bytes(f"data/plugin/images/individualImage?{meta['query']}")
        assert picture == run.kernel_sheet(record)
        width, height = values(run, "")[tag].tensor.string_val[:2]
        assert (int(height), int(width)) == decode_image(picture).shape[:2]


def test_maximised_pictures_are_cards_a_layer_and_channel(run: Run, written: Written) -> None:
    found = {tag: value for tag, value in values(run, "").items() if tag.startswith("maximised/")}
    stored = list(run.maximised())
    assert list(found) == [
        "maximised/layer4/channel 17",
        "maximised/layer4/channel 2",
        "maximised/fc/channel 5",
        "maximised/output/5 a 'quoted' <b>class</b> & more",
        "maximised/output/2 espresso",
    ]
    for value, one in zip(found.values(), stored, strict=True):
        assert list(value.tensor.string_val) == [b"64", b"48", one.picture]
        assert one.settings.replace(".", "\\.") in value.metadata.summary_description


@pytest.mark.slow
def test_the_page_says_what_ran_and_links(run: Run, server: Server) -> None:
    (shown,) = server.json("data/plugin/text/text", run=BASE, tag="run/about")
    page = shown["text"]
    for text in (run.plan.command, "20 of 20 images are shown", "most wrong: 5", "2.14.1"):
        assert text in page, text
    assert "broken/truncated.jpg" in page
    assert "the JPEG data end after 512 bytes" in page
    assert f'href="{REPORT}index.html"' in page
    assert re.search(r'href="/#images&amp;tagFilter=%5Edeepest%2F&amp;regexInput=', page)
    assert "<table>" in page
    assert "fused&lt;b&gt;" in page
