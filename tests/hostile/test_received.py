"""A run folder from somebody else is data: whatever it holds, its reader and his files are safe.

Seeded changes of good runs (`tests.hostile.mutations`), before everything that reads a run: nothing
outside the run changes or is opened, nothing is sent, no traceback, no wait without an end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import exporter
from exporter.cli import main
from exporter.demo import photographs
from exporter.errors import ExporterError, RunError
from exporter.publish import wandb_program
from exporter.records.targets import parse_target
from exporter.store import check, read_recipe, write_recipe
from exporter.store.files import RunFiles
from exporter.store.schema import parquet_options
from exporter.writers.writing import _REMEMBERED, remembered
from tests.hostile.mutations import (
    CONTROL,
    KINDS,
    SECRET,
    WRITTEN,
    clear,
    forge,
    forged,
    mutate,
)

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests/data/run-80828a6"
SECONDS = 20
MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
"""
EVIL = """
from pathlib import Path
(Path(__file__).parent / "ran").write_text("your code")
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a run of it, as somebody's who received none yet."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.py").write_text(MODEL)
    good = folder / "good"
    assert main(["run", *flags(folder), "--out", str(good)]) == 0
    assert main(["render", str(good), "--writer", "tensorboard", "--writer", "html"]) == 0
    return folder


def flags(home: Path) -> list[str]:
    return [
        "--model", f"{home / 'small.py'}:small", "--images", str(photographs()), "--limit", "3",
        "--shard-size", "2", "--map", "gradcam", "--layer", "1", "--writer", "html",
        "--config", str(settings(home)),
    ]  # fmt: skip


def settings(home: Path) -> Path:
    file = home / "run.toml"
    file.write_text("[preprocessing]\nsize = 32\n")
    return file


@pytest.fixture
def outside(tmp_path: Path, home: Path) -> Path:
    """What a run must not reach."""
    return beside(tmp_path / "outside", home)


def beside(folder: Path, home: Path) -> Path:
    """Fill a folder with what a run must not reach."""
    (folder / "folder").mkdir(parents=True)
    (folder / "secret.txt").write_text(SECRET)
    (folder / "folder/.left.tmp").write_text(SECRET)
    (folder / "folder/plan.json").write_text(SECRET)
    (folder / "evil.py").write_text(EVIL)
    shutil.copytree(home / "good", folder / "whole")
    return folder


def state(folder: Path) -> dict[str, Any]:
    """Return every name, kind, time and content below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(folder.rglob("*"))
    }


class Watch:
    """Notes what this process opens below a folder, and whether it goes on the network."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in ("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir"):
            place = arguments[0]
            if isinstance(place, str | bytes | os.PathLike):
                real = os.path.realpath(os.fsdecode(place))
                if event in ("os.remove", "os.rename", "os.mkdir"):
                    named = Path(os.fsdecode(place))
                    real = os.path.join(os.path.realpath(named.parent), named.name)  # noqa: PTH118
                if f"{real}/".startswith(f"{self.folder}/"):
                    self.seen.append(f"{event} {real}")
        elif event == "socket.connect" or event.startswith("subprocess"):
            self.seen.append(f"{event} {arguments}")

    @contextlib.contextmanager
    def over(self, folder: Path) -> Iterator[None]:
        """Watch a folder for a while."""
        self.seen.clear()
        self.folder = folder
        try:
            yield
        finally:
            self.folder = None


WATCH = Watch()


class Hangs(BaseException):
    """A command that does not end."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Raise `Hangs` after 20 s of computing, or after six times as long on a busy machine."""
    computed, ended = time.process_time() + SECONDS, time.monotonic() + 6 * SECONDS

    def late(*_: object) -> None:
        if time.process_time() >= computed or time.monotonic() >= ended:
            raise Hangs
        signal.alarm(1)

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_all(run: Path) -> None:
    """Read everything of a run through its public interface."""
    with contextlib.suppress(ExporterError):
        opened = exporter.open_run(run)
        repr(opened)
        parts: tuple[Callable[[], Any], ...] = (
            lambda: [stored.array() for row in opened.rows() for stored in row.maps],
            lambda: [stored.array() for row in opened.rows() for stored in row.activations],
            lambda: list(opened.index),
            lambda: [opened.image(image.id) for image in opened.plan.images],
            opened.table,
            lambda: opened.totals,
            lambda: opened.summary,
            lambda: (opened.channels(), opened.classes(), opened.confusion(), opened.methods()),
            lambda: (opened.agreement(), opened.class_maps(), opened.redundant()),
            lambda: (list(opened.measures()), opened.faithfulness()),
            lambda: (list(opened.image_faithfulness()), list(opened.maximised())),
            lambda: [opened.kernel_sheet(record) for record in opened.kernels()],
            lambda: [opened.kernel_values(record) for record in opened.kernels()],
        )
        for part in parts:
            with contextlib.suppress(ExporterError):
                part()


