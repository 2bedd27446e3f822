"""Of a run with thirty identifiers in ten kinds of places, what is written for review has none."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exporter.anonymity import named, search
from exporter.cli import main
from exporter.comparison import check, compare, open_comparison
from exporter.comparison.joining import join
from exporter.config import build_writer_config
from exporter.errors import ConfigError
from exporter.publish import pack, publish_site
from exporter.publish.archive import check_pack
from exporter.publish.choosing import Grid, Named, unnamed
from exporter.records import (
    Findings,
    LayoutRecord,
    MethodRecord,
    ModelRecord,
    Plan,
    Row,
    Totals,
)
from exporter.store import anonymous, create_run, open_run
from exporter.store.pictures import without_metadata
from exporter.summaries import Scope, channel_table, shard_parts
from exporter.writers.writing import write_all

PLANTED = [f"planted{number:02d}lab" for number in range(30)]
(
    USER, HOST, FOLDER, SET, FILE, STEM, MASK, UNREAD, SPEC, CHECKPOINT, TARGET, CLASSES, RESHAPE,
    NOTE, UNTOLD, BUILD, FORK, PAPER, LAYOUT, EXIF, COMMENT, AFTER, SHEET, MADE, ENTITY, PROJECT,
    TAG, REPORT, SERVER, AUTHOR,
) = PLANTED  # fmt: skip


def told_jpeg(content: bytes) -> bytes:
    """Return a JPEG with its maker in EXIF, in a comment and behind its end."""
    exif = Image.Exif()
    exif[0x013B] = EXIF
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(content))
    picture.save(file, "JPEG", exif=exif, comment=COMMENT.encode())
    return file.getvalue() + AFTER.encode() + b"\xff\xd9"


def told_png(content: bytes, name: str) -> bytes:
    said = PngInfo()
    said.add_text("Author", name)
    said.add_text("Comment", name, zip=True)
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).save(file, "PNG", pnginfo=said)
    return file.getvalue()


@pytest.fixture(scope="module")
def planted(sampling: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose records name who made it wherever they can."""
    path = tmp_path_factory.mktemp("planted") / FOLDER
    names = [f"{FILE}/{STEM}-{number}.jpg" for number in range(5)]
    images = [
        *(sampling.SampleImage(name, sampling.CLASSES[0]) for name in names),
        sampling.SampleImage("cut.jpg", error=f"'/home/{UNREAD}/cut.jpg' ends early"),
    ]
    plan = sampling.sample_plan(images, methods=("gradcam", "eigencam"))
    settings = {
        "model": f"{SPEC}.nets:build", "images": f"{SET}/photos", "classes": f"{CLASSES}.txt",
        "reshape": f"{RESHAPE}.shapes:planes", "target": f"{TARGET}.targets:score", "seed": 0,
    }  # fmt: skip
    plan = replace(
        plan,
        settings=settings,
        model=replace(
            plan.model,
            name=f"{SPEC}/net",
            spec=f"{SPEC}.nets:build",
            type="",
            checkpoint=f"{CHECKPOINT}-40.pt",
            preprocessing=replace(plan.model.preprocessing, source=f"/x/{CLASSES}.json"),
        ),
        methods=tuple(replace(m, url=f"https://{PAPER}.example/paper") for m in plan.methods),
        target=f"{TARGET}.targets:score",
        image_set=f"{SET}/photos",
        versions={"exporter": f"0.1.0+{BUILD}", "torch": f"2.9.0.{FORK}"},
        command=f"exporter run --images {USER}@{HOST}:photos",
        created="2026-03-04T05:06:07+00:00",
        notes=(f"the folder {NOTE} could not be read",),
        layouts={"layer3": LayoutRecord("given", 12, 14, 14, 0, f"by {LAYOUT}.shapes:planes")},
        findings=Findings(alone=None, untold=f"it failed in {UNTOLD}.py"),
        images=tuple(replace(entry, mask=f"{MASK}.png") for entry in plan.images),
    )
    with create_run(path, plan) as folder:
        folder.write_kernels(
            [
                replace(sheet, picture=told_png(sheet.picture, SHEET))
                for sheet in sampling.sample_kernels()
            ]
        )
        rows = [told(row) for row in sampling.sample_rows(plan, images, 0)]
        batches = sampling.sample_batches(plan, images, 0)
        parts = {"": channel_table(batches), **shard_parts(rows, batches, Scope.of(plan))}
        folder.write_shard(0, rows, parts)
        made = sampling.sample_maximised()
        folder.missing_maximised(1)
        folder.write_maximised(0, [replace(p, picture=told_png(p.picture, MADE)) for p in made])
        sampling.finish_run(folder, 1.0)
    return path


