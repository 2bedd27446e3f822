"""Several runs in one log, served and looked at in a real browser: every printed link is opened."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.errors import ConfigError, RunError
from exporter.store import Run, open_run
from exporter.writers import check, links, write
from exporter.writers.html import HtmlOptions
from exporter.writers.tensorboard import TensorBoardOptions
from exporter.writers.tensorboard.serving import LEAST, _named, serve

STEPS = (10, 20)


@pytest.fixture(scope="module")
def runs(
    sample_run: Path, make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> list[Run]:
    """Two steps of a model in one log, and another architecture with layers of other names."""
    base = tmp_path_factory.mktemp("several")
    first = open_run(shutil.copytree(sample_run, base / "first"))
    layers = {"features.2": 28, "features.9": 14, "features.12": 7}
    other = open_run(make_run(base / "other", model="mobilenet_v3", layers=layers))
    for run, step in ((first, STEPS[0]), (first, STEPS[1]), (other, None)):
        ids = tuple(entry.id for entry in run.plan.images[:4])
        options = TensorBoardOptions(kept=ids, step=step, tensorboard_dir=base / "logs")
        written = write(run, "tensorboard", options)
        assert written.open == f"exporter tensorboard {base / 'logs'}"
    return [first, other]


def asked(address: str, path: str, **query: str) -> Any:
    """Ask the server, which loads as it answers, until it knows."""
    url = f"{address}data/{path}?{urllib.parse.urlencode(query)}"
    for _ in range(100):
        with urllib.request.urlopen(url, timeout=30) as answer:
            said = json.loads(answer.read())
        if said:
            return said
        time.sleep(0.1)
    raise AssertionError(url)


def waited(address: str, run: str, tags: Collection[str] = (), plugin: str = "text") -> None:
    """Wait until the server has loaded a run, and these tags of it."""
    for _ in range(600):
        known = asked(address, f"plugin/{plugin}/tags")
        if run in known and set(known[run]) >= set(tags):
            return
        time.sleep(0.1)
    raise AssertionError(run)


def test_two_architectures_share_the_names_of_stages(runs: list[Run]) -> None:
    first, other = (links.stage_names(run.plan) for run in runs)
    assert (first["layer4"], first["layer3"]) == ("deepest", "stage-4")
    assert (other["features.12"], other["features.9"], other["features.2"]) == (
        *("deepest", "stage-4", "stage-3"),
    )


def test_blocks_of_one_stride_are_told_apart_from_the_deepest(
    make_run: Any, tmp_path: Path
) -> None:
    layers = {"blocks.2": 14, "blocks.5": 14, "blocks.8": 14, "blocks.11": 14}
    run = open_run(make_run(tmp_path / "run", layers=layers, shards=0))
    names = links.stage_names(run.plan)
    assert [names[layer] for layer in layers] == ["stage-4.3", "stage-4.2", "stage-4", "deepest"]
    assert names[""] == names["attention"] == "deepest"


def test_an_absolute_path_is_told_by_its_last_part(runs: list[Run]) -> None:
    plan, row = runs[0].plan, next(runs[0].rows())
    entries = [replace(plan.images[k], path=f"/home/me/{k}/cat.jpg") for k in range(2)]
    shared = links.shared_paths(replace(plan, images=tuple(entries)))
    assert shared == {"cat.jpg"}
    absolute = replace(row, path="/home/me/0/cat.jpg", id="k1")
    assert links.image_tag("deepest", absolute, shared) == "deepest/cat.jpg@k1"
    assert links.image_tag("deepest", absolute) == "deepest/cat.jpg"
    tags, _ = filters(links.image_link("http://localhost/", absolute))
    assert re.search(tags, "deepest/cat.jpg@k1")
    assert re.search(tags, "stage-4/cat.jpg")
    assert not re.search(tags, "deepest/cat.jpg@k2")


def test_steps_of_a_model_are_in_one_log_and_are_replaced_by_step(runs: list[Run]) -> None:
    log = runs[0].path.parent / "logs"
    assert {folder.name for folder in log.iterdir()} == {"resnet18", "mobilenet_v3@none"}
    files = sorted(file.name for file in (log / "resnet18" / "gradcam").iterdir())
    assert [int(name.split(".")[3]) for name in files] == list(STEPS)
    ids = tuple(entry.id for entry in runs[0].plan.images[:1])
    options = TensorBoardOptions(kept=ids, step=STEPS[0], tensorboard_dir=log)
    before = {file: file.read_bytes() for file in log.rglob("*.exporter")}
    assert write(runs[0], "tensorboard", options).notes[-1].startswith("1 of 20 images")
    after = {file: file.read_bytes() for file in log.rglob("*.exporter")}
    assert before.keys() == after.keys()
    changed = {file.name.split(".")[3] for file in after if after[file] != before[file]}
    assert changed == {f"{STEPS[0]:010d}"}
    for file, content in before.items():
        file.write_bytes(content)


def test_another_run_at_the_same_step_is_said(runs: list[Run], tmp_path: Path) -> None:
    copy = shutil.copytree(runs[0].path, tmp_path / "seed-1")
    log = shutil.copytree(runs[0].path.parent / "logs", tmp_path / "logs")
    for file in log.rglob("*.exporter"):
        file.rename(file.with_name(re.sub(r"\.[0-9a-f]{8}\.", ".00000000.", file.name)))
    options = TensorBoardOptions(step=STEPS[0], tensorboard_dir=log)
    (*_, note) = write(open_run(copy), "tensorboard", options).notes
    assert note.startswith("the log has another run of this model at step 10")


def test_a_log_that_cannot_be_written_is_one_sentence(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    options = TensorBoardOptions(tensorboard_dir=tmp_path / "taken")
    copy = shutil.copytree(runs[0].path, tmp_path / "run")
    with pytest.raises(Exception, match="taken' cannot be written"):
        write(open_run(copy), "tensorboard", options)


def test_what_has_no_log_is_said_with_what_writes_it(sample_run: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"exporter render .* --writer tensorboard"),
        serve([sample_run]),
    ):
        pass
    with pytest.raises(ConfigError, match="has no TensorBoard log in it"), serve([tmp_path]):
        pass
    with pytest.raises(ConfigError, match="there is no folder"), serve([tmp_path / "none"]):
        pass
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert [name for name, _ in _named(folders, folders)] == ["run", "run-2"]


OUTWARD = 'embeddings { tensor_path: "features.bytes" sprite { image_path: "\\057etc/passwd" } }'
CHANGES: dict[str, Callable[[Path], object]] = {
    r"1\.tfevents' is a link": lambda log: (log / "1.tfevents").symlink_to("/etc/passwd"),
    "tensorboard' is a link": lambda log: (log.rename(log.parent / "x"), log.symlink_to("x")),
    "is not a regular file": lambda log: os.mkfifo(log / "2.tfevents"),
    r"not beside it \('/etc/passwd'\); remove it": lambda log: (
        log / "projector_config.pbtxt"
    ).write_text(OUTWARD),
    "is damaged; remove it": lambda log: (log / "projector_config.pbtxt").write_text("{"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("says", CHANGES)
def test_a_log_that_leads_out_of_its_run_is_not_served(
    says: str, together: bool, tmp_path: Path
) -> None:
    log = tmp_path / "runs" / "run" / "tensorboard"
    log.mkdir(parents=True)
    (log.parent / "plan.json").write_text("{}")
    (log / "0.tfevents").touch()
    CHANGES[says](log)
    folder = log.parent.parent if together else log.parent
    with pytest.raises(RunError, match=says), serve([folder]):
        pass


@pytest.fixture(scope="module")
def several(runs: list[Run]) -> Iterator[dict[str, str]]:
    """What the command prints of a log with steps, and two runs beside it."""
    with serve([runs[0].path.parent / "logs", *(run.path for run in runs)], port=0) as views:
        yield dict(views)


@pytest.mark.slow
def test_each_image_has_its_steps(several: dict[str, str], runs: list[Run]) -> None:
    address = several["everything"]
    waited(address, "logs/resnet18")
    tag = links.image_tag("deepest", next(runs[0].rows()))
    for run in ("logs/resnet18/gradcam", "logs/resnet18/input"):
        shown = asked(address, "plugin/images/images", run=run, tag=tag, sample="0")
        assert [entry["step"] for entry in shown] == list(STEPS)
    curve = asked(address, "plugin/scalars/scalars", run="logs/resnet18", tag="set/accuracy")
    assert [step for _, step, _ in curve] == list(STEPS)


@pytest.mark.slow
def test_a_folder_of_runs_lines_up_models_and_every_step_is_kept(
    runs: list[Run], tmp_path: Path
) -> None:
    """Runs, and a log that has more steps than TensorBoard keeps by itself."""
    folder, logs = tmp_path / "runs", tmp_path / "runs" / "logs"
    copies = [open_run(shutil.copytree(run.path, folder / run.path.name)) for run in runs]
    row = next(copies[0].rows())
    for step in range(LEAST + 1):
        options = TensorBoardOptions(kept=(row.id,), step=step, tensorboard_dir=logs)
        write(copies[0], "tensorboard", options)
    given = ["--writer", "tensorboard", "--step", "99", "--tensorboard-dir", str(logs)]
    assert main(["render", str(copies[0].path), *given]) == 0
    tag = links.image_tag("deepest", row)
    with serve([folder], port=0) as views:
        address, printed = dict(views)["everything"], dict(views)
        models = {
            *("logs/resnet18/gradcam", "first/tensorboard/resnet18/gradcam"),
            "other/tensorboard/mobilenet_v3@none/gradcam",
        }
        for name in models:
            waited(address, name, [tag], plugin="images")
        known = asked(address, "plugin/images/tags")
        tags, own = filters(printed["methods and models side by side"])
        shown = {name for name in known if re.search(own, name) and tag in known[name]}
        assert re.search(tags, tag)
        assert models <= shown
        steps = asked(
            address, "plugin/images/images", run="logs/resnet18/gradcam", tag=tag, sample="0"
        )
        assert [entry["step"] for entry in steps] == [*range(LEAST + 1), 99]


def source_of(address: str) -> tuple[str, str]:
    """Return the run and the tag that a picture's address stands for."""
    (key,) = urllib.parse.parse_qs(urllib.parse.urlparse(address).query)["blob_key"]
    _, run, tag, *_ = json.loads(base64.urlsafe_b64decode(key + "=" * (-len(key) % 4)))
    return run, tag