def is_safe(run: Path, outside: Path, capsys: pytest.CaptureFixture[str], *commands: Any) -> None:
    """Run commands on a run and hold what they did against the promises."""
    before = state(outside)
    for command in commands:
        with WATCH.over(outside), in_time():
            code = main([str(part) for part in command]) if isinstance(command, list) else 0
            if callable(command):
                command(run)
        said = capsys.readouterr()
        text = said.out + said.err
        assert code in (0, 2, 3), (command, text)
        assert "Traceback" not in text, text
        assert "\x1b[2J" not in text and "\x07" not in text
        assert not WATCH.seen, (command, WATCH.seen)
        assert code == 0 or text.strip(), command
    assert state(outside) == before
    assert not (outside / "ran").exists()
    for file in run.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 1 << 30:
            assert SECRET.encode() not in file.read_bytes(), file


def commands(run: Path, home: Path, *, published: bool) -> list[Any]:
    """Return what reads a run; what takes longest of it only where that is asked for."""
    team = ["--entity", "team", "--project", "maps", "--wandb-run", "abc12345"]
    longer: list[list[Any]] = [
        ["figure", run, "--out", run.with_name("figure.png")],
        ["pack", run, "--out", run.with_name("pack.zip")],
        ["report", "wandb", run, *team, "--draft", run.with_name("draft.json")],
    ]
    return [
        read_all,
        ["check", run],
        ["table", run, "--what", "methods", "--out", run.with_name("table.md")],
        ["publish", run, "--to", run.with_name("site")],
        ["tensorboard", run],
        *(longer if published else []),
        ["compare", run, home / "good", "--out", run.with_name("CMP"), "--writer", "html"],
        ["render", run, "--writer", "html", "--writer", "tensorboard"],
        ["run", *flags(home), "--out", run, "--resume"],
        ["check", run],
        ["finish", run],
    ]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no process: a draft is made in this one, and TensorBoard ends before it would serve."""
    from tensorboard.program import TensorBoard

    monkeypatch.setattr(TensorBoard, "launch", lambda _: "http://localhost:6006/")
    monkeypatch.setattr("exporter.cli.looking.Event", Interrupted)
    monkeypatch.setattr(
        "exporter.publish.reporting._answer",
        lambda job: wandb_program.draft(json.loads(json.dumps(job))),
    )


class Interrupted:
    """An event that Ctrl-C ends the wait for."""

    def wait(self) -> None:
        raise KeyboardInterrupt


QUICK = range(20)
PUBLISHED = range(200 - 2 * len(KINDS), 200)
"""Changes before the commands that take longest, each kind twice."""


@pytest.mark.parametrize(
    "seed",
    [seed if seed in QUICK else pytest.param(seed, marks=pytest.mark.slow) for seed in range(200)],
)
@pytest.mark.usefixtures("in_process")
def test_a_changed_run_does_nothing_to_its_reader(
    seed: int, home: Path, outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(OLD if seed % 4 == 3 else home / "good", run)
    told = mutate(run, outside, seed)
    try:
        is_safe(run, outside, capsys, *commands(run, home, published=seed in PUBLISHED))
    except Hangs:
        pytest.fail(f"more than {SECONDS} s: {told}")
    except BaseException as error:
        error.add_note(told)
        raise


# ------------------------------------------------------------ links and pipes, kind by kind


def sentence(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence that a refused command says."""
    said = capsys.readouterr()
    assert code == 2, said
    (line,) = said.err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "leads_to", "says"),
    [
        (".lock", "secret.txt", "is a link"),
        (".lock", "nothing", "is a link"),
        (".lock", None, "is not a regular file"),
        ("plan.json", "secret.txt", "is a link"),
        ("plan.json", None, "is not a regular file"),
        ("shards/00000.parquet", "whole/shards/00000.parquet", "is a link"),
        ("shards/00000.parquet", None, "is not a regular file"),
        ("shards", "folder", "is a link"),
        ("shards", "whole/shards", "is a link"),
        ("shards", None, "is not a folder"),
        ("kernels/kernels.json", "whole/kernels/kernels.json", "is a link"),
        ("kernels", "whole/kernels", "is a link"),
    ],
)
def test_a_link_or_a_pipe_is_refused_in_a_sentence(
    *,
    home: Path,
    outside: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    leads_to: str | None,
    says: str,
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    clear(run / name)
    if leads_to is None:
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(outside / leads_to)
    before = state(outside)
    with in_time(), WATCH.over(outside):
        code = main(["render", str(run), "--writer", "html"])
    line = sentence(code, capsys)
    assert says in line
    assert name in line
    assert state(outside) == before
    assert not WATCH.seen


@pytest.mark.parametrize(
    "name",
    [".html.5f1e.tmp", ".html.old", "writers.json", "html", "checksums/.writers-html.sha256.next"],
)
@pytest.mark.parametrize("leads_to", ["secret.txt", "folder", "nothing"])
def test_what_is_written_does_not_go_through_a_link(
    *,
    home: Path,
    outside: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    leads_to: str,
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    clear(run / name)
    (run / name).symlink_to(outside / leads_to)
    is_safe(run, outside, capsys, ["render", run, "--writer", "html"])
    assert not (run / "html").is_symlink()


@pytest.mark.parametrize(
    "where",
    [
        "html",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (".x.tmp", "shards", "wandb")),
    ],
)
def test_folders_without_an_end_are_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    before = Path.cwd()
    try:
        (run / where).mkdir(exist_ok=True)
        os.chdir(run / where)
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(before)
    try:
        for command in (["check", run], ["render", run, "--writer", "html"]):
            with in_time():
                code = main([str(part) for part in command])
            said = capsys.readouterr()
            assert "Traceback" not in said.out + said.err
            assert code == 0 or "nested" in said.out + said.err or "was left by" in said.out
    finally:
        subprocess.run(["rm", "-rf", str(run)], check=True)  # which Python cannot


# ------------------------------------------------------------ what a run may say


@pytest.mark.parametrize("field", ["sheet", "values"])
@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../secret.txt", f"a{CONTROL}", "a\0", "", ".."]
)
def test_the_list_of_kernels_names_files_beside_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, name: str
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    forged(run, "kernels/kernels.json", lambda records: records[0].update({field: name}))
    assert f"(0.{field}: " in sentence(main(["render", str(run), "--writer", "html"]), capsys)
    assert main(["check", str(run)]) == 2
    assert "kernels/kernels.json' is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("id", ["../../../x", "/x", "a/b", "..", "", f"a{CONTROL}", "x" * 121])
