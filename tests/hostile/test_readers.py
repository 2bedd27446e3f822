"""What is read from disk may hold anything: every reader gives values or its one error.

Each test takes ``EXPORTER_FUZZ_EXAMPLES`` examples, 25 where it is not set. In ``make test`` they
take about five minutes of computing and are the same each time; ``make fuzz`` draws as many others.
What was once read wrongly stays as an ``@example``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import exporter
from exporter.comparison.checking import check
from exporter.demo import example_run
from exporter.errors import ImageError, ImageSetError, RunError
from exporter.images.decode import decode, read_header
from exporter.images.lists import read_list
from exporter.store.files import RunFiles
from exporter.store.recipes import read_recipe
from exporter.writers.writing import remembered

OLD = Path(__file__).parents[1] / "data/run-80828a6"

fuzz = settings(
    max_examples=int(os.environ.get("EXPORTER_FUZZ_EXAMPLES", "25")),
    deadline=None,
    derandomize="EXPORTER_FUZZ_OTHERS" not in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
edits = st.lists(
    st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=5), values), max_size=3
)
"""Where in a document, by the number of the key at each depth, and what is put there."""

patches = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6)
"""Where in a file, as a share of its length, and the bytes that are put there."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "CMP"
    exporter.compare(example_run().path, example_run(1).path, out=out, writers=())
    return out


@pytest.fixture
def run(tmp_path: Path, compared: Path) -> Path:
    shutil.copytree(compared, tmp_path / "run/CMP")
    return Path(shutil.copytree(OLD, tmp_path / "run", dirs_exist_ok=True))


def edited(document: Any, changes: list[tuple[list[int], Any]]) -> Any:
    for path, value in changes:
        inner = document
        for depth, number in enumerate(path):
            if not isinstance(inner, dict | list) or not inner:
                break
            key = (
                list(inner)[number % len(inner)] if isinstance(inner, dict) else number % len(inner)
            )
            if depth == len(path) - 1:
                inner[key] = value
            else:
                inner = inner[key]
    return document


def patched(content: bytes, changes: list[tuple[float, bytes]]) -> bytes:
    whole = bytearray(content)
    for place, part in changes:
        start = int(place * len(whole))
        whole[start : start + len(part)] = part
    return bytes(whole)


def kernels(run: Path) -> None:
    opened = exporter.open_run(run)
    for record in opened.kernels():
        opened.kernel_values(record), opened.kernel_sheet(record)


def comparison(run: Path) -> None:
    opened = exporter.open_comparison(run / "CMP")
    repr(opened), [*check(opened)], [opened.stages_of(method) for method in opened.contents.methods]


DOCUMENTS: dict[str, Callable[[Path], Any]] = {
    "plan.json": lambda run: repr((exporter.open_run(run).plan, exporter.open_run(run))),
    "run.json": lambda run: exporter.open_run(run).totals,
    "set/summary.json": lambda run: exporter.open_run(run).summary,
    "kernels/kernels.json": kernels,
    "recipe.json": lambda run: read_recipe(RunFiles(run)),
    "writers.json": lambda run: remembered(RunFiles(run)),
    "CMP/comparison.json": comparison,
}


def good(name: str, compared: Path) -> Any:
    for folder in (OLD, compared.parent):
        if (folder / name).exists():
            return json.loads((folder / name).read_text())
    recipe = {"settings": {"model": "a:b", "images": "c"}, "command": "", "folder": "", "seal": ""}
    return recipe if name == "recipe.json" else {"keep": 3, "writers": ["html"]}


@pytest.mark.parametrize("name", DOCUMENTS)
@fuzz
@given(changes=edits)
@example(changes=[([2], {"a": 1e400})])
@example(changes=[([17, 0, 1], "../../x")])
@example(changes=[([13], [[0, 10**18]])])
@example(changes=[([0], "\ud800")])
@example(changes=[([17], {"\n": None})])
def test_a_document_with_other_values(run: Path, compared: Path, name: str, changes: Any) -> None:
    text = json.dumps(edited(good(name, compared), changes))
    (run / name).write_text(text, encoding="utf-8")
    try:
        DOCUMENTS[name](run)
    except RunError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", DOCUMENTS)