def filters(address: str) -> tuple[str, str]:
    """Return the regular expressions of a link to images, for tags and for runs."""
    told = urllib.parse.parse_qs(urllib.parse.urlparse(address).fragment)
    return told["tagFilter"][0], told.get("regexInput", [""])[0]


def shown_by(page: Any, address: str) -> set[tuple[str, str]]:
    """Return run and tag of the pictures that a link shows, once it was opened.

    All that its filters promise are counted; those of the first page are in sight.
    """
    known = asked(address.partition("#")[0], "plugin/images/tags")
    tags, wanted = filters(address)
    promised = {
        (own, tag): known[own][tag]["samples"]
        for own in known
        for tag in known[own]
        if re.search(wanted, own) and re.search(tags, tag)
    }
    view = page.locator("tf-image-dashboard tf-category-paginated-view").first
    view.get_by_text(str(sum(promised.values())), exact=True).first.wait_for(timeout=60_000)
    sources = view.locator("tf-image-loader img")
    sources.first.wait_for(timeout=60_000)
    pairs = {source_of(src) for src in sources.evaluate_all("all => all.map(one => one.src)")}
    assert pairs
    assert pairs <= promised.keys()
    return set(promised)


def opened(page: Any, address: str) -> set[tuple[str, str]]:
    """Open a link as from a command line, and return what it shows."""
    page.goto("about:blank")
    page.goto(address)
    return shown_by(page, address)


