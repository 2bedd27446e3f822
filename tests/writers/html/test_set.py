"""What the whole set shows: strips, calibration, pairs, classes, agreement, concentration."""

from __future__ import annotations

import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import exporter
from exporter.cli import main
from exporter.records import MethodFaithfulness, OtherMetric
from exporter.render import heatmap
from exporter.store import Run, open_run, records_table, schema_of
from exporter.writers import write
from exporter.writers.html import HtmlOptions


def text_of(report: Path, page: str) -> str:
    return (report / page).read_text("utf-8")


def test_strips_stand_beside_their_rules(run: Run, report: Path) -> None:
    text = text_of(report, "index.html")
    assert run.summary is not None
    assert run.summary.strips
    for strip in run.summary.strips:
        name, _, rule = strip.rule.partition(": ")
        section = text[text.index(f">{name.capitalize()}</h2>") :].partition("</section>")[0]
        shown = re.findall(r'images\.html#image=([\w-]+)"', section)
        assert shown == list(strip.ids[:8])
        said = f"{len(shown)} of {strip.of}: {rule}.".replace("'", "&#39;")
        assert said in section
        assert section.count('<img class="heat" src="data:image/webp;base64,') == len(shown)


def test_pages_of_classes_show_errors_first_and_with_their_maps(run: Run, report: Path) -> None:
    rows = {row.id: row for row in run.rows()}
    wrong = [row for row in rows.values() if row.correct is False]
    index = wrong[0].predictions[0].index
    text = text_of(report, f"classes/{index}.html")
    titles = re.findall(r"<h2[^>]*>([^<]+)</h2>", text)
    order = [
        name for name in titles if name in ("Mistaken for this class", "Examples", "Mean maps")
    ]
    assert order[0] == "Mistaken for this class"
    assert order.index("Mean maps") == len(order) - 1
    shown = re.findall(r'image=([\w-]+)".*?class="heat" src="data:image/webp;base64,([^"]+)"', text)
    assert {row.id for row in wrong if row.predictions[0].index == index} <= {id for id, _ in shown}
    for id, encoded in shown:
        drawn = cv2.imdecode(np.frombuffer(b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)
        stored = next(m for m in rows[id].maps if (m.method, m.layer) == ("gradcam", "layer4"))
        assert drawn.shape == (56, 56, 4)
        grey = heatmap(stored.array(), (56, 56), rectify=True, colormap="grey")[..., 0]
        assert np.array_equal(drawn[..., 3], grey)


def test_the_calibration_diagram_is_the_bins(run: Run, report: Path) -> None:
    summary = run.summary
    assert summary is not None
    assert summary.calibration_error is not None
    svg = re.search(r'<figure class="diagram">(.*?)</svg>', text_of(report, "index.html"), re.S)
    assert svg
    bars = re.findall(r'class="bar-fill soft" x="(\S+)" .*? height="(\S+)"', svg[1])
    filled = [one for one in summary.bins if one.images]
    assert len(bars) == len(filled)
    for (x, height), one in zip(bars, filled, strict=True):
        assert float(x) == pytest.approx(100 * one.lower + 0.3, abs=0.01)
        assert one.accuracy is not None
        assert float(height) == pytest.approx(100 * one.accuracy, abs=0.01)
    assert f"error {100 * summary.calibration_error:.1f}\xa0%" in svg[1]


def test_each_class_has_a_page_with_its_numbers(run: Run, report: Path) -> None:
    table = text_of(report, "classes.html")
    for one in run.classes():
        assert f'href="classes/{one.index}.html"' in table
        text = text_of(report, f"classes/{one.index}.html")
        assert f"Class {one.index} of the model" in text.replace("&#39;", "'")
        if one.recall is not None:
            assert f"<dd>{100 * one.recall:.1f}\xa0%<small> of the images with this label" in text
        maps = run.class_maps(one.index)
        assert text.count("data:image/jpeg;base64,") == len(maps)
    pages = {file.stem for file in (report / "classes").iterdir()}
    assert pages == {str(one.index) for one in run.classes()}


def test_the_agreement_is_a_symmetric_matrix(run: Run, report: Path) -> None:
    text = text_of(report, "methods.html")
    for layer in run.plan.explained:
        table = text[text.index(f'aria-label="Agreement at {layer}"') :].partition("</table>")[0]
        values = re.findall(r'<td class="[pm]\d+">([^<]+)</td>', table)
        pairs = [one.correlation for one in run.agreement() if one.layer == layer]
        expected = sorted(f"{value:.2f}".replace("-", "−") for value in pairs * 2)
        assert sorted(values) == expected
    for row in run.methods():
        assert f"<td>{row.entropy:.3f}</td>" in text


def test_what_was_not_computed_is_not_there(make_run: Callable[..., Path], tmp_path: Path) -> None:
    partial = open_run(make_run(tmp_path / "run", shards=1))
    write(partial, "html", HtmlOptions(kept=()))
    report = tmp_path / "run" / "html"
    assert not (report / "classes.html").exists()
    for page in ("index.html", "methods.html", "layers.html"):
        text = text_of(report, page)
        for word in ("Calibration", "Classes", "Do the methods agree", "Most wrong", "Redundant"):
            assert word not in text, (page, word)


@pytest.mark.browser
def test_a_confused_pair_leads_to_its_images(page: Any, run: Run, report: Path) -> None:
    pair = run.confusion()[0]
    page.goto((report / "index.html").as_uri())
    page.locator("[data-control=pair-images]").first.click()
    page.wait_for_selector("button.tile")
    assert page.locator("button.tile").count() == pair.images
    assert page.locator("button.tile .name").first.inner_text() == pair.predicted_name
    page.goto((report / "classes.html").as_uri())
    page.fill("#find", "missile")
    assert page.locator("#classes tbody tr:visible").count() == 1
    assert "1 of" in page.locator("output[for=find]").inner_text()
    page.get_by_role("link", name="missile").first.click()
    page.wait_for_selector("h1:text('missile')")
    assert page.evaluate("[...document.images].every((i) => !i.complete || i.naturalWidth > 0)")
    page.locator("[data-control=class-image]").first.click()
    page.wait_for_selector("#v-table canvas")
    page.locator("[data-control=viewer-class]").first.click()
    page.wait_for_selector("h1")
    assert "/classes/" in page.url


def test_each_metric_of_faithfulness_is_a_column_also_one_of_a_plugin(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_run(tmp_path / "run")
    flipping = "Pixel flipping, 0 to 1, lower is better"
    rows = [
        MethodFaithfulness(
            "gradcam", "layer4", 19, 0.25, 0.75, None, (OtherMetric("flipping", flipping, 0.125),)
        ),
        MethodFaithfulness(
            "layercam", "layer4", 18, 0.5, 0.625, -0.25, (OtherMetric("flipping", flipping, None),)
        ),
    ]
    table = records_table(rows, schema_of(MethodFaithfulness))
    pq.write_table(table, path / "set" / "faithfulness.parquet")
    run = open_run(path)
    write(run, "html", HtmlOptions())
    text = text_of(path / "html", "methods.html")
    section = text[text.index('aria-labelledby="faithful"') :].partition("</section>")[0]
    assert "<code>layer4</code>, means over the images measured" in section
    assert re.findall(r"<th scope=\"col\"[^>]*>([^<]+)</th>", section) == [
        "Method",
        "Images",
        "Deletion AUC, 0 to 1, lower is better",
        "Insertion AUC, 0 to 1, higher is better",
        "ROAD, −0.5 to 0.5, higher is better",
        flipping,
    ]
    assert re.findall(r'data-metric="(\w+)"', section) == [
        *("deletion", "insertion", "road", "flipping")
    ]
    assert re.findall(r"<td>([^<]+)</td>", section) == [
        *("19", "0.250", "0.750", "—", "0.125"),
        *("18", "0.500", "0.625", "−0.250", "—"),
    ]


def test_a_report_has_the_title_that_it_is_given(sample_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sample_run, tmp_path / "run")
    told = ["render", str(run), "--writer", "html", "--single-file"]
    assert main([*told, "--title", "Cats <b>& dogs</b>"]) == 0
    escaped = "Cats &lt;b&gt;&amp; dogs&lt;/b&gt;"
    assert f"<h1>{escaped}</h1>" in text_of(run / "html", "index.html")
    assert f"<title>Images · {escaped}</title>" in text_of(run / "html", "images.html")
    assert f"<title>{escaped}</title>" in text_of(run / "html", "report.html")
    assert main(told) == 0  # as it was told before
    assert f"<h1>{escaped}</h1>" in text_of(run / "html", "index.html")


def test_a_factory_s_report_is_titled_by_what_it_built(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class SmallNet(nn.Sequential):\n"
        "    pass\n"
        "def build():\n"
        "    return SmallNet(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                    nn.Flatten(), nn.Linear(4, 3))\n"
    )
    photos = sorted((Path(__file__).parents[3] / "examples" / "photos").glob("*.jpg"))[:1]
    exporter.export(
        f"{tmp_path / 'net.py'}:build", photos, out=tmp_path / "run", maps=["eigencam"],
        layers=["1"], writers=["html"],
    )  # fmt: skip
    report = tmp_path / "run" / "html"
    assert "<h1>What <em>SmallNet</em> looks at</h1>" in text_of(report, "index.html")
    assert "<title>Images · SmallNet</title>" in text_of(report, "images.html")
    assert open_run(tmp_path / "run").plan.model.name == "build"