@pytest.mark.parametrize("where", ["id", "key"])
def test_an_id_names_one_file(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, id: str
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    columns: dict[str, Any] = {"id": {"0": id}, "key": [id, "b", "c"]}
    forged(run, "plan.json", lambda plan: plan["images"].update({where: columns[where]}))
    line = sentence(main(["render", str(run)]), capsys)
    assert "plan.json' is damaged" in line
    assert f"({where}.0: " in line


def test_a_run_is_in_no_folder_whose_name_ends_early() -> None:
    with pytest.raises(RunError, match="embedded null byte"):
        exporter.open_run("a\0b")


def test_rows_of_another_id_are_refused(home: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    forged(run, "plan.json", lambda plan: plan["images"]["key"].__setitem__(0, "another"))
    with pytest.raises(ExporterError, match="its rows are not those of the plan"):
        list(exporter.open_run(run).rows())


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("plan.json", "[" * 100_000, "recursion"),
        ("plan.json", '{"schema": 1e999}', "cannot convert float infinity to integer"),
        ("plan.json", '{"schema": NaN}', "NaN is not allowed here"),
        ("plan.json", '{"schema": 1}', "'images' is missing"),
        ("run.json", '{"schema": 1, "images": -1}', "images: "),
        ("run.json", "[]", "list indices must be integers"),
        ("set/summary.json", '{"images": "many"}', "images: "),
        ("kernels/kernels.json", '{"a": 1}', "Input should be a valid tuple"),
    ],
)
def test_a_damaged_document_is_one_sentence(
    *,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    says: str,
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    (run / name).write_text(text)
    forge(run)
    line = sentence(main(["render", str(run), "--writer", "html"]), capsys)
    assert f"{name}' is damaged (" in line
    assert says in line


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("1" + "+1" * 40 + "+zz", "joins more than 32 parts"),
        ("1" + "-1" * 400 + "-zz", "joins more than 32 parts"),
        ("1" + "+1" * 30 + "+zz", "zz"),
        ("prob:" * 2000 + "1", "has 10,001 characters"),
        ("mask:prob:" * 90 + "1", "does not fit together"),
        ("9" * 5000, "has 5,000 characters"),
    ],
)
def test_a_target_without_an_end_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, says: str
) -> None:
    with in_time(), pytest.raises(ExporterError, match=says):
        parse_target(target, ())
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    forged(run, "plan.json", lambda plan: plan.update(target=target))
    is_safe(run, tmp_path / "nothing", capsys, ["render", run, "--writer", "html"])


