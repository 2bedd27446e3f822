"""What a stranger can do to a run folder: seeded changes, each of one kind.

``mutate`` changes a run in place and says what it did. Everything that leads out of the run leads
into a folder that the tests watch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.records import Row
from exporter.store.schema import parquet_options
from exporter.store.tables import rows_to_table, table_records

SECRET = "the-reader's-own-secret"
CONTROL = "\x1b[2J\x07\r\n\u202e"
WRITTEN = (
    ".lock", "writers.json", "recipe.json", "run.json", "plan.json", "html", ".html.5f1e.tmp",
    ".html.old", "tensorboard", ".tensorboard.old", "shards", "summaries", "checksums", "set",
    "kernels", ".kernels.old", "maximised", "channels.parquet", "shards/00000.parquet",
    "set/summary.json", "kernels/kernels.json", "checksums/shards-00000.sha256",
    "checksums/.plan.json.sha256.next", "checksums/.writers-html.sha256.next",
    "summaries/00000-images.parquet", "set/classes.parquet", "html/index.html", "html/.unfinished",
    "wandb", "wandb/folder.json",
)  # fmt: skip
"""What commands open, make, rename or remove in a run folder."""

DOCUMENTS = (
    "plan.json", "run.json", "kernels/kernels.json", "set/summary.json", "writers.json",
    "wandb/folder.json",
)  # fmt: skip
WRONG: tuple[Any, ...] = (
    None, True, -1, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 100_000, CONTROL,
    "../../x", "/etc/passwd", [], {}, [[[]]], {"../x": 1}, ["/etc/passwd"], "\ud800", "a\0b", 0.5,
    [None] * 3,
)  # fmt: skip


def mutate(run: Path, outside: Path, seed: int) -> str:
    """Change a run, and return what was done in words.

    Args:
        run: the run folder.
        outside: a folder with ``secret.txt`` and ``folder/``, to be left alone.
        seed: which change.
    """
    chance = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    told = f"{seed} {kind.__name__}: {kind(run, outside, chance)}"
    if seed % 3 < 2:
        forge(run)
    return told


def forge(run: Path) -> None:
    """Make every checksum of a run that of what is there, as whoever changed it can."""
    folder = run / "checksums"
    if folder.is_symlink():
        return
    last = folder / "run.json.sha256"
    for file in (*sorted(set(folder.glob("*.sha256")) - {last}), run / "run.json", last):
        if not _is_small(file):
            continue
        if file.name != "run.json":
            lines = file.read_text(errors="surrogateescape").splitlines()
            forged = "".join(map(partial(_forged, run), lines))
            file.write_text(forged, errors="surrogateescape")
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            totals = json.loads(file.read_text())
            for name in totals["checksums"]:
                if _is_small(run / name):
                    totals["checksums"][name] = hashlib.sha256(
                        (run / name).read_bytes()
                    ).hexdigest()
            file.write_text(json.dumps(totals))


def _forged(run: Path, line: str) -> str:
    name = line[66:]
    if not line.startswith("#") and _is_small(run / name):
        return f"{_sum(run / name)}  {name}\n"
    return f"{line}\n"


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_small(file: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        status = file.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_size < 1 << 28
    return False


def clear(path: Path) -> None:
    """Remove what is there, and make the folder that it was in."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)


def link(run: Path, outside: Path, chance: random.Random) -> str:
    """Put a link in the place of something."""
    name = chance.choice(WRITTEN)
    target = outside / chance.choice(("secret.txt", "folder", "nothing", "whole/" + name))
    clear(run / name)
    (run / name).symlink_to(target)
    return f"{name} → {target.name}"


def pipe(run: Path, outside: Path, chance: random.Random) -> str:
    """Put a pipe without a writer there."""
    name = chance.choice(WRITTEN)
    clear(run / name)
    os.mkfifo(run / name)
    return name


def other_kind(run: Path, outside: Path, chance: random.Random) -> str:
    """Put a folder where a file was, and a file where a folder was."""
    name = chance.choice(WRITTEN)
    was_folder = (run / name).is_dir()
    clear(run / name)
    if was_folder:
        (run / name).write_text("a file")
    else:
        (run / name / "inner").mkdir(parents=True)
    return name


