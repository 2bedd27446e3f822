"""Pictures and data sets that are damaged, exchanged, mixed, random, or a run's own."""

from __future__ import annotations

import builtins
import io
import os
import random
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import exporter
from exporter.cli import main
from exporter.errors import ImageError, ImageSetError
from exporter.images import Entry, decode, hash_contents, open_images, reopen_images
from exporter.records import Preprocessing

SMALL = Preprocessing((8, 8), (8, 8))
ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (60, 90, 3), dtype=np.uint8)
PIXELS = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
MODEL = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 5))
"""


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


def export(images: Any, out: Path, **settings: Any) -> exporter.Run:
    return exporter.export(
        small(), images, out=out, maps=["gradcam"], writers=(),
        preprocessing={"size": 16}, **settings,
    )  # fmt: skip


# ------------------------------------------------ exchanged between planning and computing


def _swap_file(folder: Path) -> None:
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())


def _swap_by_rename(folder: Path) -> None:
    times = (folder / "a.png").stat()
    _save(folder / "new", NOISE[::-1])
    os.utime(folder / "new", (times.st_atime, times.st_mtime))
    (folder / "new").replace(folder / "a.png")


def _swap_link(folder: Path) -> None:
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("b.png")


def _append(folder: Path) -> None:
    with (folder / "a.png").open("ab") as file:
        file.write(b"\0")


def _save(path: Path, pixels: np.ndarray, kind: str = "PNG", **options: Any) -> Path:
    Image.fromarray(pixels).save(path, kind, **options)
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder of two pictures, and one that is a link to a picture elsewhere."""
    folder = tmp_path / "set"
    folder.mkdir()
    _save(folder / "b.png", NOISE)
    _save(tmp_path / "elsewhere", NOISE[:, ::-1])
    (folder / "a.png").symlink_to("../elsewhere")
    _save(folder / "c.png", NOISE[:30])
    return folder


def _swap_target(folder: Path) -> None:
    _save(folder.parent / "elsewhere", NOISE[::2])


SWAPS = (_swap_target, _swap_file, _swap_by_rename, _swap_link, _append)


@pytest.mark.parametrize(
    "swap", [pytest.param(s, marks=pytest.mark.slow if k else ()) for k, s in enumerate(SWAPS)]
)
@pytest.mark.parametrize("again", [False, True])
def test_a_picture_that_was_exchanged_is_an_error_of_its_row(
    swap: Callable[[Path], None], again: bool, three: Path
) -> None:
    images = open_images(three)
    swap(three)
    if again:
        images = reopen_images(three, images.entries)
    with pytest.raises(ImageError, match="the file has changed since the run was planned"):
        images.load(images.entries[0], SMALL)
    assert images.load(images.entries[2], SMALL).view.shape == (8, 8, 3)


class Later(list[Any]):
    """A data set whose second item changes after so many reads."""

    def __init__(self, items: Any, after: int, change: Callable[[Any], Any]) -> None:
        super().__init__(items)
        self.left = after
        self.change = change

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        self.left -= index == 1
        return self.change(item) if index == 1 and self.left < 0 else item