def test_as_many_classes_as_are_allowed_are_read_at_once() -> None:
    names = [f"a-{n}" for n in range(32)]
    with in_time():
        assert len(parse_target("+".join(map(str, range(32))), names).parts) == 32
        assert parse_target("a-1-a-2", names).against is not None
    assert parse_target("my" + "-" * 40 + "file.py:score", ()).kind == "function"


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "GB", "1." + "9" * 400, "1e400", "²GB"])
def test_a_size_without_an_end_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    (run / "writers.json").write_text(json.dumps({"max_size": size}))
    forge(run)
    line = sentence(main(["render", str(run), "--writer", "html"]), capsys)
    assert "writers.json' is damaged (" in line
    assert "is not a size; write it like 500kB" in line
    asked = ["render", str(home / "good"), "--writer", "html", "--max-size", size]
    assert "is not a size; write it like 500kB" in sentence(main(asked), capsys)


Tables = Callable[[pa.Table], pa.Table]


def of_table(name: str, what: Tables) -> Callable[[Path], None]:
    """Return what changes a Parquet file of a run."""

    def change(run: Path) -> None:
        before = pq.ParquetFile(run / name).read()
        pq.write_table(what(before), run / name, **parquet_options())

    return change


def of_leaf(name: str, column: str, field: str, value: object) -> Callable[[Path], None]:
    """Return what gives a field of every struct in a list another value, of the same type."""

    def what(table: pa.Table) -> pa.Table:
        rows = table.column(column).to_pylist()
        for row in rows:
            for each in row:
                each[field] = value
        place = table.column_names.index(column)
        return table.set_column(
            place, table.field(column), pa.array(rows, table.field(column).type)
        )

    return of_table(name, what)