def told(row: Row) -> Row:
    return replace(row, mask=f"{MASK}.png", image=row.image and told_jpeg(row.image))


def settings(**given: object) -> dict[str, object]:
    return {
        "wandb_entity": ENTITY,
        "wandb_project": PROJECT,
        "wandb_tags": TAG,
        "report_url": f"https://{REPORT}.example/report",
        "tensorboard_url": f"https://{SERVER}.example",
        "report": {"authors": [AUTHOR]},
        **given,
    }


def found(place: Path) -> set[str]:
    """Return which of the planted identifiers the check finds."""
    searched = search(place, named(",".join(PLANTED)))
    assert searched.unread == ()
    return {trace.identifier.text for trace in searched.traces}


@pytest.mark.slow
def test_thirty_identifiers_are_found_before_and_none_after(planted: Path) -> None:
    run = open_run(planted)
    _, failed = write_all(run, build_writer_config(settings()))
    assert failed == ()
    assert found(planted.parent) == set(PLANTED)
    written = [planted / name for name in ("html", "tensorboard", "wandb")]
    shown = set().union(*map(found, written))
    assert len(shown) >= 24
    _, failed = write_all(run, build_writer_config(settings(anonymous=True)))
    assert failed == ()
    for folder in written:
        assert found(folder) == set(), folder.name
        assert list(folder.rglob("*.*"))
    publish_site(run, planted.parent.parent / "site")
    assert found(planted.parent.parent / "site") == set()
    (log,) = (planted / "wandb").glob("offline-run-*")
    assert log.name.startswith("offline-run-20260304_0000")


@pytest.mark.slow
def test_a_supplement_names_nobody_and_a_key_keeps_the_names(planted: Path) -> None:
    place = planted.parent.parent
    named_ = pack(planted, out=place / "named.zip", command=f"exporter pack {USER}").path
    assert {USER, FOLDER, FILE, STEM, SPEC, CHECKPOINT, EXIF, COMMENT} <= found(named_)
    packed = pack(planted, out=place / "pack.zip", anonymous=True, command=f"exporter pack {USER}")
    assert found(packed.path) == set()
    assert list(check_pack(packed.path, [open_run(planted)])) == []
    again = pack(planted, out=place / "again.zip", anonymous=True)
    assert again.path.read_bytes() == packed.path.read_bytes()
    key = (place / "pack.zip.key.csv").read_text().splitlines()
    first = open_run(planted).plan.images[0]
    assert key[1] == f"{FOLDER},{first.id},{first.path}"
    assert len(key) == 7


@pytest.mark.slow
def test_a_comparison_is_made_again_without_names(checkpoints: list[Path], tmp_path: Path) -> None:
    runs = [tmp_path / "planted-home" / f"planted-run-{n}" for n in range(2)]
    for run, checkpoint in zip(runs, checkpoints, strict=False):
        shutil.copytree(checkpoint, run)
    compared = compare(*runs, out=tmp_path / "planted-cmp", baseline=runs[1], writers=())
    packed = pack(compared.path, out=tmp_path / "pack.zip", anonymous=True)
    told = named("planted-home,planted-run,planted-cmp,epoch,image 00,image 11")
    assert search(packed.path, told).traces == ()
    with zipfile.ZipFile(packed.path) as archive:
        page = archive.read("report/index.html").decode()
    # Checkpoints are still told apart by their steps, and against the same baseline.
    assert "The baseline is <b>step 5</b>" in page
    assert "step 1" in page


