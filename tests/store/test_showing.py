"""A run in the hand: found by path, drawn over its images, shown by a notebook."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

from exporter.errors import ConfigError, RunError
from exporter.images import hash_contents
from exporter.records import ImageEntry, Row
from exporter.render import OPACITY, decode_image, heatmap
from exporter.store import create_run, open_run
from exporter.store.finding import find_image
from exporter.store.plans import ImageColumns


def columns(*paths: str) -> ImageColumns:
    keys = [f"{number:032x}" for number in range(len(paths))]
    return ImageColumns.of(list(map(ImageEntry, keys, keys, paths)))


# ------------------------------------------------------------ found by path


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("cats/a.jpg", 0),
        ("/nowhere/photos/cats/a.jpg", 0),
        ("./photos/../photos/dogs/a.jpg", 1),
        (Path("b.jpg"), 2),
        ("sub/b.jpg", 2),
        ("c.jpg", 3),  # as given, though another ends with it
        ("d/c.jpg", 4),
        ("猫.jpg", 5),
    ],
)
def test_a_path_is_that_of_the_set_or_ends_like_it(given: str | Path, place: int) -> None:
    images = columns("cats/a.jpg", "dogs/a.jpg", "sub/b.jpg", "c.jpg", "d/c.jpg", "动物/猫.jpg")
    assert find_image(given, images) == place


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a.jpg", r"^'a.jpg' is 2 images of the run, 'cats/a.jpg' \(.*\), 'dogs/a.jpg' \(.*\); "),
        ("xa.jpg", r"^the run has no image 'xa.jpg'; did you mean 'cats/a.jpg'\?$"),
        ("tac/c.txt", r"no image 'tac/c.txt'; choose one of cats/a.jpg, dogs/a.jpg, sub/see.jpg$"),
        ("ee.jpg", r"no image 'ee.jpg'; did you mean 'sub/see.jpg'\?$"),
        ("", r"no image ''; choose one of cats/a.jpg, "),
    ],
)
def test_a_path_of_no_image_or_of_several_is_one_sentence(given: str, says: str) -> None:
    with pytest.raises(RunError, match=says):
        find_image(given, columns("cats/a.jpg", "dogs/a.jpg", "sub/see.jpg"))


def test_the_contents_of_a_file_decide_which_image_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "a.jpg"
    file.write_bytes(b"a")
    images = replace(columns("a.jpg", "sub/a.jpg"), key=[hash_contents(b"a"), "0" * 32])
    assert find_image(file, images) == 0
    file.write_bytes(b"other")
    with pytest.raises(RunError, match=r"a\.jpg' is not the image 'a\.jpg' of the run: its con"):
        find_image(file, images)
    with pytest.raises(RunError, match="is 2 images of the run"):
        find_image("/elsewhere/sub/a.jpg", images)


def test_rows_maps_and_pictures_are_found_by_path(sample_run: Path) -> None:
    run = open_run(sample_run)
    row = next(row for row in run.rows() if row.path == "chelsea.jpg")
    assert run.row("/any/folder/chelsea.jpg") == row
    assert run.image(Path("chelsea.jpg")) == row.image
    found = run.map("photos/chelsea.jpg", "layercam", "layer3")
    np.testing.assert_array_equal(found, run.map(row.id, "layercam", "layer3"))
    assert run.map(row.id, "layercam").shape == (7, 7)  # the deepest


# ------------------------------------------------------------ overlays


def test_an_overlay_is_the_heatmap_of_the_map_over_the_view(sample_run: Path) -> None:
    run = open_run(sample_run)
    drawn = run.overlay("chelsea.jpg", "gradcam", opacity=1, colormap="turbo")
    assert isinstance(drawn, Image.Image)
    assert (drawn.mode, drawn.size) == ("RGB", (224, 224))
    values = run.map("chelsea.jpg", "gradcam", "layer4")
    view = decode_image(run.image("chelsea.jpg")).astype(float)

    def over(values: np.ndarray, most: float, *, rectify: bool, colormap: str) -> np.ndarray:
        colours = heatmap(values, (224, 224), rectify=rectify, colormap=colormap)
        share = heatmap(values, (224, 224), rectify=rectify, colormap="grey") / 255 * most
        return view * (1 - share) + colours * share

    expected = over(values, 1, rectify=True, colormap="turbo")
    assert np.abs(np.asarray(drawn) - expected).max() <= 1.5
    bare = run.overlay("chelsea.jpg", "gradcam", "layer3", opacity=0)
    np.testing.assert_array_equal(np.asarray(bare), view)
    usual = np.asarray(run.overlay("chelsea.jpg", "eigencam", "layer3"))
    signed = run.map("chelsea.jpg", "eigencam", "layer3")
    expected = over(signed, OPACITY, rectify=False, colormap="viridis")
    assert np.abs(usual - expected).max() <= 1.5


def test_the_deepest_layer_is_the_deepest_where_the_method_has_a_map(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    methods = ("gradcam", "saliency", "rollout")
    images = sampling.SAMPLE_IMAGES[:1]
    path = make_run(tmp_path / "run", images=images, methods=methods, combined=["attention"])
    run = open_run(path)
    id = run.plan.images[0].id
    assert run.map(id, "gradcam").shape == (7, 7)
    assert run.map(id, "saliency").shape == (56, 56)
    assert run.map(id, "rollout").shape == (14, 14)
    assert run.overlay(id, "saliency").size == (224, 224)


def test_what_cannot_be_drawn_is_one_sentence(sample_run: Path) -> None:
    run = open_run(sample_run)
    with pytest.raises(RunError, match=r"'broken/truncated\.jpg' has no maps: the JPEG data end"):
        run.overlay("truncated.jpg", "gradcam")
    with pytest.raises(RunError, match="no maps of 'gradcamm'; did you mean 'gradcam'"):
        run.overlay("chelsea.jpg", "gradcamm")
    with pytest.raises(RunError, match="'gradcam' has no map at 'layer44'; did you mean 'layer4'"):
        run.overlay("chelsea.jpg", "gradcam", "layer44")
    with pytest.raises(ConfigError, match="no colour map 'turb'; did you mean 'turbo'"):
        run.overlay("chelsea.jpg", "gradcam", colormap="turb")
    with pytest.raises(ConfigError, match="the opacity is 50; give a number from 0 to 1"):
        run.overlay("chelsea.jpg", "gradcam", opacity=50)


# ------------------------------------------------------------ in a notebook


def thumbnails(html: str) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [decode_image(base64.b64decode(text)) for text in encoded]


def test_a_notebook_shows_what_a_run_is_and_a_few_images(sample_run: Path) -> None:
    run = open_run(sample_run)
    html = run._repr_html_()
    assert "20 images of photos" in html
    assert "Grad-CAM, LayerCAM, Eigen-CAM; layers: layer3, layer4" in html
    totals = run.totals
    assert (
        f"accuracy {100 * totals.correct / totals.labelled:.1f} % of {totals.labelled} lab" in html
    )
    assert [picture.shape for picture in thumbnails(html)] == [(128, 128, 3)] * 6
    strip = next(strip for strip in run.summary.strips if strip.name == "most wrong")
    first = run.overlay(strip.ids[0], "gradcam")
    small = cv2.resize(np.asarray(first), (128, 128), interpolation=cv2.INTER_AREA)
    shown = html.index(f">{strip.name}<")
    nearest = thumbnails(html[: shown + 1])[-1]
    assert np.abs(small.astype(int) - nearest).mean() < 6
    assert len(html) < 60_000


def test_a_thumbnail_explains_the_first_target_at_the_deepest_layer(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    images = sampling.SAMPLE_IMAGES[:1]
    run = open_run(make_run(tmp_path / "run", images=images, target="top-2"))
    [shown] = thumbnails(run._repr_html_())
    first, second = run.row(images[0].path).maps[-2:]
    assert first.target != second.target

    def distance(target: str) -> float:
        whole = np.asarray(run.overlay(images[0].path, "gradcam", target=target))
        small = cv2.resize(whole, (128, 128), interpolation=cv2.INTER_AREA)
        return float(np.abs(small.astype(int) - shown).mean())

    assert distance(first.target) < 6 < distance(second.target)


def test_what_a_notebook_shows_is_escaped(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    images = sampling.HOSTILE[:2]
    html = open_run(make_run(tmp_path / "<b>", images=images, model="<i>net"))._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg" in html
    assert re.findall(r"<(?!/?(?:div|b|code|img)\b)", html) == []
    assert len(thumbnails(html)) == 2


def test_a_run_without_images_to_show_is_shown_too(
    make_run: Callable[..., Path], sampling: ModuleType, sample_run: Path, tmp_path: Path
) -> None:
    empty = open_run(make_run(tmp_path / "empty", shards=0))._repr_html_()
    assert "20 images of photos; 0 of 3 shards are done" in empty
    assert thumbnails(empty) == []
    unread = sampling.SAMPLE_IMAGES[-3:-2]
    assert unread[0].error
    html = open_run(make_run(tmp_path / "unread", images=unread))._repr_html_()
    assert "1 image of photos" in html
    assert thumbnails(html) == []
    shutil.copytree(sample_run, tmp_path / "damaged")
    (tmp_path / "damaged/set/summary.json").write_text("{")
    assert "summary.json&#x27; is damaged" in open_run(tmp_path / "damaged")._repr_html_()


@pytest.mark.slow
def test_of_a_hundred_thousand_images_a_notebook_reads_a_few(
    sampling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tuple(ImageEntry(f"{n:032x}", f"{n:032x}", f"{n}.jpg") for n in range(100_000))
    shards = tuple((start, start + 1000) for start in range(0, 100_000, 1000))
    plan = replace(sampling.sample_plan(), images=images, shards=shards, recorded=())
    picture = sampling._jpeg(np.zeros((32, 32, 3), np.uint8))[0]
    with create_run(tmp_path / "run", plan) as folder:
        for index in (0, 50, 99):
            part = images[slice(*shards[index])]
            rows = [Row(image.id, image.key, image.path, image=picture) for image in part]
            folder.write_shard(index, rows, {})
    run = open_run(folder.path)
    read = []
    real = type(run)._read
    monkeypatch.setattr(
        type(run), "_read", lambda self, *given: read.append(given) or real(self, *given)
    )
    html = run._repr_html_()
    assert len(thumbnails(html)) == 6
    assert len(read) == 6
    assert {given[0] for given in read} == {0, 50, 99}