@pytest.mark.slow
@pytest.mark.browser
def test_every_link_of_one_run_shows_its_cards(
    runs: list[Run], chromium: Any, tmp_path: Path
) -> None:
    with serve([runs[1].path], port=0) as views, chromium.new_page() as page:
        look(page, dict(views), "mobilenet_v3@none", runs[1], tmp_path)


@pytest.mark.slow
@pytest.mark.browser
def test_every_link_of_three_runs_shows_its_cards(
    runs: list[Run], several: dict[str, str], chromium: Any, tmp_path: Path
) -> None:
    with chromium.new_page(viewport={"width": 1500, "height": 1000}) as page:
        sides = look(page, several, "other/mobilenet_v3@none", runs[1], tmp_path)
        # Beside one another.
        assert {"first", "logs", "other"} == {run.partition("/")[0] for run, _ in sides}
        along_steps(page, several["checkpoints, along their steps"])


def look(page: Any, views: dict[str, str], name: str, run: Run, work: Path) -> set[tuple[str, str]]:
    """Open the links that the command prints, and click those of the run's page and its report.

    Returns:
        Run and tag of the pictures of one image.
    """
    address = views["everything"]
    waited(address, name)
    printed = {
        words: {tag.partition("/")[0] for _, tag in opened(page, link)}
        for words, link in views.items()
        if "#images" in link
    }
    assert printed == {
        "every image, all its maps": {"montage"},
        "methods and models side by side": {"deepest"},
    }
    for words, said in (
        ("accuracy, agreement, faithfulness", "calibration error"),
        ("settings and these numbers", "torchvision:mobilenet_v3"),
    ):
        page.goto("about:blank")
        page.goto(views[words])
        page.get_by_text(said, exact=True).first.wait_for(timeout=60_000)

    (text,) = asked(address, "plugin/text/text", run=name, tag="run/about")
    inside = [html.unescape(link) for link in re.findall(r'href="(/[^"]*)"', text["text"])]
    shown: dict[str, set[str]] = {}
    for link in inside:
        page.goto("about:blank")
        page.goto(f"{address}#text")
        page.locator(f"tf-text-loader a[href='{link}']").last.click(timeout=60_000)
        if link.endswith("#timeseries"):
            page.locator("image-card").first.wait_for(timeout=60_000)
            continue
        for own, tag in shown_by(page, address.rstrip("/") + link):
            shown.setdefault(tag.partition("/")[0], set()).add(
                own[own.index("mobilenet_v3@none") :]
            )
    methods = {f"mobilenet_v3@none/{method.name}" for method in run.plan.methods}
    assert shown == {
        **{group: {"mobilenet_v3@none"} for group in ("montage", "weights", "maximised")},
        **dict.fromkeys(("stage-4", "stage-3"), methods),
        "deepest": methods | {"mobilenet_v3@none/input"},
    }

    copy = open_run(shutil.copytree(run.path, work / "run"))
    row = next(run.rows())
    write(copy, "html", HtmlOptions(kept=(row.id,), tensorboard_url=address))
    page.goto((copy.path / "html/index.html").as_uri())
    page.locator("[data-control=tensorboard-server]").click()
    page.locator("tf-category-paginated-view, image-card, scalar-card").first.wait_for(
        timeout=60_000
    )
    page.goto(f"{(copy.path / 'html/images.html').as_uri()}#image={row.id}")
    page.locator("[data-control=viewer-tensorboard]").click()
    sides = shown_by(page, links.image_link(address, row))
    assert {tag.partition("/")[2] for _, tag in sides} == {row.path}
    return sides


