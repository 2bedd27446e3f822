"""A supplement opens at its top, says what it holds and how that was chosen, and fits."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import zipfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq
import pytest
from PIL import Image

import exporter
from exporter.cli import main
from exporter.comparison import Comparison
from exporter.config import build_writer_config
from exporter.errors import ConfigError, ExporterError
from exporter.publish import Packed, pack
from exporter.publish.archive import check_pack
from exporter.publish.claims import read_claims, settled
from exporter.publish.fitting import Fitting
from exporter.publish.supplement import Contents, Supplement
from exporter.publish.venues import venues
from exporter.store import open_run
from exporter.watch import Watch
from exporter.writers.writing import write_all


@dataclass
class Opened:
    """A supplement, unpacked somewhere."""

    packed: Packed
    folder: Path

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def unpacked(packed: Packed, folder: Path) -> Opened:
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return Opened(packed, folder)


@pytest.fixture(scope="module")
def of_run(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Opened:
    place = tmp_path_factory.mktemp("of run")
    packed = pack(checkpoints[0], out=place / "run.zip", command="exporter pack a --out run.zip")
    return unpacked(packed, place / "é")


@pytest.fixture(scope="module")
def of_all(
    checkpoints: list[Path], comparison: Comparison, tmp_path_factory: pytest.TempPathFactory
) -> Opened:
    place = tmp_path_factory.mktemp("of all")
    packed = pack(comparison.path, *checkpoints, out=place / "all.zip")
    return unpacked(packed, place / "there")


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src") and value]


@pytest.mark.parametrize("name", ["of_run", pytest.param("of_all", marks=pytest.mark.slow)])
def test_every_link_of_every_page_stays_inside(name: str, request: pytest.FixtureRequest) -> None:
    opened: Opened = request.getfixturevalue(name)
    pages = list(opened.folder.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        parser = Links()
        parser.feed(page.read_text(encoding="utf-8"))
        for link in parser.links:
            parts = urlsplit(link)
            if parts.scheme == "data" or (parts.scheme == "https" and page.name == "methods.html"):
                continue
            assert not parts.scheme, (page, link)
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), (page, link)
            assert target.is_relative_to(opened.folder.resolve()), (page, link)


@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes(
    of_run: Opened, checkpoints: list[Path], tmp_path: Path
) -> None:
    again = pack(checkpoints[0], out=tmp_path / "run.zip", command="exporter pack a --out run.zip")
    assert again.path.read_bytes() == of_run.packed.path.read_bytes()
    with zipfile.ZipFile(again.path) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries[:2]] == ["index.html", "README.md"]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert list(tmp_path.iterdir()) == [again.path]


def test_it_says_what_it_was_made_from(of_run: Opened, checkpoints: list[Path]) -> None:
    plan = hashlib.sha256((checkpoints[0] / "plan.json").read_bytes()).hexdigest()
    told = json.loads(of_run.text("provenance.json"))
    assert told["exporter"] == exporter.__version__
    assert told["command"] == "exporter pack a --out run.zip"
    (made,) = told["runs"]
    assert (made["run"], made["plan"]) == ("a", plan)
    assert made["versions"] == {"exporter": "0.1.0", "torch": "2.14.1"}
    for page in ("index.html", "README.md"):
        assert plan in of_run.text(page)
        assert "exporter pack a --out run.zip" in of_run.text(page)


CREDITS = """# Credits

