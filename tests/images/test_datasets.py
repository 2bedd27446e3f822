from __future__ import annotations

import io
import itertools
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from torchvision.datasets import FakeData, ImageFolder

from exporter.errors import ImageError, ImageSetError
from exporter.images import normalise, open_images, reopen_images
from exporter.records import Preprocessing

SAME = Preprocessing((6, 8), None)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = PIXELS[:, :, 0]


def load(item: Any, preprocessing: Preprocessing = SAME) -> Any:
    images = open_images([item])
    images.settle(preprocessing)
    return images.load(images.entries[0], preprocessing)


@pytest.mark.parametrize(
    "item",
    [
        Image.fromarray(PIXELS),
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1).double()[:, :, :] / 255,
        np.dstack([PIXELS, np.full((6, 8), 255, np.uint8)]),
        {"image": PIXELS, "label": 1},
        (PIXELS, 1),
    ],
    ids=["PIL", "HWC", "CHW", "HWC tensor", "CHW tensor", "float", "RGBA", "dict", "pair"],
)
def test_every_kind_of_item_gives_the_same_view(item: Any) -> None:
    prepared = load(item, Preprocessing((4, 6), None))
    assert np.array_equal(prepared.view, PIXELS[1:5, 1:7])
    assert prepared.tensor is None
    assert prepared.geometry.crop == (1, 1, 7, 5)


@pytest.mark.parametrize("item", [GREY, torch.from_numpy(GREY), GREY[:, :, None], GREY[None]])
def test_grey_items(item: Any) -> None:
    assert np.array_equal(load(item).view, np.repeat(GREY[:, :, None], 3, axis=2))
    grey = Preprocessing((6, 8), None, channels=1, mean=(0.5,), std=(0.5,))
    assert np.array_equal(load(item, grey).view, GREY[:, :, None])


def test_a_tensor_of_the_models_size_is_model_ready() -> None:
    tensor = normalise(torch.from_numpy(PIXELS)[None], SAME)[0]
    for item in (tensor, tensor.numpy(), tensor.double(), tensor.requires_grad_()):
        prepared = load(item)
        assert prepared.tensor is not None
        assert prepared.tensor.dtype == np.float32
        assert np.allclose(prepared.tensor, tensor.detach().numpy())
        assert np.array_equal(prepared.view, PIXELS)
        assert prepared.geometry.crop == (0, 0, 8, 6)


def test_half_precision_tensors() -> None:
    tensor = normalise(torch.from_numpy(PIXELS)[None], SAME)[0].bfloat16()
    prepared = load(tensor)
    assert prepared.tensor is not None
    assert prepared.tensor.dtype == np.float32


def test_five_channels_are_model_ready_and_the_first_three_are_shown() -> None:
    five = Preprocessing((6, 8), None, channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)
    prepared = load(torch.zeros(5, 6, 8), five)
    assert prepared.view.shape == (6, 8, 3)
    assert prepared.tensor is not None
    assert prepared.tensor.shape == (5, 6, 8)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("text" * 3, "failed|is a str"),
        (None, "is None;"),
        (np.zeros((5, 6, 7), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 3, 4, 5), np.uint8), "has the shape"),
        (np.zeros((0, 3), np.uint8), "has the shape"),
        (np.zeros((4, 5, 3), np.int64), "array of int64"),
        (torch.full((3, 5, 5), 2.0), "in \\[0, 1\\]"),
        (torch.full((3, 5, 5), float("nan")), "in \\[0, 1\\]"),
    ],
)
def test_what_is_no_image_is_a_row_with_an_error(item: Any, message: str) -> None:
    images = open_images([(PIXELS, 0), (item, 1)])
    assert images.load(images.entries[0], SAME) is not None
    with pytest.raises(ImageError, match=message):
        images.load(images.entries[1], SAME)