def without(name: str) -> Tables:
    return lambda table: table.drop_columns([name])


def of_plan(**values: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        document = json.loads((run / "plan.json").read_text())
        settings = document["settings"]
        settings.pop("batch_size")
        settings.update(values)
        (run / "plan.json").write_text(json.dumps(document))

    return change


NUMBERS = pa.table({"x": [1]})
SHARD, SET = "shards/00000.parquet", "summaries/00000-set.parquet"
UNFIT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no error": (of_table(SHARD, without("error")), "it has no column 'error'"),
    "no maps": (of_table(SHARD, without("maps")), "it has no column 'maps.list.element.method'"),
    "maps of int": (
        of_table(SHARD, lambda t: without("maps")(t).append_column("maps", pa.array([1] * len(t)))),
        "shards/00000.parquet' is damaged",
    ),
    "set of x": (of_table(SET, lambda _: NUMBERS), "it has no column 'methods'"),
    "sums of 3 bytes": (of_leaf(SET, "maps", "sums", b"abc"), "another version"),
    "no sums": (of_leaf(SET, "maps", "sums", None), "another version"),
    "no height": (of_leaf(SET, "maps", "height", None), "another version"),
    "histogram of none": (of_leaf(SET, "methods", "histogram", None), "another version"),
    "images of x": (
        of_table("summaries/00000-images.parquet", lambda _: NUMBERS),
        "it has no column 'id'",
    ),
    "infinite": (
        of_table(
            "summaries/00000-images.parquet",
            lambda t: t.set_column(
                t.column_names.index("confidence"),
                t.field("confidence"),
                pa.array([float("inf")] * len(t), t.field("confidence").type),
            ),
        ),
        "Out of range float values",
    ),
    "channels of x": (of_table("summaries/00000.parquet", lambda _: NUMBERS), "another version"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_parts_that_do_not_fit_are_not_merged(
    kind: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, says = UNFIT[kind]
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    change(run)
    forge(run)
    (run / "run.json").unlink()
    line = sentence(main(["finish", str(run)]), capsys)
    assert says in line
    assert line.endswith("make the run again with --overwrite")
    is_safe(run, tmp_path / "nothing", capsys, ["run", *flags(home), "--out", run, "--resume"])
    assert not (run / "run.json").exists()


@pytest.mark.parametrize("size", [{}, {"batch_size": 0}, {"batch_size": "x"}, {"batch_size": -1}])
def test_a_size_of_batches_that_is_none_is_not_used(
    home: Path, tmp_path: Path, size: dict[str, object]
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    of_plan(**size)(run)
    forge(run)
    (run / "run.json").unlink()
    (run / "shards/00001.parquet").unlink()
    assert main(["run", *flags(home), "--out", str(run), "--resume"]) == 0
    assert check(run) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<![x[ ]]>", "html/index.html cannot be read"),
        (f'<a href="&#{"9" * 5000};">', "html/index.html cannot be read"),
        (f'<a href="&#x{"f" * 50};">', None),
        ('<a href="a\0b">', "links to 'a\\x00b'"),
        (f'<a href="{"a" * 5000}">', "links to 'aaa"),
        (f'<a href="{"a/" * 5000}">', "links to 'a/a"),
        ('<a href="http://[">', "which is not an address"),
    ],
)
def test_a_page_that_is_no_html_is_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str | None
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    (run / "html/index.html").write_text(text)
    forge(run)
    with in_time():
        code = main(["check", str(run)])
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    assert says is None or (code == 2 and says in said.out)


@pytest.mark.parametrize("column", ["id", "path", "error", "label"])
def test_text_that_is_no_utf_8_is_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    def what(table: pa.Table) -> pa.Table:
        values = pa.array([b"\xff\xfe"] * len(table), pa.binary())
        text = pa.StringArray.from_buffers(len(table), *values.buffers()[1:])
        return table.set_column(table.column_names.index(column), table.field(column), text)

    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    of_table(SHARD, what)(run)
    forge(run)
    is_safe(run, tmp_path / "nothing", capsys, read_all, ["check", run])
    if column in ("id", "error"):
        assert main(["check", str(run)]) == 2
        assert "shards/00000.parquet' is damaged ('utf-8' codec" in capsys.readouterr().out
    (run / "run.json").unlink()
    is_safe(run, tmp_path / "nothing", capsys, ["check", run], ["finish", run])


# ------------------------------------------------------------ network, addresses and code


def test_what_is_remembered_is_no_consent(home: Path, tmp_path: Path) -> None:
    run = exporter.open_run(shutil.copytree(home / "good", tmp_path / "run"))
    told = {
        "wandb": "online", "wandb_entity": "stranger", "wandb_project": "theirs", "keep": 5,
        "report_url": "https://stranger.example", "tensorboard_url": "https://stranger.example",
        "writer_options": {"html": {"anything": 1}},
    }  # fmt: skip
    (run.path / "writers.json").write_text(json.dumps(told))
    forge(run.path)
    assert remembered(run.files) == {"keep": 5}
    said = (ROOT / "docs/security.md").read_text().partition("What a run remembers")[2][:300]
    assert all(name.replace("_", "-") in said for name in _REMEMBERED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "told", [{"wandb": "online"}, {"wandb": "online", "wandb_entity": "e"}, {}]
)
def test_rendering_a_received_run_stays_offline(
    home: Path, tmp_path: Path, told: dict[str, str]
) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    (run / "writers.json").write_text(json.dumps(told))
    forge(run)
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls: list[Any] = []

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    calls.append(server.accept()[1])

        threading.Thread(target=listen, daemon=True).start()
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
        }
        done = subprocess.run(
            [sys.executable, "-m", "exporter", "render", str(run), "--writer", "wandb"],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert calls == []
    assert b"stranger" not in b"".join(f.read_bytes() for f in (run / "wandb").rglob("*.wandb"))


@pytest.fixture
def planned(home: Path, tmp_path: Path) -> Path:
    run = tmp_path / "planned"
    assert main(["plan", *flags(home), "--out", str(run)]) == 0
    return run


@pytest.mark.parametrize("setting", ["model", "images", "maps"])
@pytest.mark.parametrize("command", ["work", "finish"])
def test_code_that_a_received_recipe_names_does_not_run(
    planned: Path, outside: Path, capsys: pytest.CaptureFixture[str], setting: str, command: str
) -> None:
    name = f"{outside / 'evil.py'}:thing"
    value = [name] if setting == "maps" else name
    forged(planned, "recipe.json", lambda recipe: recipe["settings"].update({setting: value}))
    if command == "finish":
        shutil.copytree(outside / "whole/shards", planned / "shards", dirs_exist_ok=True)
    line = sentence(main([command, str(planned)]), capsys)
    assert "give --trust-recipe" in line
    assert not (outside / "ran").exists()
    # The reader's word is what lets it run.
    main(["work", str(planned), "--trust-recipe"])
    assert (outside / "ran").exists()


def test_a_run_of_ones_own_needs_no_word_and_one_from_elsewhere_does(
    planned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(elsewhere))
        line = sentence(main(["work", str(planned)]), capsys)
        assert "planned by another user or on another machine" in line
        assert "small.py:small" in line
        # Whoever only reads leaves nothing behind.
        assert not elsewhere.exists()
    assert main(["work", str(planned), "--shards", "0/2"]) == 0
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(elsewhere))
        assert main(["work", str(planned), "--trust-recipe"]) == 0
    assert main(["finish", str(planned)]) == 0
    assert check(planned) == ()


def test_the_key_is_only_its_users(planned: Path, own_state: Path) -> None:
    key = own_state / "exporter" / "recipe.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32
    assert [file.name for file in key.parent.iterdir()] == ["recipe.key"]


@pytest.mark.parametrize("refused", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_home_without_hard_links_has_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(os, "link", no_links)
    run = RunFiles(tmp_path)
    recipe = {"settings": {"model": "m"}, "command": "exporter", "folder": "."}
    write_recipe(run, recipe)
    assert read_recipe(run) == recipe
    key = tmp_path / "state/exporter/recipe.key"
    assert [file.name for file in key.parent.iterdir()] == ["recipe.key"]
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    write_recipe(run, recipe)
    assert key.read_bytes() == before


def test_a_recipe_without_a_seal_says_that_there_may_have_been_no_place_for_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file, in which nothing can be kept")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = RunFiles(tmp_path)
    write_recipe(run, {"settings": {"model": "m"}, "command": "exporter", "folder": "."})
    with pytest.raises(RunError, match="or where no key could be stored"):
        read_recipe(run)
    assert read_recipe(run, trusted=True)


# ------------------------------------------------------------ what nothing holds to be whole


@pytest.mark.parametrize("harm", ["sidecar", "kernel and sidecar", "emptied"])
def test_kernels_without_a_checksum_are_not_certified(
    planned: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    kept = planned / "checksums/kernels-kernels.json.sha256"
    assert main(["work", str(planned)]) == 0
    if harm == "emptied":
        kept.write_bytes(b"")
    else:
        kept.unlink()
    if harm.startswith("kernel"):
        kernel = next((planned / "kernels").glob("*.npy"))
        content = bytearray(kernel.read_bytes())
        content[-1] ^= 1
        kernel.write_bytes(content)
    capsys.readouterr()
    line = sentence(main(["finish", str(planned)]), capsys)
    assert "kernels" in line
    assert line.endswith("plan the run again with --resume")
    assert not (planned / "run.json").exists()
    assert main(["check", str(planned)]) == 2
    assert "kernels/ has changed since it was written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "says"), [("recipe.json", "plan the run again"), ("run.json", "--resume")]
)
def test_a_document_without_a_checksum_is_not_as_it_was_written(
    home: Path, planned: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    run = planned
    if name == "run.json":
        run = Path(shutil.copytree(home / "good", planned.parent / "whole"))
    (run / f"checksums/{name}.sha256").unlink()
    assert main(["check", str(run)]) == 2
    assert says in capsys.readouterr().out
    if name == "recipe.json":
        assert "its SHA-256 differs" in sentence(main(["work", str(run)]), capsys)


def test_what_is_left_of_a_set_is_not_read_of_a_partial_run(home: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(home / "good", tmp_path / "run"))
    whole = exporter.open_run(home / "good")
    assert whole.channels() and whole.summary and whole.classes() and whole.methods()
    for name in ("run.json", "checksums/run.json.sha256"):
        (run / name).unlink()
    partial = exporter.open_run(run)
    assert (partial.channels(), partial.summary) == ((), None)
    parts = (partial.classes, partial.confusion, partial.methods, partial.agreement)
    assert {part() for part in (*parts, partial.class_maps, partial.redundant)} == {()}
    assert partial.faithfulness() == ()
    (run / "set/classes.parquet").write_bytes(b"rotted")
    (run / "channels.parquet").write_bytes(b"rotted")
    assert main(["render", str(run), "--writer", "html"]) == 0


def test_a_finished_run_has_no_recipe_and_it_is_said(
    planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["work", str(planned)]) == 0
    assert main(["finish", str(planned)]) == 0
    (planned / "shards/00001.parquet").unlink()
    capsys.readouterr()
    line = sentence(main(["work", str(planned)]), capsys)
    assert "has no recipe: it was finished, or its model or images were handed over" in line
    assert line.endswith("exporter run (or exporter.export) --resume and its settings")


def test_a_recipe_stays_until_every_writer_has_written(
    planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["work", str(planned)]) == 0
    forged(planned, "kernels/kernels.json", lambda records: records[0].update(sheet="gone.png"))
    assert main(["finish", str(planned)]) == 2
    assert "gone.png" in capsys.readouterr().err
    assert not (planned / "html").exists()
    assert (planned / "recipe.json").exists()
    assert (planned / "checksums/recipe.json.sha256").exists()
    shutil.copy(next((planned / "kernels").glob("*.png")), planned / "kernels/gone.png")
    assert main(["finish", str(planned)]) == 0
    assert (planned / "html/index.html").exists()
    assert not (planned / "recipe.json").exists()
    assert not (planned / "checksums/recipe.json.sha256").exists()


# ------------------------------------------------------------ by the system calls

SAMPLE = [seed for seed, kind in enumerate(KINDS) if kind not in KINDS[:seed]]
"""A change of each kind."""
_OPENED = re.compile(r"= \d+<(/[^>]*)>")
_NAMED = re.compile(
    r"^\d+ +(?:open|openat|creat|unlink|unlinkat|rename\w*|mkdir\w*|link\w*|truncate)\(.*"
)
_CONNECTED = re.compile(r"connect\(\d+<[^>]*>, \{sa_family=AF_INET6?,.*")


# A start under strace takes seconds, so each command reads all its runs in one process.
_READER = """
import json, sys
from exporter.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit:
        pass
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
@pytest.mark.parametrize(
    ("command", "seeds"),
    [("render", SAMPLE[:6]), ("render", SAMPLE[6:]), ("check", SAMPLE[::2]), ("run", SAMPLE[1::2])],
    ids=["render", "render-2", "check", "run"],
)
def test_no_system_call_leaves_the_run(
    command: str, seeds: list[int], home: Path, tmp_path: Path
) -> None:
    asked, told, before = [], {}, {}
    for seed in seeds:
        run = Path(shutil.copytree(home / "good", tmp_path / f"run-{seed}"))
        outside = beside(tmp_path / f"outside-{seed}", home)
        told[seed] = mutate(run, outside, seed)
        before[outside] = state(outside)
        more = {
            "render": [str(run), "--writer", "html", "--writer", "tensorboard"],
            "check": [str(run)],
            "run": [*flags(home), "--out", str(run), "--resume"],
        }
        asked.append([command, *more[command]])
        if command == "check":
            asked.append(["publish", str(run), "--to", str(tmp_path / f"site-{seed}")])
            asked.append(["table", str(run), "--out", str(tmp_path / f"{seed}.md")])
    log = tmp_path / "calls.txt"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "4096", "-e", "trace=%file,%network",
         "-o", str(log), sys.executable, "-c", _READER, json.dumps(asked)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=SECONDS * len(seeds) + 100, check=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, told
    lines = log.read_text(errors="replace").splitlines()
    assert len(lines) > 1000
    assert all(any(f"/run-{seed}/" in line for line in lines) for seed in seeds)
    reached = [
        line
        for line in lines
        if any(place.startswith(f"{tmp_path}/outside-") for place in _OPENED.findall(line))
        or (_NAMED.match(line) and f'"{tmp_path}/outside-' in line)
        or _CONNECTED.search(line)
    ]
    assert not reached, (told, reached[:5])
    # Apart from the runs, nothing is made, changed or removed but temporary files.
    made = [
        line
        for line in lines
        if re.search(r"O_CREAT|mkdir|unlink|rename", line)
        and "ENOENT" not in line
        and "EEXIST" not in line
        and f"{tmp_path}/run-" not in line
        and "/tmp/" not in line
        and "__pycache__" not in line
        and "/dev/" not in line
        and "mkdir(" not in line.split("= -1")[-1]
    ]
    assert not [line for line in made if "= -1" not in line], (told, made[:5])
    assert {outside: state(outside) for outside in before} == before, told


def test_the_names_that_are_attacked_are_those_that_are_written() -> None:
    from exporter.store.layout import LOCK, own_names

    # A profile is written as every other file is, and only where it is asked for.
    assert {LOCK, *own_names()} - {"wandb", "profile.json", "trace.json"} <= {*WRITTEN}