CHANGES: list[Callable[[Any], Any]] = [
    lambda item: np.ascontiguousarray(item[::-1]),
    lambda item: item[:-1],
    lambda item: torch.from_numpy(item) + 1,
    lambda item: _encoded("PNG", item),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_data_set_that_returns_other_bytes_later_is_an_error_of_its_row(
    change: Callable[[Any], Any], tmp_path: Path
) -> None:
    # It is read for its key, once more to see whether it is random, and then for the model.
    items = Later([NOISE, NOISE[:30], NOISE[:, :40]], 2, change)
    run = export(items, tmp_path / "run", workers=1)
    first, second, third = (row.error for row in run.rows())
    assert (first, third) == (None, None)
    assert "the item has changed since the run was planned" in str(second).replace("file", "item")


# ------------------------------------------------ other pixels each time


class Flips:
    """A data set that augments at random, by one generator or another."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self.chance = chance

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        picture = np.roll(NOISE, index, axis=1)
        return (picture[:, ::-1] if self.chance() < 0.5 else picture), index


CHANCES: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "numpy": lambda: float(np.random.random()),
    "python": random.random,
    "the system": lambda: random.SystemRandom().random(),
}


@pytest.mark.parametrize("name", CHANCES)
def test_a_data_set_that_augments_at_random_is_refused_while_planning(name: str) -> None:
    with pytest.raises(ImageSetError, match="turn its random augmentation off") as caught:
        open_images(Flips(CHANCES[name]))
    assert "'Flips'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_augmentation_that_is_seeded_by_the_index_is_taken() -> None:
    class Seeded(Flips):
        def __getitem__(self, index: int) -> Any:
            self.chance = random.Random(index).random
            return super().__getitem__(index)

    assert len(open_images(Seeded(random.random)).entries) == 12


# ------------------------------------------------ tensors and pictures in one set

READY = torch.from_numpy(RANDOM.normal(size=(3, 8, 8)).astype(np.float32))
UNIT = torch.from_numpy(RANDOM.random((3, 8, 8)).astype(np.float32))
MIXED: dict[str, list[Any]] = {
    "an array after": [READY, PIXELS],
    "an array before": [PIXELS, READY],
    "a Pillow image": [READY, READY + 1, Image.fromarray(PIXELS)],
    "a uint8 tensor": [READY, torch.from_numpy(PIXELS).permute(2, 0, 1)],
    "a mask": [READY, PIXELS[:, :, 0] > 9],
    "tensors in [0, 1]": [UNIT, PIXELS],
    "half precision": [READY.half(), PIXELS],
}


@pytest.mark.parametrize("name", MIXED)
def test_a_set_that_mixes_tensors_with_pictures_is_refused(name: str) -> None:
    images = open_images([(item, 0) for item in MIXED[name]])
    with pytest.raises(ImageSetError, match=r"mixes .*tensor of \(3, 8, 8\).* with pictures"):
        images.settle(SMALL)


@pytest.mark.parametrize("name", ["a Pillow image", "an array before"])
def test_a_mixed_set_is_refused_before_a_run_is_begun(name: str, tmp_path: Path) -> None:
    items = [torch.nn.functional.pad(i, (4, 4, 4, 4)) if i is READY else i for i in MIXED[name][:2]]
    if name == "a Pillow image":
        items = [items[0], Image.fromarray(PIXELS)]
    with pytest.raises(ImageSetError, match="mixes"):
        export(items, tmp_path / "run")
    assert not (tmp_path / "run" / "plan.json").exists()


def test_tensors_are_taken_in_one_way(tmp_path: Path) -> None:
    ready = open_images([READY, READY * 2])
    ready.settle(SMALL)
    assert ready.ready
    assert "takes them as they are" in ready.notes[-1]
    assert "[0, 1]" not in ready.notes[-1]
    unit = open_images([UNIT, UNIT / 2])
    unit.settle(SMALL)
    assert unit.ready
    assert "though their values lie in [0, 1]" in unit.notes[-1]
    # Pictures of many sizes, one of which has the model's by chance.
    sizes = open_images([UNIT, torch.rand(3, 9, 7), torch.rand(3, 20, 8)])
    sizes.settle(SMALL)
    assert not sizes.ready
    assert [sizes.load(entry, SMALL).tensor for entry in sizes.entries] == [None] * 3
    # One normalised tensor of another size is an error of its own.
    odd = open_images([READY, torch.randn(3, 9, 7)])
    odd.settle(SMALL)
    assert odd.load(odd.entries[0], SMALL).tensor is not None
    with pytest.raises(ImageError, match=r"tensor of \(3, 9, 7\), and the others are model-ready"):
        odd.load(odd.entries[1], SMALL)


def test_a_source_that_gives_its_keys_may_have_tensors() -> None:
    class Keyed:
        def entries(self) -> Any:
            return [Entry("a", key=hash_contents(READY)), Entry("b", key=hash_contents(READY))]

        def load(self, entry: Any) -> Any:
            return READY

    images = open_images(Keyed())
    images.settle(SMALL)
    tensor = images.load(images.entries[1], SMALL).tensor
    assert tensor is not None
    assert np.array_equal(tensor, READY.numpy())


def test_workers_take_tensors_as_they_were_planned(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "tensors.py").write_text(
        "import torch\n"
        "def factory():\n"
        "    torch.manual_seed(1)\n"
        "    return [torch.randn(3, 224, 224) for _ in range(3)]\n"
    )
    out = tmp_path / "run"
    exporter.plan(
        f"{tmp_path}/model.py:small", f"{tmp_path}/tensors.py:factory", out=out,
        maps=["gradcam"], writers=(), shard_size=1,
    )  # fmt: skip
    assert exporter.open_run(out).plan.execution["items"] == "model-ready tensors"
    exporter.work(out)
    run = exporter.finish(out)
    assert [row.error for row in run.rows()] == [None] * 3
    model = small().eval()
    torch.manual_seed(1)
    scores = model(torch.randn(3, 224, 224)[None]).softmax(1)
    first = next(iter(run.rows()))
    assert first.predictions[0].score == pytest.approx(float(scores.detach().max()), abs=1e-6)


# ------------------------------------------------ user code that raises anything

RAISED = sorted(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception | SystemExit)
)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "UnicodeDecodeError": ("utf-8", b"x", 0, 1, "bad"),
    "UnicodeEncodeError": ("utf-8", "x", 0, 1, "bad"),
    "UnicodeTranslateError": ("x", 0, 1, "bad"),
    "ExceptionGroup": ("group", [KeyError("a")]),
}


def _raise(name: str) -> Any:
    kind = getattr(builtins, name)
    raise kind(*ARGUMENTS.get(name, ("two\nlines",)))


def _kind(name: str) -> str:
    return {"SystemExit": "two"}.get(name, getattr(builtins, name).__name__)


class Raises(list[Any]):
    """A data set whose second item, or whose length, raises."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__([NOISE, NOISE[:30], NOISE[:9]])
        self.raised, self.where = name, where

    def __len__(self) -> int:
        return _raise(self.raised) if self.where == "len" else super().__len__()

    def __getitem__(self, index: Any) -> Any:
        if self.where == "item" and index == 1:
            _raise(self.raised)
        return super().__getitem__(index)


def _some(names: list[str]) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow if k % 10 else ()) for k, n in enumerate(names)]


