"""A published site holds all that its pages lead to, wherever it is; nothing else is touched."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest

import exporter
from exporter.cli import main
from exporter.comparison import Comparison
from exporter.errors import ConfigError, RunError, WriterError
from exporter.publish import places
from exporter.store import open_run
from exporter.writers import write
from exporter.writers.html import WRITER
from tests.publish.hub import TOKEN, serving


@pytest.fixture(scope="module")
def run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample run with folders beside its report, of which the report speaks."""
    place = tmp_path_factory.mktemp("published") / "run"
    shutil.copytree(sample_run, place, ignore=shutil.ignore_patterns("html", "wandb"))
    (place / "wandb" / "offline-run-20260101_000000-abc12345").mkdir(parents=True)
    (place / "tensorboard").mkdir(exist_ok=True)
    opened = open_run(place)
    write(opened, "html", WRITER.options(kept=tuple(row.id for row in opened.index)[:3]))
    return place


class Page(HTMLParser):
    """The ids of a page, and what it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.robots = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.ids |= {told["id"]} if "id" in told else set()
        self.links += [told[name] for name in ("href", "src") if name in told]
        if told.get("name") == "robots":
            self.robots = told["content"]


def broken(files: Mapping[str, bytes]) -> Iterator[str]:
    """Yield every link that leads nowhere, or to a place or an image that is not there."""
    pages = {n: Page(c.decode()) for n, c in files.items() if n.endswith(".html")}
    known = set(re.findall(r"[0-9a-f]{32}", files["data/index.js"].decode()))
    for name, page in pages.items():
        for link in page.links:
            told = urlsplit(link)
            if told.scheme:
                continue
            joined = posixpath.join(posixpath.dirname(name), unquote(told.path))
            target = posixpath.normpath(joined) if told.path else name
            if target not in files:
                yield f"{name}: {link}"
            elif "=" in told.fragment:
                image = parse_qs(told.fragment).get("image", [None])[0]
                if target != "images.html" or (image is not None and image not in known):
                    yield f"{name}: {link}"
            elif told.fragment and unquote(told.fragment) not in pages[target].ids:
                yield f"{name}: {link}"


def held(folder: Path) -> dict[str, bytes]:
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
def test_every_link_leads_somewhere_after_moving(run: Path, tmp_path: Path) -> None:
    assert main(["publish", str(run), "--to", str(tmp_path / "site")]) == 0
    files = held((tmp_path / "site").rename(tmp_path / "else where"))
    assert list(broken(files)) == []
    report = held(run / "html")
    assert files.keys() == {*report, "robots.txt", "site.json"}
    assert all(files[name] == report[name] for name in report if not name.endswith(".html"))
    assert files["robots.txt"] == b"User-agent: *\nDisallow: /\n"
    pages = {name: content.decode() for name, content in files.items() if name.endswith(".html")}
    assert {Page(text).robots for text in pages.values()} == {"noindex, nofollow"}
    # What is beside the report is not published, so nothing speaks of it.
    assert "cd wandb" in report["index.html"].decode()
    assert all(
        said not in pages["index.html"]
        for said in ("cd wandb", "--logdir", "parquet", "This folder")
    )
    assert "Versions" in pages["index.html"]


def test_the_site_says_what_made_it_and_how_to_make_it_again(run: Path, tmp_path: Path) -> None:
    exporter.publish_site(run, tmp_path / "site", robots=True)
    told = json.loads((tmp_path / "site" / "site.json").read_text("utf-8"))
    opened = open_run(run)
    line, again = told["made from"]
    assert f"plan {opened.files.sha256('plan.json')}; " in line
    assert opened.plan.model.title in line
    assert f"torch {opened.plan.versions['torch']}" in line
    assert again == "made again by: exporter publish run --to site --robots"
    assert sorted(told["files"]) == sorted(held(tmp_path / "site"))
    assert not (tmp_path / "site" / "robots.txt").exists()
    assert b'name="robots"' not in (tmp_path / "site" / "index.html").read_bytes()
    assert str(tmp_path) not in json.dumps(told)


def test_a_comparison_replaces_a_run_and_what_is_the_users_stays(
    run: Path, comparison: Comparison, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    exporter.publish_site(run, site)
    (site / "CNAME").write_text("maps.example")
    exporter.publish_site(comparison.path, site)
    files = held(site)
    assert files.pop("CNAME") == b"maps.example"
    assert files.keys() == {*held(comparison.path / "html"), "robots.txt", "site.json"}
    assert list(broken(files)) == []
    lines = json.loads(files["site.json"])["made from"]
    assert [line.split(":")[0] for line in lines[:3]] == ["run a", "run c", "run b"]


@pytest.mark.slow
def test_the_site_of_an_anonymous_report_names_its_plan_alone(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert main(["render", str(copy), "--writer", "html", "--anonymous"]) == 0
    exporter.publish_site(copy, tmp_path / "site")
    told = json.loads((tmp_path / "site" / "site.json").read_text("utf-8"))
    assert told["made from"] == [f"plan {open_run(copy).files.sha256('plan.json')}"]


def test_one_that_was_interrupted_is_replaced_by_the_next(
    run: Path, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, put = tmp_path / "site", places.Place.put

    def stop(place: places.Place, files: Mapping[str, bytes]) -> None:
        put(place, dict(list(files.items())[:5]))
        if "site.json" not in files:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(places.Place, "put", stop)
        exporter.publish_site(run, site)
    assert len(held(site)) == 6
    exporter.publish_site(comparison.path, site)
    assert held(site).keys() == {*held(comparison.path / "html"), "robots.txt", "site.json"}


def test_a_bucket_has_the_same_files(comparison: Comparison, tmp_path: Path) -> None:
    exporter.publish_site(comparison.path, tmp_path / "site")
    exporter.publish_site(comparison.path, "memory://bucket/maps")
    memory = fsspec.filesystem("memory")
    try:
        names = {name.removeprefix("/bucket/maps/"): name for name in memory.find("/bucket/maps")}
        assert names.keys() == held(tmp_path / "site").keys()
        assert (
            memory.cat_file(names["index.html"]) == (tmp_path / "site" / "index.html").read_bytes()
        )
    finally:
        memory.rm("/bucket", recursive=True)


def test_what_is_no_site_is_left_alone(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words")
    with pytest.raises(WriterError, match="holds something other than a site"):
        exporter.publish_site(comparison.path, tmp_path / "mine")
    with pytest.raises(WriterError, match="holds something other than a site"):
        exporter.publish_site(comparison.path, tmp_path / "mine" / "thesis.tex")
    (tmp_path / "mine" / "site.json").write_text("[]")
    with pytest.raises(WriterError, match=r"the site\.json of .* is damaged"):
        exporter.publish_site(comparison.path, tmp_path / "mine")
    assert sorted(held(tmp_path / "mine")) == ["site.json", "thesis.tex"]


def test_a_former_site_names_no_file_outside_of_it(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    for name in ("mine.txt", "site/old.html"):
        (tmp_path / name).write_text("x")
    told = {"files": ["../mine.txt", str(tmp_path / "mine.txt"), "old.html", "gone.html"]}
    (tmp_path / "site" / "site.json").write_text(json.dumps(told))
    exporter.publish_site(comparison.path, tmp_path / "site")
    assert (tmp_path / "mine.txt").read_text() == "x"
    assert not (tmp_path / "site" / "old.html").exists()


def test_bad_requests_are_one_sentence(run: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds the run or is part of it"):
        exporter.publish_site(run, run / "site")
    with pytest.raises(ConfigError, match="holds the run or is part of it"):
        exporter.publish_site(run, f"file://{run}/site")
    with pytest.raises(ConfigError, match="holds the run or is part of it"):
        exporter.publish_site(run, run.parent)
    with pytest.raises(RunError, match="has no report to publish"):
        exporter.publish_site(checkpoints[0], tmp_path / "site")
    with pytest.raises(ConfigError, match=r"is no Space; write hf://spaces/USER/NAME"):
        exporter.publish_site(run, "hf://spaces/maps")
    with pytest.raises(WriterError, match="cannot be written: ValueError: Protocol not known"):
        exporter.publish_site(run, "nowhere://bucket")
    assert not (tmp_path / "site").exists()


def test_a_damaged_report_and_one_of_an_older_exporter_are_not_published(
    run: Path, comparison: Comparison, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    next((copy / "html" / "photos").rglob("*.jpg")).write_bytes(b"another")
    with pytest.raises(RunError, match="is not complete: html/photos"):
        exporter.publish_site(copy, tmp_path / "site")
    old = shutil.copytree(comparison.path, tmp_path / "CMP")
    for name in ("a", "b", "c"):
        shutil.copytree(comparison.path.parent / name, tmp_path / name)
    index = old / "html" / "index.html"
    index.write_text(index.read_text("utf-8") + '<a href="../images.parquet">data</a>')
    with pytest.raises(RunError, match="leads to the folders beside it"):
        exporter.publish_site(old, tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.slow
def test_s3_is_told_what_each_file_is(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        with pytest.raises(WriterError, match="'s3://bucket/maps' cannot be written"):
            exporter.publish_site(comparison.path, "s3://bucket/maps")
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("bucket")
        exporter.publish_site(comparison.path, "s3://bucket/maps")
        exporter.publish_site(comparison.path, tmp_path / "site")
        bucket.pipe_file("bucket/maps/CNAME", b"maps.example")
        exporter.publish_site(comparison.path, "s3://bucket/maps")
        bucket.invalidate_cache()
        names = {name.removeprefix("bucket/maps/") for name in bucket.find("bucket/maps")}
        assert names == {*held(tmp_path / "site"), "CNAME"}
        kinds = {
            name: bucket.call_s3("head_object", Bucket="bucket", Key=f"maps/{name}")["ContentType"]
            for name in ("index.html", "assets/report.css", "assets/compare.js", "site.json")
        }
        assert kinds["index.html"] == "text/html"
        assert kinds["assets/report.css"] == "text/css"
        assert kinds["assets/compare.js"].endswith("/javascript")
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_space_is_made_once_and_each_report_is_one_commit(
    run: Path, comparison: Comparison, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub")
    with serving() as hub:
        # The library takes the server's address as it is imported: a process of its own.
        known = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HOME": str(tmp_path)}

        def published(source: Path, **other: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "exporter", "publish", str(source)]
            return subprocess.run(
                [*command, "--to", "hf://spaces/me/maps"],
                env=os.environ | known | other, capture_output=True, text=True, check=False,
            )  # fmt: skip

        refused = published(run, HF_TOKEN="another")
        assert refused.returncode == 2
        assert "error: 'hf://spaces/me/maps' cannot be written: " in refused.stderr
        assert "Traceback" not in refused.stderr
        assert hub.spaces == {}

        first = published(run)
        assert first.returncode == 0, first.stderr
        assert {"name": "maps", "organization": "me"}.items() <= hub.made[0].items()
        assert (hub.made[0]["type"], hub.made[0]["sdk"]) == ("space", "static")
        space = hub.spaces["me/maps"]
        assert b"sdk: static\napp_file: index.html\n" in space["README.md"]
        space["notes.txt"] = b"mine"

        second = published(comparison.path)
        assert second.returncode == 0, second.stderr
        exporter.publish_site(comparison.path, tmp_path / "site")
        assert space.keys() == {*held(tmp_path / "site"), "README.md", "notes.txt"}
        for name in ("index.html", "assets/compare.js", "data/index.js"):
            assert space[name] == (tmp_path / "site" / name).read_bytes()
        assert len(hub.commits) == 2