By [their authors](https://example.org/licence), <script>alert(1)</script> under **CC0**.

| file | author |
|---|---|
| `a.jpg` | A & B |
"""


def test_credits_in_markdown_are_set_as_such(checkpoints: list[Path], tmp_path: Path) -> None:
    (tmp_path / "CREDITS.md").write_text(CREDITS)
    packed = pack(checkpoints[0], out=tmp_path / "a.zip", credits=tmp_path / "CREDITS.md")
    opened = unpacked(packed, tmp_path / "there")
    page = opened.text("index.html").split('id="credits"')[1].split("</section>")[0]
    assert "<h3>Credits</h3>" in page
    assert '<a href="https://example.org/licence">their authors</a>' in page
    assert "<td><code>a.jpg</code></td>\n<td>A &amp; B</td>" in page
    assert not re.search(r"<script|\*\*|\|---", page)
    readme = opened.text("README.md")
    assert CREDITS.replace("# Credits", "### Credits").strip() in readme


@pytest.mark.slow
def test_chosen_and_random_images_are_shown_with_every_map(
    of_all: Opened, checkpoints: list[Path]
) -> None:
    page = of_all.text("index.html")
    chosen, drawn = page.split('id="random"')
    assert "8 of 12 drawn at random, seed 0" in drawn
    ids = [row.id for row in open_run(checkpoints[0]).index]
    rows = re.findall(r'shown/([0-9a-f-]{32})\.jpg"', drawn)
    assert len(set(rows)) == 8
    assert set(rows) < set(ids)
    # Two methods of three runs, the same for each image.
    for id in rows:
        maps = re.findall(rf'src="(shown/{id}-\d+\.jpg)"', drawn)
        assert len(maps) == 6
        for file in maps:
            assert Image.open(of_all.folder / file).size == (224, 224)
    assert "the first of" in chosen.lower()
    assert len(set(re.findall(r"shown/([0-9a-f-]{32})\.jpg", chosen))) >= 2


@pytest.mark.slow
def test_tables_are_the_runs(of_run: Opened, of_all: Opened, checkpoints: list[Path]) -> None:
    run = open_run(checkpoints[0])
    images = pq.read_table(of_run.folder / "data/report/images.parquet")
    assert images.equals(run.table())
    maps = pq.read_table(of_run.folder / "data/report/maps.parquet")
    assert maps.equals(run.table(["id", "path", "maps"]))
    assert (of_run.folder / "data/report/classes.parquet").read_bytes() == (
        checkpoints[0] / "set/classes.parquet"
    ).read_bytes()
    compared = pq.read_table(of_all.folder / "data/comparison/images.parquet")
    assert compared.num_rows == 12


@pytest.mark.slow
def test_claims_lead_to_pages(of_run: Opened, checkpoints: list[Path], tmp_path: Path) -> None:
    id = next(iter(open_run(checkpoints[0]).index)).id
    claims = tmp_path / "claims.md"
    claims.write_text(
        "# Claims\n\n- The maps <move> ([Figure 2](images.html#image=" + id + "&map=gradcam))\n"
        "  and stay there.\n- They agree: [methods](report/methods.html#gradcam), and\n"
        "* [the overview](#what)\n"
    )
    opened = unpacked(
        pack(checkpoints[0], out=tmp_path / "a.zip", claims=claims), tmp_path / "there"
    )
    page = opened.text("index.html")
    assert "The maps &lt;move&gt; (<a href=" in page
    assert f'<a href="report/images.html#image={id}&amp;map=gradcam">Figure 2</a>' in page
    assert '<a href="report/methods.html#gradcam">methods</a>' in page
    assert '<a href="report/index.html#what">the overview</a>' in page
    assert "2. They agree: [methods](report/methods.html#gradcam), and" in opened.text("README.md")


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("images.html#image=0123", "and that page has no 'image=0123'"),
        ("methods.html#nothing", "and that page has no 'nothing'"),
        ("images.html#what=1", "and that page has no 'what=1'"),
        (
            "none.html",
            "and the supplement has no such page; its reports begin at report/index.html",
        ),
        ("https://example.org/x", "which is outside of the supplement"),
        ("../x.html", "which is outside of the supplement"),
        ("%2e%2e/x.html", "which is outside of the supplement"),
    ],
)
def test_a_dead_link_of_a_claim_is_refused(
    link: str, said: str, of_run: Opened, tmp_path: Path
) -> None:
    file = tmp_path / "claims.md"
    file.write_text(f"- A claim ([page]({link}))\n")
    with pytest.raises(ConfigError, match="the claims link to") as raised:
        settled(read_claims(file), of_run.folder, ["report"], {"4567"})
    assert said in str(raised.value)


def test_claims_are_a_list(tmp_path: Path) -> None:
    file = tmp_path / "claims.md"
    file.write_text("Our claims are strong.\n")
    with pytest.raises(ConfigError, match="hold no list; write each as a line such as"):
        read_claims(file)


@pytest.mark.slow
def test_what_goes_first_is_stated(of_run: Opened, checkpoints: list[Path], tmp_path: Path) -> None:
    whole = of_run.packed.size
    with zipfile.ZipFile(of_run.packed.path) as archive:
        maps = archive.getinfo("data/report/maps.parquet").compress_size
    first = pack(checkpoints[0], out=tmp_path / "a.zip", max_size=whole - maps // 2)
    assert first.left_out == ("The raw maps (data/*/maps.parquet) are left out.",)
    assert first.size <= whole - maps // 2
    limit = whole - maps - 20_000
    second = unpacked(pack(checkpoints[0], out=tmp_path / "b.zip", max_size=limit), tmp_path / "b")
    assert second.packed.size <= limit
    *others, last = second.packed.left_out
    assert others == [
        "The raw maps (data/*/maps.parquet) are left out.",
        "The reports do not paint the map of any class.",
    ]
    number = int(re.match(r"(\d+) images? of 12 are shown whole", last)[1])  # type: ignore[index]
    sizes = [Image.open(file).size for file in (second.folder / "report/photos").rglob("*.jpg")]
    assert sorted(sizes) == [(64, 64)] * (12 - number) + [(224, 224)] * number
    assert last in second.text("README.md")
    assert f"{number} of the images are shown whole" in second.text("report/index.html")
    # Numbers are of all.
    assert '"images":12' in second.text("report/data/index.js")
    with pytest.raises(ConfigError, match=r"the smallest supplement, with \d+ images shown whole"):
        pack(checkpoints[0], out=tmp_path / "c.zip", max_size="20kB")
    assert not (tmp_path / "c.zip").exists()


@pytest.mark.slow
def test_the_comparison_keeps_to_its_pictured_images(
    comparison: Comparison, checkpoints: list[Path], tmp_path: Path
) -> None:
    supplement = Supplement([comparison.path], tmp_path / "c", unnamed=False, watch=Watch())
    ids = supplement.ids()
    supplement.write(tmp_path, Contents(pictured=frozenset(ids[:3])))
    photos = {file.stem: Image.open(file).size for file in tmp_path.rglob("photos/*/*.jpg")}
    assert {id for id, size in photos.items() if size == (224, 224)} == set(ids[:3])
    assert photos.keys() == set(ids)


def test_venues_are_data_with_a_source() -> None:
    for name, venue in venues().items():
        assert name == name.lower()
        assert venue.rule
        assert re.fullmatch(r"https://\S+", venue.source)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", venue.read)
    assert venues()["neurips"].bytes == 100_000_000
    assert venues()["uai"].bytes == 50_000_000
    assert venues()["cvpr"].bytes is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--for", "nips"], "no venue 'nips' is known; did you mean 'neurips'?"),
        (["--for", "zzz"], "no venue 'zzz' is known; choose one of neurips, iclr, "),
        (["--for", "cvpr"], "the size limit of a supplement for CVPR is not known: https://cvpr."),
        (["--max-size", "5 potatoes"], "'5 potatoes' is not a size"),
        (["--index", "none.md"], "the claims 'none.md' cannot be read"),
        (["--credits", "none.md"], "the credits 'none.md' cannot be read"),
        (["--out", "s.tar"], "a supplement cannot be called 's.tar'; its name ends in .zip"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    arguments: list[str],
    said: str,
    checkpoints: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "a.zip")
    assert main(["pack", str(checkpoints[0]), "--out", out, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_supplement_is_replaced_only_on_request_and_with_its_key(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, key = tmp_path / "a.zip", tmp_path / "a.zip.key.csv"
    pack(checkpoints[0], out=out, anonymous=True)
    kept = (out.read_bytes(), key.read_bytes())
    assert main(["pack", str(checkpoints[0]), "--out", str(out)]) == 2
    assert "a.zip' is there already; give --overwrite" in " ".join(capsys.readouterr().err.split())
    assert (out.read_bytes(), key.read_bytes()) == kept
    out.unlink()
    with pytest.raises(ExporterError, match=r"a\.zip\.key\.csv' is the key of one"):
        pack(checkpoints[0], out=out, anonymous=True)
    out.write_bytes(kept[0])
    # Of another run, its key is another.
    pack(checkpoints[1], out=out, anonymous=True, overwrite=True)
    assert key.read_text("utf-8").splitlines()[1].startswith("b,")
    pack(checkpoints[0], out=out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.slow
def test_a_size_above_the_venues_is_said(checkpoints: list[Path], tmp_path: Path) -> None:
    packed = pack(checkpoints[0], out=tmp_path / "a.zip", venue="uai", max_size="60MB")
    assert (
        "--max-size allows more than the 50,000,000 bytes that UAI takes; this supplement has "
        f"{packed.size:,}"
    ) in packed.notes


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(
    checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exporter.publish.fitting.write_zip", full)
    with pytest.raises(ConfigError, match="cannot be written: no space left on device"):
        pack(checkpoints[0], out=tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_check_holds_a_pack_against_its_checksums_and_its_run(
    of_run: Opened,
    checkpoints: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "run.zip"
    shutil.copy(of_run.packed.path, file)
    assert main(["check", str(file), "--run", str(checkpoints[0])]) == 0
    assert "every file is as it was written, and made from 1 run as given" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["check", str(file), "--run", str(checkpoints[1])]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "its plan is not in the pack" in said
    assert "it was also made from runs that were not given" in said
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("added.txt", "x")
    assert main(["check", str(file)]) == 2
    assert "added.txt was added after it was written" in capsys.readouterr().out
    with zipfile.ZipFile(of_run.packed.path) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            if name != "README.md":
                content = old.read(name)
                new.writestr(name, content + b" " * (name == "index.html"))
    assert main(["check", str(file)]) == 2
    said = capsys.readouterr().out
    assert "index.html has changed since it was written" in said
    assert "README.md is missing" in said
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a", "b")
    assert main(["check", str(other)]) == 2
    assert "is no supplement of exporter pack" in capsys.readouterr().err
    assert main(["check", str(checkpoints[0]), "--run", str(checkpoints[0])]) == 2
    assert "--run says what a supplement was made from" in capsys.readouterr().err


def test_a_run_that_has_changed_is_noticed(
    of_run: Opened, checkpoints: list[Path], tmp_path: Path
) -> None:
    copy = tmp_path / "a"
    shutil.copytree(checkpoints[0], copy)
    run = open_run(copy)
    assert list(check_pack(of_run.packed.path, [run])) == []
    (copy / "run.json").unlink()
    (problem,) = check_pack(of_run.packed.path, [run])
    assert problem.endswith("has changed since the pack was made from it")


def test_a_damaged_run_is_refused(checkpoints: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "a"
    shutil.copytree(checkpoints[0], copy)
    shard = copy / "shards" / "00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ExporterError, match=r"shards/00000\.parquet"):
        pack(copy, out=tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.slow
def test_reports_are_titled_as_the_run_was(checkpoints: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "a"
    shutil.copytree(checkpoints[0], copy)
    told = {"title": "What we saw", "report": {"authors": ["Ada"], "abstract": "In short."}}
    write_all(open_run(copy), build_writer_config({**told, "writers": []}))
    packed = pack(copy, out=tmp_path / "a.zip", anonymous=True)
    with zipfile.ZipFile(packed.path) as archive:
        page = archive.read("report/index.html").decode()
        front, readme = (archive.read(n).decode() for n in ("index.html", "README.md"))
    assert "<h1>What we saw</h1>" in front
    assert '<a href="report/index.html">What we saw</a>' in front
    assert "- `report/index.html`: What we saw\n" in readme
    assert "<h1>What we saw</h1>" in page
    assert "In short." in page
    assert "Ada" not in page


def test_a_pack_of_nonsense_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    for nonsense in ("[]", '{"runs": 1}', '{"runs": [{}]}', "{"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("checksums.sha256", "")
            archive.writestr("provenance.json", nonsense)
        problems = list(check_pack(file))
        assert problems[-1].startswith("a.zip is damaged (")


@pytest.mark.parametrize("kind", [7, 12, 14, 97])
def test_an_entry_of_another_kind_has_changed(kind: int, of_run: Opened, tmp_path: Path) -> None:
    file, content = tmp_path / "a.zip", bytearray(of_run.packed.path.read_bytes())
    entry = content.rindex(b"README.md")  # in the directory, where its compression is named
    content[entry - 36] = kind
    start = content.index(b"README.md")
    content[start - 22] = kind
    file.write_bytes(content)
    assert "README.md has changed since it was written (SHA-256 differs)" in check_pack(file)


@pytest.mark.slow
def test_the_last_try_is_the_smallest(tmp_path: Path) -> None:
    """Small photographs that are hardly smaller: what fits is far from what was thought to."""
    ids = [f"{number:02}" for number in range(60)]

    class Photographs:
        def ids(self) -> list[str]:
            return ids

        def write(self, folder: Path, contents: Contents) -> None:
            for id in ids:
                whole = contents.pictured is None or id in contents.pictured
                place = folder / "report" / "photos" / id / f"{id}.jpg"
                place.parent.mkdir(parents=True)
                place.write_bytes(random.Random(id).randbytes(4000 if whole else 3800))

    sources: Any = Photographs()
    fitting = Fitting(sources, 243_000, lambda *_: None, tmp_path, watch=Watch())
    assert fitting.fit()[-1].startswith("0 images of 60 are shown whole")
    assert fitting.zip.stat().st_size <= 243_000


@pytest.mark.slow
def test_runs_without_a_common_method_are_packed_apart(
    checkpoints: list[Path], tmp_path: Path, build: object
) -> None:
    other = build(tmp_path / "b", methods=("layercam",))  # type: ignore[operator]
    with pytest.raises(ExporterError, match="no map method in common; pack them apart"):
        pack(checkpoints[0], other, out=tmp_path / "a.zip")