class Pictures(Dataset[Any]):
    """Two classes; the third item is broken."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise OSError("disk on\nfire")
        return Image.fromarray(PIXELS), torch.tensor(index % 2)


def test_torch_dataset() -> None:
    images = open_images(Pictures())
    assert [entry.path for entry in images.entries] == [f"item-00000{i}" for i in range(4)]
    assert [entry.label for entry in images.entries] == ["cat", "dog", None, "dog"]
    assert images.entries[1].id == images.entries[0].key + "-2"
    error = images.entries[2].error
    assert error is not None
    assert error.startswith("item 2 of the data set failed: OSError: disk on fire (")
    assert "test_datasets.py, line " in error
    assert images.where == "Pictures"
    assert len(open_images(Pictures(), limit=2).entries) == 2
    again = pickle.loads(pickle.dumps(images))
    assert np.array_equal(again.load(again.entries[3], SAME).view, PIXELS)


def test_tensor_dataset_labels_without_names_are_numbers() -> None:
    images = open_images(TensorDataset(torch.zeros(2, 3, 6, 8), torch.tensor([7, 281])))
    assert [entry.label for entry in images.entries] == ["7", "281"]


def test_labels_of_one_element_count() -> None:
    pixels = torch.zeros(2, 3, 6, 8)
    images = open_images(TensorDataset(pixels, torch.tensor([[7], [281]])))
    assert [entry.label for entry in images.entries] == ["7", "281"]
    images = open_images(TensorDataset(pixels, torch.tensor([[0, 1], [1, 0]])))
    assert [entry.label for entry in images.entries] == [None, None]


def labels(dataset: Any) -> list[str | None]:
    return [entry.label for entry in open_images(dataset).entries]


class Named(TensorDataset):
    """Five pictures; labels 0, 1, 0, 1, 0 of two classes with the names given."""

    def __init__(self, *classes: str) -> None:
        super().__init__(torch.rand(5, 3, 6, 8), torch.arange(5) % 2)
        self.classes = list(classes)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Subset(Named("cat", "dog"), [3, 0]), ["dog", "cat"]),
        (Subset(Subset(Named("cat", "dog"), [4, 3, 1]), [2, 0]), ["dog", "cat"]),
        (ConcatDataset([Named("a", "b"), Named("c", "d")]), [*"ababa", *"cdcdc"]),
        (Subset(ConcatDataset([Named("a", "b"), Named("c", "d")]), [6, 4]), ["d", "a"]),
        (random_split(Named("cat", "dog"), [5, 0])[0], None),
        (FakeData(3, (3, 6, 8), num_classes=4), None),
    ],
)
def test_labels_keep_their_names_through_wrappers(dataset: Any, expected: Any) -> None:
    if expected is None:
        names = getattr(getattr(dataset, "dataset", None), "classes", [*map(str, range(4))])
        expected = [names[int(dataset[k][1])] for k in range(len(dataset))]
    assert labels(dataset) == expected


@pytest.mark.parametrize("wrap", [lambda named: named, lambda named: Subset(named, range(5))])
def test_names_are_found_in_class_to_idx_too(wrap: Any) -> None:
    named = Named("cat", "dog")
    named.class_to_idx, named.classes = {"cat": 0, "dog": 1}, None
    assert labels(wrap(named)) == ["cat", "dog", "cat", "dog", "cat"]
    assert not any("names" in note for note in open_images(wrap(named)).notes)


class Hidden(list[Any]):
    """A wrapper that hides what the set inside it says."""


@pytest.mark.parametrize(
    ("dataset", "item"),
    [
        (TensorDataset(torch.rand(2, 3, 6, 8), torch.tensor([7, 281])), 0),
        (Hidden(Named("cat", "dog")), 0),
        (Hidden([(PIXELS, np.int64(3))]), 0),
        (Subset(Named("cat"), [0, 1]), 1),  # a second class, of one
    ],
)
def test_numbers_that_nothing_names_are_said(dataset: Any, item: int) -> None:
    images = open_images(dataset)
    assert images.entries[item].label.isdecimal()
    said = "labels are numbers without names, so they match no class; give the data set "
    assert f"{said}'classes', a list of names (item-{item:06d})" in images.notes


def test_digits_that_are_names_are_none_of_them() -> None:
    images = open_images(Named("0", "1"))
    assert [entry.label for entry in images.entries] == [*"01010"]
    assert not any("without names" in note for note in images.notes)


def test_an_image_folder_and_a_split_of_it(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(np.roll(PIXELS, index, 0)).save(tmp_path / name / f"{index}.png")
    folder = ImageFolder(str(tmp_path))
    assert labels(folder) == ["ant"] * 3 + ["bee"] * 3
    first, second = random_split(folder, [4, 2], torch.Generator().manual_seed(0))
    assert sorted(filter(None, labels(first) + labels(second))) == ["ant"] * 3 + ["bee"] * 3


def test_labels_of_hugging_faces_features_have_names() -> None:
    class Feature:
        names = ("cat", "dog")

    class Hugging(list[Any]):
        features: ClassVar = {"image": object(), "label": Feature()}

    rows = [{"image": PIXELS, "label": 1}, {"image": GREY, "label": 0}]
    assert labels(Hugging(rows)) == ["dog", "cat"]
    assert labels(Subset(Hugging(rows), [1])) == ["cat"]

    class Several:
        feature = Feature()

    class Lists(list[Any]):
        features: ClassVar = {"image": object(), "labels": Several()}

    assert labels(Lists([{"image": PIXELS, "labels": [1]}])) == ["dog"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (torch.tensor([0, 1, 0]), "b"),
        (np.array([0.0, 0.0, 1.0]), "c"),
        ([1, 0, 0], "a"),
        (torch.tensor(2.0), "c"),
        (np.int64(1), "b"),
        (1.5, "1.5"),
        (7, "7"),
        ("fox", "fox"),
    ],
)
def test_labels_in_every_form(label: Any, expected: str) -> None:
    class Three(list[Any]):
        classes = ("a", "b", "c")

    images = open_images(Three([(PIXELS, label)]))
    assert images.entries[0].label == expected
    assert bool(images.notes) == (expected == "7")


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (torch.tensor([1, 1, 0]), r"a Tensor of shape \(3,\)"),
        ([[1, 0, 0], [0, 1, 0]], "a list"),
        ({"caption": "a dog"}, "a dict"),
        (torch.tensor([0.2, 0.3, 0.5]), r"a Tensor of shape \(3,\)"),
    ],
)
def test_labels_that_are_none_are_left_out_and_said(label: Any, kind: str) -> None:
    class Three(list[Any]):
        classes = ("a", "b", "c")

    images = open_images(Three([(PIXELS, label), (GREY, 1)]))
    assert [entry.label for entry in images.entries] == [None, "b"]
    (note,) = images.notes
    assert re.match(f"labels that are {kind} are left out", note)


def test_pillow_items_are_turned_as_files_are(encode: Callable[..., bytes]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(Image.fromarray(PIXELS), "PNG", exif=exif)
    item = Image.open(io.BytesIO(content))
    turned = Preprocessing((8, 6), None)
    assert np.array_equal(load(content, turned).view, load(item, turned).view)
    assert np.array_equal(load(item, turned).view, np.rot90(PIXELS, -1))


def test_keys_follow_the_pixels() -> None:
    other = PIXELS.copy()
    other[0, 0, 0] ^= 1
    keys = [
        entry.key for entry in open_images([PIXELS, other, PIXELS, PIXELS.reshape(8, 6, 3)]).entries
    ]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def test_module_and_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    (tmp_path / "our_pictures.py").write_text(
        "import numpy as np\n"
        "ready = [np.zeros((3, 4, 3), np.uint8)]\n"
        "def factory(): return ready * 2\n"
        "def fails(): raise RuntimeError('no\\ndisk')\n"
        "def nothing(): return None\n"
        "class Made:\n"
        "    def __len__(self): return 5\n"
        "    def __getitem__(self, index): return ready[0]\n"
    )
    monkeypatch.chdir(tmp_path)
    for spec, count in (("factory", 2), ("ready", 1), ("Made", 5)):
        images = open_images(f"our_pictures:{spec}")
        assert len(images.entries) == count
        assert images.where == f"our_pictures:{spec}"
    for spec, message in (
        ("our_pictures:factry", "did you mean 'factory'"),
        ("our_pictures:fails", "RuntimeError: no disk"),
        ("our_pictures:nothing", "gave None"),
        ("our_pictures:np", "is a module"),
        ("no_such_module:x", "there is no module 'no_such_module'"),
    ):
        with pytest.raises(ImageSetError, match=message) as caught:
            open_images(spec)
        assert "\n" not in str(caught.value)


def test_a_data_set_without_length_is_refused() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield PIXELS

    with pytest.raises(ImageSetError, match="'Endless' has no length; give --limit"):
        open_images(Endless())


def test_a_stream_is_read_up_to_the_limit(tmp_path: Path) -> None:
    class Endless(IterableDataset[Any]):
        classes = ("a", "b", "c")

        def __iter__(self) -> Any:
            for index in itertools.count():
                given.append(index)
                yield np.roll(PIXELS, index, 1), index % 3

    given: list[int] = []
    images = open_images(Endless(), limit=4)
    assert given == [0, 1, 2, 3]
    assert [entry.label for entry in images.entries] == ["a", "b", "c", "a"]
    for index, entry in enumerate(images.entries):
        assert np.array_equal(images.load(entry, SAME).view, np.roll(PIXELS, index, 1))
    again = reopen_images(Endless(), images.entries, limit=4)
    assert np.array_equal(again.load(again.entries[2], SAME).view, np.roll(PIXELS, 2, 1))
    few = open_images(iter([PIXELS, GREY]), limit=5)
    assert len(few.entries) == 2
    (tmp_path / "stream.py").write_text(
        "import itertools, numpy as np\n"
        "def factory():\n"
        "    for level in itertools.count():\n"
        "        yield np.full((6, 8, 3), level, np.uint8)\n"
    )
    made = open_images(f"{tmp_path}/stream.py:factory", limit=3)
    assert [made.load(entry, SAME).view[0, 0, 0] for entry in made.entries] == [0, 1, 2]


def test_a_stream_that_breaks_is_one_sentence() -> None:
    def breaks() -> Any:
        yield PIXELS
        raise OSError("no more\ntape")

    with pytest.raises(ImageSetError) as caught:
        open_images(breaks(), limit=3)
    assert "no more tape" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(open_images(breaks(), limit=1).entries) == 1


def test_pil_items_of_any_mode(encode: Callable[..., bytes]) -> None:
    rgba = Image.new("RGBA", (8, 6), (200, 0, 0, 102))
    assert load(rgba).view[0, 0].tolist() == [233, 153, 153]
    assert (load(Image.new("I;16", (8, 6), 0x8001)).view == 0x80).all()