def outward(run: Path, outside: Path, chance: random.Random) -> str:
    """Name a file outside of the run, or one that is none, wherever documents name one."""
    text = chance.choice(
        (
            os.path.relpath(outside / "secret.txt", run / "kernels"),
            str(outside / "secret.txt"),
            "../plan.json",
            f"a{CONTROL}b",
            "a\0b",
            "x" * 300,
            "",
            ".",
        )
    )
    where = chance.randrange(7)
    if where < 2:
        field = ("sheet", "values")[where]
        change(run, "kernels/kernels.json", lambda records: records[0].update({field: text}))
    elif where == 2:
        change(run, "run.json", lambda totals: totals["checksums"].update({text: "0" * 64}))
    elif where == 3:
        change(run, "plan.json", lambda plan: plan["images"]["id"].update({"0": text}))
        rewrite(run, lambda rows: [replace(rows[0], id=text), *rows[1:]])
    elif where == 4:
        change(run, "plan.json", lambda plan: plan["images"]["key"].__setitem__(0, text))
        rewrite(run, lambda rows: [replace(rows[0], id=text, key=text), *rows[1:]])
    else:
        # Of a document, of a folder; those of a run of the first version are the first.
        kept = ("plan.json.sha256", "writers-html.sha256", ".plan.json.sha256.next")[where % 3]
        (run / "checksums").mkdir(exist_ok=True)
        (run / "checksums" / kept).write_text(f"{'0' * 64}  {text}\n{'0' * 64}  ../../{text}\n")
    return f"{where} {text[:40]!r}"


def documents(run: Path) -> list[str]:
    """Return the documents that a run has, and that hold something by name."""
    return [name for name in DOCUMENTS[:-1] if (run / name).exists()]


def wrong_value(run: Path, outside: Path, chance: random.Random) -> str:
    """Put another value somewhere in a document."""
    name, value = chance.choice(documents(run)), chance.choice(WRONG)
    told = ""

    def put(document: Any) -> None:
        nonlocal told
        while True:
            keys = list(document) if isinstance(document, dict) else list(range(len(document)))
            key = chance.choice(keys)
            told += f".{key}"
            inner = document[key]
            if not isinstance(inner, dict | list) or not inner or chance.random() < 0.25:
                document[key] = value
                return
            document = inner

    change(run, name, put)
    return f"{name}{told} = {str(value)[:30]!r}"


def missing_value(run: Path, outside: Path, chance: random.Random) -> str:
    """Take a value out of a document."""
    name = chance.choice(documents(run))
    told = ""

    def take(document: Any) -> None:
        nonlocal told
        while isinstance(document, list):
            document = document[chance.randrange(len(document))]
        key = chance.choice(list(document))
        told = key
        inner = document[key]
        if isinstance(inner, dict) and inner and chance.random() < 0.5:
            take(inner)
        else:
            del document[key]

    change(run, name, take)
    return f"{name} {told}"


def deep(run: Path, outside: Path, chance: random.Random) -> str:
    """Nest a document deeply."""
    name, depth = chance.choice(DOCUMENTS), chance.choice((150, 900, 3_000, 100_000))
    nested = "[" * depth + "]" * depth
    if chance.random() < 0.5 or not (run / name).exists():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(nested)
    else:
        text = (run / name).read_text()
        place = text.index("{") + 1
        (run / name).write_text(
            f'{text[:place]}"settings": {nested}, "more": {nested}, {text[place:]}'
        )
    return f"{name} {depth}"


def huge(run: Path, outside: Path, chance: random.Random) -> str:
    """Say or be a size that no machine has."""
    where = chance.randrange(6)
    if where < 3:
        files = [file for file in sorted(run.rglob("*")) if file.is_file()]
        file = chance.choice(files)
        with file.open("r+b") as opened:
            opened.truncate(1 << 40)
        return f"{file.relative_to(run)} of a TiB"
    if where == 3:
        size = [chance.choice((10**9, 65_500)), 10**9]
        change(run, "plan.json", lambda plan: plan["model"]["preprocessing"].update(size=size))
    elif where == 4:
        change(run, "kernels/kernels.json", lambda r: r[0].update(shape=[10**6] * 4, total=10**24))
    else:
        shards = [[0, 10**12]]
        change(run, "plan.json", lambda plan: plan.update(shards=shards))
    return f"number {where}"


def bytes_of(run: Path, outside: Path, chance: random.Random) -> str:
    """Change, cut or double some bytes of a file."""
    files = [file for file in sorted(run.rglob("*")) if file.is_file()]
    file = chance.choice(files)
    content = bytearray(file.read_bytes())
    how = chance.randrange(3)
    if how == 0:
        for _ in range(chance.choice((1, 8, 64))):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif how == 1:
        content = content[: chance.randrange(len(content))]
    else:
        content = content * 2
    file.write_bytes(content)
    return f"{file.relative_to(run)} {how}"