def along_steps(page: Any, address: str) -> None:
    """Each card has a slider, and with Link by step the mark of a pinned curve moves them all."""
    page.goto("about:blank")
    page.goto(address.replace("#timeseries", "&runFilter=logs%2Fresnet18#timeseries"))
    cards = page.locator("image-card")
    cards.nth(1).locator("mat-slider").wait_for(timeout=60_000)

    def steps() -> set[str]:
        texts = " ".join(cards.all_inner_texts())
        return set(re.findall(r"Step (\d+)", texts))

    assert steps() == {"20"}
    cards.first.locator("mat-slider input").fill("0")
    assert steps() == {"10", "20"}
    page.get_by_text("Link by step").click()
    mark = page.locator("card-fob [contenteditable]").first
    mark.fill("10")
    mark.press("Enter")
    page.wait_for_function("() => !document.body.innerText.includes('Step 20')")
    assert steps() == {"10"}


def test_a_run_in_the_folder_of_the_log_keeps_its_own_files(
    sample_run: Path, tmp_path: Path
) -> None:
    run = open_run(shutil.copytree(sample_run, tmp_path / "logs/runs/first"))
    write(run, "tensorboard", TensorBoardOptions(step=3, tensorboard_dir=tmp_path / "logs"))
    assert list(check(run)) == []
    copied = {path.name for path in (tmp_path / "logs/resnet18").rglob("*.exporter")}
    own = {path.name for path in (run.path / "tensorboard").rglob("*.exporter")}
    assert copied == own != set()
