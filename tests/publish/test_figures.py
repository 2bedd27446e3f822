"""A figure shows the stored maps, says what they are, and comes out the same every time."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

import exporter
from exporter.cli import main
from exporter.comparison import Comparison
from exporter.errors import ConfigError, ExporterError
from exporter.images import decode, hash_contents
from exporter.publish.choosing import Named, grid_of, runs_of
from exporter.publish.figures import inches
from exporter.publish.geometry import Photograph, in_original
from exporter.publish.latex import tex
from exporter.publish.look import SMALLEST, Look, Type
from exporter.publish.saving import latex
from exporter.publish.tabular import Numbers, Table
from exporter.publish.texts import _range
from exporter.records import StoredMap
from exporter.render import decode_image, fading_map, overlay, overlay_map
from exporter.store import open_run
from tests.publish.test_tables import NAMES


def pictures(drawn: Any) -> list[np.ndarray]:
    """Return the photographs and maps of a figure, row by row; the scale of colours is last."""
    return [np.asarray(axes.images[0].get_array()) for axes in drawn.axes[:-1]]


def lines(drawn: Any) -> list[str]:
    return [text.get_text() for text in drawn.texts]


def test_tiles_are_the_photograph_and_the_stored_maps(checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    drawn = exporter.figure(
        run,
        images=["image 01.jpg"],
        maps=["gradcam", "eigencam"],
        layers=["layer3", "deepest"],
        width=7,
    )
    row = run.row("image 01.jpg")
    view = decode_image(row.image or b"")
    shown = pictures(drawn)
    assert len(shown) == 5
    one = exporter.figure(run, images="image 01.jpg", maps="gradcam", layers="layer3", width=7)
    assert len(pictures(one)) == 2  # a text is a list of one
    assert np.array_equal(shown[0], view)
    wanted = [(m, at) for m in ("gradcam", "eigencam") for at in ("layer3", "layer4")]
    for picture, (method, layer) in zip(shown[1:], wanted, strict=True):
        stored = run.stored(row, method, layer)
        expected = overlay_map(view, stored, rectify=method == "gradcam")
        assert np.array_equal(picture, expected), (method, layer)
        lo = max(stored.lo, 0) if method == "gradcam" else stored.lo
        low, high = (f"{value:.2g}".replace("-", "−") for value in (lo, stored.hi))
        assert f"{low} to {high}" in lines(drawn)
    said = lines(drawn)
    first = row.predictions[0]
    assert f"{first.name} {first.score:.2f}" in said
    assert said[:5] == ["Image", "Grad-CAM", "layer3", "Grad-CAM", "layer4"]
    assert (f"label: {row.label}" in said) is not row.correct


@pytest.mark.slow
def test_runs_stand_side_by_side(checkpoints: list[Path], comparison: Comparison) -> None:
    drawn = exporter.figure(*checkpoints, images=["image 02.jpg"], maps=["gradcam"], width=14)
    runs = [open_run(path) for path in checkpoints]
    shown = pictures(drawn)
    for run, picture in zip(runs, shown[1:], strict=True):
        row = run.row("image 02.jpg")
        stored = run.stored(row, "gradcam")
        view = decode_image(row.image or b"")
        assert np.array_equal(picture, overlay_map(view, stored, rectify=True))
        assert f"{row.predictions[0].name} {row.predictions[0].score:.2f}" in lines(drawn)
    assert {"a", "b", "c"} <= set(lines(drawn))  # one model: the folders tell them apart
    of_comparison = exporter.figure(
        comparison.path, images=["image 02.jpg"], maps=["gradcam"], width=7
    )
    names = [run.name for run in comparison.contents.runs]
    assert set(names) <= set(lines(of_comparison))
    assert len(pictures(of_comparison)) == 1 + len(runs)


def test_a_runs_name_and_prediction_stand_over_all_of_its_maps(comparison: Comparison) -> None:
    drawn = exporter.figure(
        comparison.path, images=["image 02.jpg"], maps=["gradcam", "eigencam"], width=7
    )
    places = [axes.get_position().bounds for axes in drawn.axes]
    for at, run in enumerate(comparison.contents.runs):
        left, right = places[1 + 2 * at], places[2 + 2 * at]
        middle = (left[0] + right[0] + right[2]) / 2 * drawn.get_figwidth()
        first = comparison.open(run).row("image 02.jpg").predictions[0]
        for said in (run.name, f"{first.name} {first.score:.2f}"):
            (text,) = (text for text in drawn.texts if text.get_text() == said)
            assert text.get_position()[0] == pytest.approx(middle)


def test_signed_colours_show_negative_values(checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    drawn = exporter.figure(run, images=["image 01.jpg"], maps=["gradcam"], colormap="diverging")
    row = run.row("image 01.jpg")
    stored = run.stored(row, "gradcam")
    view = decode_image(row.image or b"")
    expected = overlay_map(view, stored, rectify=False, colormap="diverging")
    assert np.array_equal(pictures(drawn)[1], expected)
    assert [tick.get_text() for tick in drawn.axes[-1].get_yticklabels()] == ["−1", "0", "1"]


@pytest.mark.slow
def test_a_map_can_be_uniform_and_cut_below_a_threshold(checkpoints: list[Path]) -> None:
    given = {"images": ["image 01.jpg"], "maps": ["gradcam"]}
    run = open_run(checkpoints[0])
    plain, even, cut = (
        pictures(exporter.figure(run, **given, **more))
        for more in ({}, {"uniform_opacity": True}, {"threshold": 0.5})
    )
    stored = run.stored(run.row("image 01.jpg"), "gradcam")
    view, fading = plain[0], fading_map(stored, (224, 224), rectify=True)
    assert fading is not None
    low = fading[..., 3] < 255 * 0.5
    assert 0 < low.mean() < 1
    assert np.array_equal(cut[1][low], view[low])
    assert np.array_equal(cut[1][~low], plain[1][~low])
    share = np.full((224, 224), np.float32(0.8))
    heat = np.ascontiguousarray(fading[..., :3])
    assert np.abs(even[1].astype(int) - overlay(view, heat, share)).max() <= 1


@pytest.mark.parametrize("name", ["50%.pdf", "a#b.pdf", "a&b.pdf", "a~b.pdf"])
def test_a_name_that_latex_cannot_include_is_refused(
    name: str, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    assert main(["figure", str(checkpoints[0]), "--maps", "gradcam", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"error: LaTeX cannot include a file called {name!r}; give --out a name without "
        f"{next(sign for sign in name if sign in '%#&~')}\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_figure_says_what_it_was_made_from_unless_it_is_anonymous(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["figure", *map(str, checkpoints[:2]), "--show", "random=1:7", "--maps", "gradcam"]
    plans = [open_run(path).files.sha256("plan.json") for path in checkpoints[:2]]
    said = {}
    for flags in ([], ["--anonymous"]):
        out = tmp_path / "figure.png"
        own = [*command, *flags, "--out", str(out)]
        monkeypatch.setattr("sys.argv", ["exporter", *own])
        assert main(own) == 0
        said[bool(flags)] = Image.open(out).info
    named, unnamed = said[False]["Description"], said[True]["Description"]
    model = "resnet18 (weights: weights 1)"
    assert f"run a: {model}, plan {plans[0]}; exporter 0.1.0, torch 2.14.1" in named
    assert named.endswith(
        "made again by: exporter figure a b --show random=1:7 --maps gradcam --out figure.png"
    )
    assert unnamed == f"plan {plans[0]}; plan {plans[1]}"
    assert said[False]["Software"].startswith("exporter ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_the_same_run_gives_the_same_bytes(
    checkpoints: list[Path], tmp_path: Path, kind: str
) -> None:
    own: dict[str, dict[str, Any]] = {
        "first": {},
        "second": {"savefig.bbox": "tight", "font.weight": "bold", "image.origin": "lower"},
    }
    for name, settings in own.items():
        with mpl.rc_context(settings):
            exporter.figure(
                checkpoints[0], show="random=1:7", maps=["gradcam"], out=tmp_path / f"{name}.{kind}"
            )
    first, second = (tmp_path / f"{name}.{kind}" for name in ("first", "second"))
    contents = first.read_bytes()
    assert contents == second.read_bytes()
    digest = open_run(checkpoints[0]).files.sha256("plan.json")[:12]
    assert digest.encode() in contents
    for private in (str(checkpoints[0].parent), str(Path.home()), "CreationDate"):
        assert private.encode() not in contents


def test_text_in_a_pdf_is_text_in_an_embedded_font(checkpoints: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "figure.pdf"
    exporter.figure(
        checkpoints[0], images=["image 01.jpg"], maps=["gradcam"], width="8.5cm", out=out
    )
    page = PdfReader(out).pages[0]
    assert float(page.mediabox.width) == pytest.approx(8.5 / 2.54 * 72)
    assert "Grad-CAM" in page.extract_text()
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    described = [f["/DescendantFonts"][0]["/FontDescriptor"] for f in fonts]
    assert described
    assert all("/FontFile2" in each for each in described)


def test_a_rule_that_shows_images_is_stated(checkpoints: list[Path], tmp_path: Path) -> None:
    run = open_run(checkpoints[0])
    drawn = grid_of([run], show="random=3:5", maps=["gradcam"])
    again = grid_of([run], show="random=3:5", maps=["gradcam"])
    ids = [row[0].id for row in drawn.rows]
    assert ids == [row[0].id for row in again.rows]
    assert len(set(ids)) == 3
    assert ids != [row[0].id for row in grid_of([run], show="random=3:6").rows]
    assert drawn.rule == "3 of 12 drawn at random, seed 5"
    (tmp_path / "list.txt").write_text("\ufeff# best\nimage 03.jpg\n\nimage 01.jpg\n")
    listed = grid_of([run], show=str(tmp_path / "list.txt"))
    assert [row[0].path for row in listed.rows] == ["image 03.jpg", "image 01.jpg"]
    chosen = grid_of([run])
    strips = run.summary.strips if run.summary else ()
    firsts = list(dict.fromkeys(strip.ids[0] for strip in strips))[:4]
    assert [row[0].id for row in chosen.rows] == firsts
    assert chosen.rule.startswith("chosen by rule: the first of “")


@pytest.mark.slow
def test_a_rule_shows_images_that_every_run_has(
    checkpoints: list[Path], build: Callable[..., Path], tmp_path: Path
) -> None:
    fewer = build(tmp_path / "fewer", step=3, names=["image 03", "new", "image 05"])
    for first, second in ((checkpoints[0], fewer), (fewer, checkpoints[0])):
        drawn = grid_of([first, second], show="random=9:0", maps=["gradcam"])
        assert {row[0].path for row in drawn.rows} == {"image 03.jpg", "image 05.jpg"}
        assert drawn.rule == "2 of 2 drawn at random, seed 0"
        chosen = grid_of([first, second], maps=["gradcam"])
        assert {row[0].path for row in chosen.rows} <= {"image 03.jpg", "image 05.jpg"}
    other = build(tmp_path / "other", names=["elsewhere"])
    with pytest.raises(ExporterError, match="no image is read in all of the runs"):
        grid_of([fewer, other])


def test_single_maps_are_named_with_their_layers(checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    grid = grid_of(
        [run], images=["image 01.jpg"], maps=["gradcam@layer3", "eigencam"], layers=["layer4"]
    )
    shown = [(column.method, column.layer) for column in grid.columns]
    assert shown == [("gradcam", "layer3"), ("eigencam", "layer4")]


def test_a_comparison_shows_what_flipped(comparison: Comparison) -> None:
    grid = grid_of([comparison.path], maps=["gradcam"])
    flips = {row.id: {verdict.flip for verdict in row.verdicts} for row in comparison.images()}
    ids = [row[0].id for row in grid.rows]
    assert len(set(ids)) == len(ids) > 1
    words = {"right to wrong": "lost", "wrong to right": "won", "another prediction": "changed"}
    said = re.findall("“(.+?)”", grid.rule)
    assert len(said) == len(ids)
    for id, name in zip(ids, said, strict=True):
        assert name == "maps that changed most" or words[name] in flips[id]
    assert any(name in words for name in said)


def test_the_caption_says_what_is_shown(checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    grid = grid_of([run], show="random=1:0", maps=["gradcam", "eigencam"], layers=["layer3"])
    said = latex(grid, Path("a figure_1.pdf"), Look())
    for part in (
        r"\includegraphics[width=\linewidth]{a figure_1.pdf}",
        r"Grad-CAM and Eigen-CAM of",
        r"at \texttt{layer3}; explained, where a method depends on it: the score of the predicted",
        r"Negative values of Grad-CAM are set to zero",
        "Images: 1 of 12 drawn at random, seed 0.",
        r"\label{fig:a-figure-1}",
    ):
        assert part in said
    assert not re.search(r"(?<!\\)[%$#&]", said)
    assert "A name with a number is a prediction with its probability." in said
    signed = latex(grid, Path("a.svg"), Look(colormap="diverging"))
    assert "set to zero" not in signed
    assert "as far as its largest magnitude" in signed
    assert r"\includesvg[width=\linewidth]{a.svg}" in signed


def test_the_caption_tells_several_runs_apart(comparison: Comparison) -> None:
    said = latex(grid_of([comparison.path], show="random=1:0", maps=["gradcam"]), Path("a"), Look())
    for run in comparison.contents.runs:
        assert f" {run.name}: " in said


def test_the_caption_names_the_target_that_is_shown(checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    grid = grid_of([run], show="random=1:0", maps=["gradcam"])
    several = replace(run.plan, target="top-3")
    shown = replace(grid, runs=(Named(SimpleNamespace(plan=several, stored=run.stored), "a"),))
    assert "the first of the scores of the 3 most likely classes" in latex(
        shown, Path("a.pdf"), Look()
    )


def test_a_map_that_is_negative_everywhere_has_a_range_where_it_is_signed() -> None:
    stored = StoredMap(
        "gradcam", "layer4", "class:1", 1, 2, -2.0, -0.5, b"\0\0\xff\xff", "negative"
    )
    assert _range(stored, signed=False).said == "no positive value"
    assert _range(stored, signed=True).said == "−2 to −0.5"


def test_runs_that_nothing_tells_apart_are_numbered(checkpoints: list[Path]) -> None:
    assert [each.name for each in runs_of([checkpoints[0]] * 2)] == ["1: a", "2: a"]


def test_a_character_that_the_font_lacks_is_named() -> None:
    type = Type("DejaVu Sans", 7)
    with pytest.raises(ConfigError, match="the font 'DejaVu Sans' has no '猫', which 'a 猫' needs"):
        type.refuse_missing("a 猫")
    type.refuse_missing("ünï −0.5 … é")


@pytest.mark.slow
def test_names_and_numbers_shrink_and_the_rest_is_cut() -> None:
    type = Type("DejaVu Sans", 7)
    wide = type.shrunk(["Grad-CAM++"], 7, 2)
    assert wide == 7
    narrow = type.shrunk(["Guided Grad-CAM++"], 7, 0.6)
    assert SMALLEST <= narrow < 7
    assert type.shrunk(["Guided Grad-CAM++"], 14, 0.6) == pytest.approx(narrow, rel=1e-3)
    with pytest.raises(ConfigError, match="has no room"):
        type.shrunk(["a very long name of a method indeed"], 7, 0.3)
    assert type.fitted("layer4", 7, 2) == "layer4"
    layer = type.fitted("encoder.layers.encoder_layer_11", 7, 0.5, end=True)
    assert layer.startswith("…")
    assert "encoder.layers.encoder_layer_11".endswith(layer[1:])
    name = type.fitted("Egyptian cat 0.93", 7, 0.5)
    assert name.endswith("…")
    assert "Egyptian cat".startswith(name[:-1])
    scored = type.fitted("Egyptian cat", 7, 0.5, tail=" 0.93")
    assert scored.endswith("… 0.93")
    assert type.fitted("$1 & $2", 7, 2) == "$1 & $2"
    assert type.shrunk(["$_$ $x$"], 7, 2) == 7  # no mathematics, and no error of it


def test_a_map_lies_where_the_model_saw_it() -> None:
    photograph = np.full((60, 100, 3), 100, np.uint8)
    map = np.zeros((20, 20, 4), np.uint8)
    map[..., :3], map[..., 3] = (10, 20, 30), 255
    whole = Photograph(photograph, 0.5)
    # In the original, at twice the size: 40 to 140 across, and from 20 above the upper edge.
    drawn = whole.under(map, (40.0, -20.0, 140.0, 80.0), 1.0)
    assert (drawn[:40, 20:70] == (10, 20, 30)).all()
    drawn[:40, 20:70] = 100
    assert (drawn == 100).all()
    assert (photograph == 100).all()
    assert (whole.under(map, None, 0.5)[30, 50] == (55, 60, 65)).all()


def test_whole_photographs_come_from_their_folder(
    build: Callable[..., Path], tmp_path: Path
) -> None:
    run = open_run(build(tmp_path / "run"))
    row = run.row("image 01.jpg")
    picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    file = tmp_path / "photographs" / row.path
    file.parent.mkdir()
    file.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    with pytest.raises(ExporterError, match="differs"):
        in_original(row, file.parent)
    own = replace(row, key=hash_contents(file.read_bytes()))
    place = in_original(own, file.parent)
    assert np.array_equal(place.photograph, decode(file.read_bytes()))
    stored = run.stored(row, "gradcam")
    coloured = fading_map(stored, (224, 224), rectify=True)
    drawn = place.under(coloured, row.crop, 0.8)
    assert drawn.shape == place.photograph.shape
    assert (drawn != place.photograph).any()
    with pytest.raises(ExporterError, match="no such file"):
        in_original(own, tmp_path)
    file.unlink()
    os.mkfifo(file)  # a run from elsewhere may name anything
    with pytest.raises(ExporterError, match="it is not a regular file"):
        in_original(own, file.parent)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"out": "figure.jpg", "images": ["image 01.jpg"]}, "its name ends in .pdf, .svg, .png"),
        (
            {"out": "missing/figure.png", "images": ["image 01.jpg"]},
            "cannot be written: no such file or directory",
        ),
        ({"images": ["nope.jpg"]}, "the run has no image 'nope.jpg'"),
        ({"images": ["image 01.jpg"], "show": "chosen"}, "not both"),
        ({"show": "random=x"}, "such as random=8:0"),
        ({"show": "random=99:1:2"}, "such as random=8:0"),
        ({"show": "nope.txt"}, "no such file or directory"),
        ({"maps": ["gradcan"]}, "did you mean 'gradcam'"),
        ({"layers": ["layer9"]}, "has no map at 'layer9'"),
        ({"target": "class:77"}, "explains 'class:77'"),
        ({"width": "wide"}, "the width 'wide' is neither a length"),
        ({"width": 0.1}, "give 0.5 to 40"),
        ({"width": "1in", "layers": ["layer3", "layer4"]}, "do not fit into 1 inches"),
        ({"font": "No Such Font"}, "there is no font 'No Such Font'"),
        ({"font_size": 99}, "the font size is 99"),
        ({"colormap": "rainbow"}, "there is no colour map 'rainbow'"),
        ({"opacity": 2}, "the opacity is 2"),
        ({"original": "."}, "no such file"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    checkpoints: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExporterError, match=re.escape(sentence)):
        exporter.figure(checkpoints[0], **given)
    assert not list(tmp_path.rglob("figure*"))


def test_lengths_are_read() -> None:
    assert inches("neurips") == 5.5
    assert inches("72.27pt") == pytest.approx(1)
    assert inches("50.8 mm") == pytest.approx(2)
    assert inches("3.25in") == inches(3.25) == 3.25


@pytest.mark.slow
def test_the_command_writes_the_figure_and_prints_its_latex(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figure.png"
    command = ["figure", str(checkpoints[0]), "--image", "image 01.jpg", "--maps", "gradcam"]
    assert main([*command, "--out", str(out)]) == 0
    assert r"\includegraphics[width=\linewidth]{figure.png}" in capsys.readouterr().out
    picture = cv2.imdecode(np.frombuffer(out.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 975  # 3.25 inches at 300 dots per inch
    drawn = exporter.figure(checkpoints[0], images=["image 01.jpg"], maps=["gradcam"])
    own = io.BytesIO()
    drawn.savefig(own, format="png", dpi=300)
    assert np.array_equal(
        picture, cv2.imdecode(np.frombuffer(own.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    )
    assert main([*command, "--out", str(tmp_path / "figure.jpg")]) == 2
    # Methods and layers are named as exporter run takes them, or as a list.
    pixels = []
    for named in (
        "--map gradcam --map eigencam --layer layer3 --layer deepest",
        "--maps gradcam,eigencam --layers layer3,deepest",
    ):
        assert main([*command[:4], *named.split(), "--out", str(out)]) == 0
        pixels.append(cv2.imread(str(out)))
    assert np.array_equal(*pixels)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_a_paper_with_the_figure_and_a_table_compiles(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    run = open_run(checkpoints[0])
    grid = grid_of([run], show="random=2:0", maps=["gradcam", "eigencam"])
    exporter.figure(
        run, show="random=2:0", maps=["gradcam", "eigencam"], width="neurips",
        out=tmp_path / "figure.pdf",
    )  # fmt: skip
    exporter.table(run, "methods", out=tmp_path / "table.tex")
    odd = Table("", ("Class",), (Numbers("p", p=True),), tuple((name, 1e-9) for name in NAMES))
    (tmp_path / "odd.tex").write_text(odd.as_latex(), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\n".join(
            [
                r"\documentclass{article}",
                r"\usepackage{graphicx,booktabs,siunitx}",
                r"\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}",
                r"\begin{document}",
                latex(grid, Path("figure.pdf"), Look()),
                r"\clearpage\begin{table}\input{table.tex}\end{table}",
                r"\clearpage\begin{table}\input{odd.tex}\caption{"
                + tex(NAMES[3])
                + r"}\end{table}",
                r"\end{document}",
            ]
        ),
        encoding="utf-8",
    )
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:]
    pages = PdfReader(tmp_path / "paper.pdf").pages
    assert len(pages) == 3
    assert "Grad-CAM" in pages[0].extract_text()
    shown = pages[2].extract_text()
    for part in ("[UNK]", "*", "<b>50 %</b>", "a b", "<0.001"):
        assert part in shown