@fuzz
@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: json.dumps(text).encode())
)
@example(content=b"[" * 100_000)
@example(content=b'{"schema": 1e999}')
@example(content=b"\xff\xfe{\x00}\x00")
@example(content=b'{"schema": ' + b"9" * 5000 + b"}")
def test_a_document_of_other_bytes(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    try:
        DOCUMENTS[name](run)
    except RunError as error:
        assert "\n" not in str(error)


TABLES: dict[str, Callable[[Any], Any]] = {
    "shards/00000.parquet": lambda run: [
        stored.array() for row in run.rows() for stored in row.maps
    ],
    "summaries/00000-images.parquet": lambda run: list(run.measures()),
    "channels.parquet": lambda run: run.channels(),
    "set/classes.parquet": lambda run: run.classes(),
    "set/class-maps.parquet": lambda run: run.class_maps(),
    "maximised/00000.parquet": lambda run: list(run.maximised()),
    "kernels/000-features.0.npy": lambda run: [run.kernel_values(r) for r in run.kernels()],
}


@pytest.mark.parametrize("name", TABLES)
@fuzz
@given(changes=patches, cut=st.floats(0, 1), length=st.booleans())
@example(changes=[(0.999, b"\xff" * 8)], cut=1.0, length=False)
@example(changes=[], cut=0.0, length=True)
@example(changes=[(0.125, b"(")], cut=1.0, length=False)
def test_a_table_of_other_bytes(
    run: Path, name: str, changes: Any, cut: float, length: bool
) -> None:
    content = patched((OLD / name).read_bytes(), changes)
    (run / name).write_bytes(content[: int(cut * len(content))] if length else content)
    try:
        TABLES[name](exporter.open_run(run))
    except RunError as error:
        assert "\n" not in str(error)


@fuzz
@given(
    name=st.text(max_size=30)
    | st.lists(st.sampled_from(["..", ".", "", "a", "~", "/", "\0"])).map("/".join)
)
@example(name="../x")
@example(name="a/../../x")
@example(name="/etc/passwd")
@example(name="a/./b")
def test_no_name_leads_out_of_a_run(run: Path, name: str) -> None:
    try:
        place = RunFiles(run).place(name)
    except RunError:
        return
    assert run in place.parents
    assert ".." not in place.parts


GOOD_LISTS = {
    ".csv": 'path,label,boxes\na.jpg,cat,"[[1, 2, 3, 4]]"\nb.jpg,,\n',
    ".tsv": "path\tlabel\na.jpg\tcat\n",
    ".jsonl": '{"path": "a.jpg", "label": "cat", "boxes": [[1, 2, 3, 4]]}\n{"path": "b.jpg"}\n',
}


@pytest.mark.parametrize("suffix", GOOD_LISTS)
@fuzz
@given(changes=patches)
@example(changes=[(0.3, b'"')])
@example(changes=[(0.5, b"\0")])
@example(changes=[(0.0, b"\xff\xfe")])
def test_a_list_of_other_bytes(tmp_path: Path, suffix: str, changes: Any) -> None:
    file = tmp_path / f"list{suffix}"
    file.write_bytes(patched(GOOD_LISTS[suffix].encode(), changes))
    try:
        assert all(entry.path for entry in read_list(file))
    except ImageSetError as error:
        assert "\n" not in str(error)


def pictures() -> Iterator[tuple[str, bytes]]:
    pixels = Image.effect_noise((16, 12), 60).convert("RGB")
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        content = BytesIO()
        pixels.save(content, form)
        yield form, content.getvalue()


PICTURES = dict(pictures())


@pytest.mark.parametrize("form", PICTURES)
@fuzz
@given(changes=patches, cut=st.floats(0, 1))
@example(changes=[(0.02, b"\x7f\xff\xff\xff\x7f\xff\xff\xff")], cut=1.0)
@example(changes=[], cut=0.5)
@example(changes=[], cut=0.0625)
def test_a_picture_of_other_bytes(form: str, changes: Any, cut: float) -> None:
    content = patched(PICTURES[form], changes)
    content = content[: int(cut * len(content))]
    with suppress(OSError):
        assert all(number >= 0 for number in read_header(content) or ())
    try:
        assert decode(content).ndim == 3
    except ImageError as error:
        assert "\n" not in str(error)