@pytest.mark.parametrize("name", _some([n for n in RAISED if n not in ("MemoryError",)]))
def test_an_item_that_raises_is_an_error_of_its_row(name: str) -> None:
    images = open_images(Raises(name, "item"))
    assert [entry.error is None for entry in images.entries] == [True, False, True]
    error = str(images.entries[1].error)
    assert error.startswith("item 1 of the data set failed")
    assert _kind(name) in error
    assert re.search(r"test_pictures\.py, line \d+\); fix it and try again$", error)
    assert "\n" not in error


class Unread(Image.Image):
    """A picture that fails when its pixels are asked for."""

    def load(self) -> Any:
        raise LookupError("no pixels")


class Unsaid:
    """A label that fails whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError("no label")


LATE: dict[str, tuple[Callable[[], Any], str]] = {
    "cut": (lambda: Image.open(io.BytesIO(_encoded("JPEG")[:-999])), "image file is truncated"),
    "pixels": (Unread, "LookupError: no pixels"),
    "label": (lambda: (NOISE, Unsaid()), "LookupError: no label"),
    "meta": (lambda: torch.zeros(3, 9, 9, device="meta"), "Cannot copy out of meta tensor"),
    "sparse": (lambda: torch.zeros(3, 9, 9).to_sparse(), "can't convert Sparse layout"),
}
"""What items of a data set hold, and what they say once somebody looks at it."""


@pytest.mark.parametrize("name", LATE)
def test_an_item_that_fails_once_it_is_looked_at_is_an_error_of_its_row(name: str) -> None:
    item, says = LATE[name]
    images = open_images([NOISE, item()])
    error = str(images.entries[1].error)
    assert error.startswith("item 1 of the data set failed: ")
    assert says in error
    assert error.endswith("; fix it and try again")


def test_a_source_whose_picture_fails_once_it_is_looked_at_has_a_row_with_an_error() -> None:
    class Source:
        def entries(self) -> Any:
            return [Entry("a"), Entry("b")]

        def load(self, entry: Any) -> Any:
            return Unread() if entry.path == "b" else NOISE

    error = str(open_images(Source()).entries[1].error)
    assert error.startswith("the image source failed: LookupError: no pixels (")
    assert error.endswith("); fix it and try again")


@pytest.mark.parametrize("name", _some(RAISED))
@pytest.mark.parametrize("what", ["length", "factory", "module"])
def test_a_data_set_or_factory_that_raises_is_one_sentence(
    name: str, what: str, tmp_path: Path
) -> None:
    call = f"raise {name}{ARGUMENTS.get(name, ('two lines',))!r}"
    code = {
        "length": f"class factory:\n    def __len__(self):\n        {call}\n"
        "    def __getitem__(self, index):\n        return None\n",
        "factory": f"def factory():\n    {call}\n",
        "module": f"{call}\n",
    }[what]
    (tmp_path / "pictures.py").write_text(code)
    with pytest.raises(ImageSetError) as caught:
        open_images(f"{tmp_path}/pictures.py:factory")
    assert _kind(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interrupt_goes_through_and_a_lack_of_memory_stops_the_planning() -> None:
    with pytest.raises(KeyboardInterrupt):
        open_images(Raises("KeyboardInterrupt", "item"))
    with pytest.raises(ImageSetError, match="not enough memory to read 'item-000001'"):
        open_images(Raises("MemoryError", "item"))


# ------------------------------------------------ the pictures of runs


def _run_folder(folder: Path) -> Path:
    """Write what makes a run folder, with pictures in it."""
    (folder / "kernels").mkdir(parents=True)
    (folder / "html" / "images").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    (folder / "notes.txt").write_text("no image")
    _save(folder / "kernels" / "conv1.png", NOISE)
    _save(folder / "html" / "images" / "a.jpg", NOISE, "JPEG")
    return folder


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """Two pictures, with a run beside them and another in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "cat").mkdir(parents=True)
    _save(folder / "a.png", NOISE)
    _save(folder / "cat" / "b.png", NOISE[:30])
    _run_folder(folder / "out")
    _run_folder(folder / "runs" / "first")
    return folder