@pytest.mark.slow
def test_a_comparison_for_review_names_nobody_in_any_of_its_files(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "planted-home"
    runs = [place / f"planted-run-{n}" for n in range(2)]
    for run, checkpoint in zip(runs, checkpoints, strict=False):
        shutil.copytree(checkpoint, run)
    told = named("planted-home,planted-run,epoch,image 00,image 11")
    out = tmp_path / "CMP"
    arguments = ["compare", *map(str, runs), "--out", str(out), "--baseline", str(runs[1])]
    assert main(arguments) == 0
    before = {trace.place.partition("/")[0] for trace in search(out, told).traces}
    assert before >= {"comparison.json", "html", "tensorboard", "wandb"}
    assert any(name.startswith("images.parquet") for name in before)
    capsys.readouterr()
    assert main([*arguments, "--anonymous", "--overwrite"]) == 0
    assert search(out, told).traces == ()
    assert "CMP.key.csv says which file each image is" in " ".join(capsys.readouterr().out.split())
    key = (tmp_path / "CMP.key.csv").read_text().splitlines()
    first = open_run(runs[0]).plan.images[0]
    assert f"planted-run-0,{first.id},{first.path}" in key
    (log,) = (out / "wandb").glob("offline-run-*")
    assert log.name.startswith("offline-run-20260101_0000")
    shown = open_comparison(out)
    assert [run.name for run in shown.contents.runs] == ["step 1", "step 5"]
    assert list(check(shown)) == []
    # What needs the runs says why it has none.
    assert main(["render", str(out)]) == 2
    assert "is anonymous and does not say where its runs are" in capsys.readouterr().err


def test_what_varies_is_known_of_runs_without_names(checkpoints: list[Path]) -> None:
    named_, unnamed_ = (join(checkpoints, unnamed=unnamed) for unnamed in (False, True))
    assert unnamed_.axis == named_.axis == "checkpoint"
    assert [d.name for d in unnamed_.differences] == [d.name for d in named_.differences]
    assert "checkpoint-3 " in str(unnamed_.differences[0].values)


def test_numbers_maps_and_pixels_are_the_runs(planted: Path) -> None:
    run = open_run(planted)
    shown = anonymous(run)
    assert anonymous(shown) is shown
    for row, seen in zip(run.rows(), shown.rows(), strict=True):
        assert seen.path == row.id
        assert replace(seen, path=row.path, mask=row.mask, error=row.error, image=row.image) == row
        if row.image is not None:
            pixels = [Image.open(io.BytesIO(each)).tobytes() for each in (row.image, seen.image)]
            assert pixels[0] == pixels[1]
    (skipped,) = shown.totals.skipped
    assert skipped == (run.plan.images[-1].id, "it could not be read")
    assert [row["error"] for row in shown.table(["error"]).to_pylist()][-1] == skipped[1]
    assert shown.table(["mask", "path"]).column_names == ["mask", "path"]
    assert shown.plan.model.checkpoint == "checkpoint-40"
    assert shown.plan.created == "2026-03-04"
    assert shown.plan.versions == {"exporter": "0.1.0", "torch": "2.9.0"}
    assert shown.plan.settings == {"target": "authors:target", "seed": 0}
    assert shown.measures and list(shown.measures()) == list(run.measures())


def test_a_figure_calls_a_model_without_its_lab(planted: Path) -> None:
    run = open_run(planted)
    title = run.plan.model.title
    assert title == f"{SPEC}/net"
    (shown,) = unnamed(Grid((Named(run, title),), (), (), "")).runs
    assert shown.name == "net"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("wandb", "online"), ("wandb_run", "abc12345"), ("wandb_artifacts", True)],
)
def test_what_is_sent_to_wandb_is_not_anonymous(
    planted: Path, setting: str, value: str | bool
) -> None:
    config = build_writer_config(settings(anonymous=True, **{setting: value}))
    with pytest.raises(ConfigError, match="appears under its user's name"):
        write_all(open_run(planted), config)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (
            Plan,
            "schema settings model layers explained layer_reason recorded methods target image_set "
            "images shards label_match label_index execution versions command created notes "
            "layouts findings precision head added added_by",
        ),
        (
            ModelRecord,
            "name spec weights checkpoint classes preprocessing parameters output outputs scores "
            "reading type code step step_key",
        ),
        (
            MethodRecord,
            "name title shows formula paper url cost caveats relu pixel settings attended",
        ),
        (
            Row,
            "id key path label label_index width height crop predictions loss correct image maps "
            "activations boxes mask predicted_boxes regions error",
        ),
        (Totals, "images read skipped labelled correct flagged checksums finished seconds"),
    ],
)
def test_whoever_adds_a_field_says_whether_it_names_somebody(record: type, names: str) -> None:
    """What is new has to be weighed in exporter.store.anonymous, and then be added here."""
    assert [field.name for field in fields(record)] == names.split()


def test_a_picture_keeps_its_pixels_and_colours_alone() -> None:
    picture = Image.effect_noise((40, 30), 50)
    file = io.BytesIO()
    picture.convert("P").save(file, "PNG", transparency=3)
    bare = without_metadata(told_png(file.getvalue(), USER))
    assert Image.open(io.BytesIO(bare)).tobytes() == picture.convert("P").tobytes()
    assert Image.open(io.BytesIO(bare)).info == {"transparency": 3}
    cmyk = io.BytesIO()
    picture.convert("CMYK").save(cmyk, "JPEG", progressive=True)
    kept = Image.open(io.BytesIO(without_metadata(told_jpeg(cmyk.getvalue()))))
    assert kept.info["adobe"] == 100
    assert not {"exif", "comment"} & kept.info.keys()
    assert without_metadata(b"GIF89a") == b"GIF89a"
