"""The report as one file: whole, within its budget, and allowed exactly its own scripts."""

from __future__ import annotations

import hashlib
import html
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from exporter.config import build_writer_config
from exporter.errors import ConfigError, WriterError
from exporter.store import Run, open_run
from exporter.writers import write
from exporter.writers.writing import writer_options


def single(run: Run, size: str) -> str:
    config = build_writer_config({"single_file": True, "max_size": size})
    write(run, "html", writer_options(run, config)["html"])
    file = run.path / "html" / "report.html"
    assert file.stat().st_size <= config.max_size
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("single") / "run"))


@pytest.fixture(scope="module")
def whole(run: Run) -> str:
    return single(run, "20MB")


def photographs(text: str) -> dict[str, bytes]:
    found = re.findall(r'<img[^>]*src="data:image/jpeg;base64,([^"]+)" data-photo="(\w+)"', text)
    return {id: b64decode(content) for content, id in found}


def test_it_holds_every_image_once_where_they_fit(run: Run, whole: str) -> None:
    stored = {row.id: row.image for row in run.rows(["image"]) if row.image is not None}
    assert photographs(whole) == stored
    size = f"{len(whole.encode()) / 1e6:.3g} MB"
    assert f"This file of {size} holds all 20 images, within 20 MB." in whole


def test_nothing_in_it_comes_from_anywhere_else(whole: str) -> None:
    sources = re.findall(r'<(?:img|script|link|iframe)\b[^>]*?\s(?:src|href)="([^"]*)"', whole)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    ids = set(re.findall(r'\sid="([^"]+)"', whole))
    for link in re.findall(r'<a\b[^>]*?\shref="([^"]+)"', whole):
        address = html.unescape(link)
        inside = address.startswith("#") and ("=" in address or address[1:] in ids)
        assert inside or address.startswith(("https://", "http://")), address


def test_no_id_is_there_twice(whole: str) -> None:
    markup = re.sub(r"<script>.*?</script>", "", whole, flags=re.DOTALL)
    ids = re.findall(r'\sid="([^"]+)"', markup)
    assert len(ids) == len(set(ids))


def test_its_policy_allows_exactly_its_scripts_and_style(whole: str) -> None:
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', whole)[1])
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        allowed = re.search(rf"{tag}-src ([^;]+)", policy)[1].split()
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", whole, re.DOTALL)
        hashes = [b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
        assert {f"'sha256-{one}'" for one in hashes} == set(allowed)


@pytest.mark.slow
def test_under_a_small_budget_it_chooses_by_the_rules_and_says_so(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    images = [sampling.SampleImage(f"{n}.jpg", sampling.CLASSES[n % 8]) for n in range(90)]
    run = open_run(make_run(tmp_path / "run", images=images, shard_size=30))
    text = single(run, "2MB")
    kept = photographs(text)
    assert 20 < len(kept) < 80
    config = build_writer_config({"keep": len(kept)})
    assert set(writer_options(run, config)["html"].kept) == set(kept)
    assert re.search(rf"This file of [0-9.]+ MB holds {len(kept)} of 90 images, chosen by", text)
    assert "The rest is in the folder of the report." in text
    assert len(text.encode()) > 1_700_000
    assert single(run, "2MB") == text


def test_a_budget_below_the_pages_is_refused_and_leaves_the_report_that_was(run: Run) -> None:
    single(run, "20MB")
    before = (run.path / "html" / "index.html").read_text("utf-8")
    with pytest.raises(WriterError, match="--max-size allows 20,000"):
        single(run, "20kB")
    assert (run.path / "html" / "index.html").read_text("utf-8") == before


def test_names_that_would_end_a_script_do_not(
    make_run: Callable[..., Path], sampling: ModuleType, tmp_path: Path
) -> None:
    images = (
        sampling.SampleImage("</script><script>alert(1)</script>.jpg", "猫"),
        sampling.SampleImage("bad.jpg", error="</script><b>no</b>"),
    )
    text = single(open_run(make_run(tmp_path / "run", images=images)), "5MB")
    assert text.count("<script>") == text.count("</script>")
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    ("text", "size"), [("500kB", 500_000), ("20MB", 20_000_000), ("1.5GB", 1_500_000_000)]
)
def test_sizes_are_written_as_people_write_them(text: str, size: int) -> None:
    assert build_writer_config({"single_file": True, "max_size": text}).max_size == size


@pytest.mark.parametrize("text", ["", "much", "20 bananas", "-1MB", "0MB"])
def test_a_size_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="size"):
        build_writer_config({"single_file": True, "max_size": text})