def _listed(folder: Path) -> Path:
    paths = [file.relative_to(folder) for file in sorted(folder.rglob("*.*g"))]
    (folder / "list.csv").write_text("path\n" + "".join(f"{path}\n" for path in paths))
    return folder / "list.csv"


WAYS: dict[str, Callable[[Path], Any]] = {
    "a folder": lambda folder: folder,
    "a glob": lambda folder: f"{folder}/**/*.*g",
    "a glob of folders": lambda folder: f"{folder}/**",
    "a list": _listed,
    "paths": lambda folder: sorted(folder.rglob("*.*g")),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_pictures_of_runs_are_left_out_and_it_is_said(way: str, around: Path) -> None:
    images = open_images(WAYS[way](around))
    assert [entry.path for entry in images.entries] == ["a.png", "cat/b.png"]
    said = [note for note in images.notes if "run folder" in note]
    assert ["'out'" in said[0], "'runs/first'" in said[1], len(said)] == [True, True, 2]
    assert "notes.txt" not in " ".join(images.notes)


def test_a_linked_run_and_a_run_itself_have_no_pictures(around: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    _save(tmp_path / "linked" / "c.png", NOISE)
    (tmp_path / "linked" / "run").symlink_to(around / "out")
    assert [e.path for e in open_images(tmp_path / "linked").entries] == ["c.png"]
    with pytest.raises(ImageSetError, match=r"no images .*run folder '\.' is left out"):
        open_images(around / "out")
    # A folder that merely has a file of that name is no run.
    (around / "cat" / "plan.json").write_text("{}")
    assert [e.path for e in open_images(around).entries] == ["a.png", "cat/b.png"]


@pytest.mark.slow
def test_a_run_inside_its_own_images_is_the_same_run_again(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, picture in (("a.png", NOISE), ("b.png", NOISE[::-1])):
        _save(folder / name, picture)
    first = export(folder, folder / "out", maximise=["0:1"])
    assert list((folder / "out").rglob("*.png")), "the run has pictures of its own"
    second = export(folder, folder / "again")
    assert [i.key for i in first.plan.images] == [i.key for i in second.plan.images]
    assert any("'out' is left out" in note for note in second.plan.notes)
    resumed = export(folder, folder / "again", resume=True)
    assert resumed.complete


# ------------------------------------------------ half damaged


def _encoded(kind: str, pixels: Any = NOISE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _interlaced() -> bytes:
    """Return a grey PNG of 8 × 8 pixels, interlaced (Adam7)."""
    grey = NOISE[:8, :8, 0]
    starts = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    lines = (row for y, x, dy, dx in starts for row in grey[y::dy, x::dx])
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in lines))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    return _png((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


WHOLE: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: _encoded("PNG"),
    "PNG grey": lambda: _encoded("PNG", NOISE[:, :, 0]),
    "PNG palette": lambda: _encoded("PNG", Image.fromarray(NOISE).quantize(16)),
    "PNG 16 bits": lambda: _encoded("PNG", (NOISE[:, :, 0].astype(np.uint16) << 8) + 7),
    "PNG alpha": lambda: _encoded("PNG", Image.fromarray(NOISE).convert("RGBA")),
    "PNG interlaced": _interlaced,
    "WebP": lambda: _encoded("WEBP"),
    "WebP lossless": lambda: _encoded("WEBP", lossless=True),
    "WebP alpha": lambda: _encoded("WEBP", Image.fromarray(NOISE).convert("RGBA").rotate(20)),
    "GIF": lambda: _encoded("GIF"),
    "TIFF LZW": lambda: _encoded("TIFF", compression="tiff_lzw"),
    "TIFF deflate": lambda: _encoded("TIFF", compression="tiff_adobe_deflate"),
    "TIFF JPEG": lambda: _encoded("TIFF", compression="jpeg"),
    "AVIF": lambda: _encoded("AVIF"),
    "JPEG 2000": lambda: _encoded("JPEG2000"),
    "JPEG": lambda: _encoded("JPEG"),
}
PLAIN = {
    "BMP": lambda: _encoded("BMP"),
    "TIFF": lambda: _encoded("TIFF"),
    "PPM": lambda: _encoded("PPM"),
}
QUICK = ("PNG", "WebP", "JPEG")
FORMATS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WHOLE]


def refused(content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(content)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_half_a_picture_is_refused_cut_or_padded_with_zeros(name: str) -> None:
    content = WHOLE[name]()
    assert decode(content).shape[2] == 3
    for part in (0.3, 0.5, 0.7, 0.85):
        end = int(len(content) * part)
        refused(content[:end])
        refused(content[:end] + bytes(len(content) - end))
        refused(content[:end] + bytes(4096))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLAIN)
def test_a_picture_without_checksums_is_refused_where_it_is_cut(name: str) -> None:
    content = PLAIN[name]()
    for part in (0.3, 0.5, 0.7, 0.9):
        refused(content[: int(len(content) * part)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in WHOLE if n.startswith("PNG")])
def test_a_byte_of_a_png_that_is_wrong_is_noticed(name: str) -> None:
    content = WHOLE[name]()
    places = random.Random(name).sample(range(8, len(content)), min(60, len(content) - 8))
    for place in [*places, len(content) - 1, len(content) - 13, len(content) - 17]:
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        refused(bytes(changed))


def test_pngs_that_lack_something_are_refused() -> None:
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE))
    header = (b"IHDR", struct.pack(">IIBBBBB", 90, 60, 8, 2, 0, 0, 0))
    end = (b"IEND", b"")
    half = len(packed) // 2
    assert (decode(_png(header, (b"IDAT", packed), end)) == NOISE).all()
    assert (
        decode(_png(header, (b"IDAT", packed[:half]), (b"IDAT", packed[half:]), end)) == NOISE
    ).all()
    refused(_png(header, (b"IDAT", packed)))
    refused(_png(header, (b"IDAT", packed[:half]), end))
    refused(_png(header, (b"IDAT", packed[half:]), (b"IDAT", packed[:half]), end))
    refused(_png(header, (b"IDAT", packed[:half] + bytes(len(packed) - half)), end))
    refused(_png(header, end))
    refused(_png((b"IDAT", packed), end))
    refused(_png(header, (b"IDAT", packed), end)[:-4] + bytes(4))
    text = _png(header, (b"tEXt", b"Comment\0x"), (b"IDAT", packed), end)
    refused(text.replace(b"Comment", b"comment"))