def rows(run: Path, outside: Path, chance: random.Random) -> str:
    """Write rows that do not fit the plan or themselves."""
    changes: tuple[Callable[[list[Row]], list[Row]], ...] = (
        lambda rows: rows[::-1],
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [replace(row, id="../../x") for row in rows],
        lambda rows: [replace(row, label=CONTROL, path=CONTROL * 30) for row in rows],
        lambda rows: [replace(row, image=b"\xff\xd8 no picture \xff\xd9") for row in rows],
        lambda rows: [
            replace(row, crop=(float("inf"),) * 4, width=-1, label_index=2**31 - 1) for row in rows
        ],
        lambda rows: [each(row, "maps", values=b"") for row in rows],
        lambda rows: [each(row, "maps", height=2**31 - 1) for row in rows],
        lambda rows: [each(row, "maps", lo=float("nan"), hi=float("-inf")) for row in rows],
        lambda rows: [each(row, "maps", method=CONTROL, layer="../../x") for row in rows],
        lambda rows: [each(row, "predictions", score=float("nan"), index=-9) for row in rows],
        lambda rows: [each(row, "activations", lo=()) for row in rows],
    )
    number = chance.randrange(len(changes))
    rewrite(run, changes[number])
    return str(number)


def tables(run: Path, outside: Path, chance: random.Random) -> str:
    """Write a table of the set, or of what a shard adds to it, that no exporter wrote."""
    files = (run / "summaries", run / "set", run / "channels.parquet", run / "maximised")
    known = [file for place in files for file in [*place.glob("*.parquet"), place]]
    file = chance.choice(sorted(file for file in known if file.suffix == ".parquet"))
    table = pq.ParquetFile(file).read()
    name = chance.choice(table.column_names)
    place, kind = table.column_names.index(name), table.field(name)
    how = chance.randrange(4)
    if how == 0:
        table = table.drop_columns([name])
    elif how == 1:
        table = table.set_column(place, kind, pa.nulls(len(table), kind.type))
    elif how == 2:
        table = table.set_column(place, name, pa.array([CONTROL] * len(table)))
    else:
        table = pa.concat_tables([table] * 3)
    pq.write_table(table, file)
    return f"{file.relative_to(run)} {name} {how}"


def consent(run: Path, outside: Path, chance: random.Random) -> str:
    """Say in the run what only its reader may decide: network, addresses, code, a place."""
    told = {
        "wandb": "online", "wandb_entity": "stranger", "wandb_project": "theirs",
        "report_url": "https://stranger.example", "tensorboard_url": "https://stranger.example",
        "writers": ["html", "wandb", "tensorboard"], "out": str(outside / "folder"),
        "writer_options": {"html": {"path": str(outside)}}, "keep": chance.choice((1, "all", "x")),
    }  # fmt: skip
    (run / "writers.json").write_text(json.dumps(told))
    evil = outside / "evil.py"
    recipe = {
        "settings": {"model": f"{evil}:model", "images": f"{evil}:images", "wandb": "online"},
        "command": "exporter", "folder": str(outside), "seal": chance.choice((None, "", "0" * 64)),
    }  # fmt: skip
    (run / "recipe.json").write_text(json.dumps(recipe))
    return "writers.json, recipe.json"


def each(row: Row, name: str, **values: Any) -> Row:
    """Change every map, prediction or activation of a row."""
    changed = tuple(replace(part, **values) for part in getattr(row, name))
    return replace(row, **{name: changed})


def forged(run: Path, name: str, what: Callable[[Any], object]) -> None:
    """Change what a document holds, and the checksums with it."""
    change(run, name, what)
    forge(run)


def change(run: Path, name: str, what: Callable[[Any], object]) -> None:
    """Change what a document holds."""
    document = json.loads((run / name).read_text())
    what(document)
    (run / name).write_text(json.dumps(document))


def rewrite(run: Path, what: Callable[[list[Row]], list[Row]]) -> None:
    """Change the rows of the first shard."""
    file = run / "shards/00000.parquet"
    before = list(table_records(pq.ParquetFile(file).read(), Row))
    pq.write_table(rows_to_table(what(before)), file, **parquet_options())


KINDS = (
    link, pipe, other_kind, outward, wrong_value, missing_value, deep, huge, bytes_of, rows,
    consent, link, wrong_value, tables,
)  # fmt: skip