def test_what_follows_a_picture_does_not_matter() -> None:
    for name in ("PNG", "GIF", "WebP", "JPEG"):
        content = WHOLE[name]()
        assert (decode(content + b"trailer") == decode(content)).all()


@pytest.mark.parametrize(
    "colour", ["black", *(pytest.param(c, marks=pytest.mark.slow) for c in ("white", "red"))]
)
def test_pictures_of_one_colour_are_no_broken_downloads(colour: str) -> None:
    for side in (3, 100, 1500):
        picture = Image.new("RGB", (side, side), colour)
        for kind, options in (
            ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 1}), ("AVIF", {}),
            ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
            ("TIFF", {"compression": "tiff_adobe_deflate"}), ("PNG", {}),
        ):  # fmt: skip
            assert decode(_encoded(kind, picture, **options)).shape == (side, side, 3)


def test_damaged_pictures_are_rows_with_a_reason_and_the_terminal_stays_clean(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # the process's own, as of a command
    (tmp_path / "model.py").write_text(MODEL)
    folder = tmp_path / "photos"
    folder.mkdir()
    packed = zlib.compress(bytes(60 * 271))
    header = (b"IHDR", struct.pack(">IIBBBBB", 90, 60, 8, 2, 0, 0, 0))
    wrong = packed[:-2] + b"xx"
    jpeg = _encoded("JPEG")
    files = {
        "good.png": _encoded("PNG"),
        "wrong.png": _png(header, (b"IDAT", wrong), (b"IEND", b"")),
        "profile.png": _png(header, (b"sRGB", b"\x09"), (b"IDAT", packed), (b"IEND", b"")),
        "extra.jpg": jpeg[:-2] + b"extraneous bytes" + jpeg[-2:],
        "lzw.tif": WHOLE["TIFF LZW"]().replace(b"\x80", b"\x91"),
        "cut.png": _encoded("PNG")[:3000],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    code = main([
        "run", "--model", f"{tmp_path}/model.py:small", "--images", str(folder),
        "--out", f"{tmp_path}/run", "--map", "gradcam", "--writer", "html",
    ])  # fmt: skip
    said = capfd.readouterr().err
    assert code == 3, said
    for noise in ("libpng", "Corrupt JPEG", "tempfile.tif", "Decode", "Warning", "WARN"):
        assert noise not in said
    errors = {row.path: row.error for row in exporter.open_run(tmp_path / "run").rows()}
    assert {path for path, error in errors.items() if error} == {"wrong.png", "lzw.tif", "cut.png"}


def test_other_lines_on_standard_error_are_passed_on() -> None:
    code = (
        "import os, sys\n"
        "from exporter.cli.quiet import quiet_codecs\n"
        "with quiet_codecs():\n"
        "    os.write(2, b'libpng error: no\\nUnicodeDecodeError: kept\\n')\n"
        "    os.write(2, b'Corrupt JPEG data: no\\n')\n"
        "    os.system('echo child >&2')\n"
        "    print('ours', file=sys.stderr)\n"
        "    os.write(2, b'the last')\n"
        "print(' and after', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = ["UnicodeDecodeError: kept", "child", "ours", "the last and after"]
    assert sorted(done.stderr.splitlines()) == lines


# ------------------------------------------------ what is offered


def test_only_image_sets_are_offered_for_one_that_is_not_there(tmp_path: Path) -> None:
    for folder in ("photos", "__pycache__x"):
        (tmp_path / folder).mkdir()
    for file in ("photo.py", "photo.txt", "README", "photo.csv", "photon.png"):
        (tmp_path / file).touch()
    with pytest.raises(ImageSetError) as caught:
        open_images(tmp_path / "photo")
    assert "photo.csv" in str(caught.value)
    assert "photos" in str(caught.value)
    for other in ("photo.py", "photo.txt", "README"):
        assert other not in str(caught.value)
