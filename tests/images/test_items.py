"""Data sets of torchvision and Hugging Face, small and local: images, names and boxes."""

from __future__ import annotations

import json
import pickle
import struct
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision import datasets as torchvision_sets
from torchvision.datasets import ImageFolder
from torchvision.datasets import wrap_dataset_for_transforms_v2 as wrap
from torchvision.transforms import ToTensor

from exporter.errors import ImageError, ImageSetError
from exporter.images import ImageSet, open_images
from exporter.images.items import read_item
from exporter.images.labels import Origin
from exporter.records import Preprocessing

STEPS = Preprocessing((6, 8), None)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)


def labels(images: ImageSet) -> list[str | None]:
    return [entry.label for entry in images.entries]


def settled(where: Any, **options: Any) -> ImageSet:
    images = open_images(where, **options)
    images.settle(STEPS)
    return images


def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *given: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    batch = {"data": pixels.transpose(0, 3, 1, 2).reshape(3, -1), "labels": [1, 0, 1]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "car"]}))
    cifar = torchvision_sets.CIFAR10(str(tmp_path), train=False)
    images = settled(cifar)
    assert labels(images) == ["car", "airplane", "car"]
    assert images.notes == ("the items are pictures, resized, cropped and normalised as files are",)
    view = images.load(images.entries[1], Preprocessing((32, 32), None)).view
    assert (view == pixels[1]).all()
    assert labels(open_images(Subset(ConcatDataset([cifar, cifar]), [4, 2]))) == ["airplane", "car"]


def test_mnist(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    digits = PIXELS[:, :, :6, 0]
    (folder / "t10k-images-idx3-ubyte").write_bytes(
        struct.pack(">IIII", 2051, 4, 6, 6) + digits.tobytes()
    )
    (folder / "t10k-labels-idx1-ubyte").write_bytes(
        struct.pack(">II", 2049, 4) + bytes([7, 0, 3, 7])
    )
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).touch()
    mnist = torchvision_sets.MNIST(str(tmp_path), train=False)
    images = open_images(mnist)
    assert labels(images) == ["7 - seven", "0 - zero", "3 - three", "7 - seven"]
    grey = Preprocessing((6, 6), None, channels=1, mean=(0.5,), std=(0.5,))
    assert (images.load(images.entries[2], grey).view[:, :, 0] == digits[2]).all()


@pytest.fixture
def voc(tmp_path: Path) -> torchvision_sets.VOCDetection:
    """Return a set of three pictures: two dogs, a dog and a cat, one bare."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / name).mkdir(parents=True)
    objects = [
        [("dog", 1, 1, 4, 3), ("dog", 3, 2, 8, 6)],
        [("dog", 1, 1, 2, 2), ("cat", 2, 2, 3, 3)],
        [],
    ]
    for index, present in enumerate(objects):
        Image.fromarray(PIXELS[index]).save(base / "JPEGImages" / f"{index}.jpg")
        root = ElementTree.Element("annotation")
        for name, *corners in present:
            told = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(told, "name").text = name
            box = ElementTree.SubElement(told, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
                ElementTree.SubElement(box, side).text = str(value)
        (base / "Annotations" / f"{index}.xml").write_bytes(ElementTree.tostring(root))
    (base / "ImageSets" / "Main" / "train.txt").write_text("0\n1\n2\n")
    return torchvision_sets.VOCDetection(str(tmp_path), image_set="train")


def test_voc_gives_boxes_in_pixels_and_the_class_where_it_is_one(voc: Any) -> None:
    images = open_images(voc)
    assert labels(images) == ["dog", None, None]
    # Its pixels are counted from 1, and the last is inside.
    assert images.entries[0].boxes == ((0, 0, 4, 3), (2, 1, 8, 6))
    assert images.entries[1].boxes == ((0, 0, 2, 2), (1, 1, 3, 3))
    assert images.entries[2].boxes is None
    (note,) = images.notes
    assert note.startswith("labels that are objects of several classes are left out")
    assert labels(open_images(Subset(voc, [1, 0]))) == [None, "dog"]


def test_coco_gives_boxes_and_the_names_of_its_categories(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    for index in range(3):
        Image.fromarray(PIXELS[index]).save(tmp_path / f"{index}.png")
    boxes = [(0, 18, [1, 2, 3, 2.5]), (0, 18, [0, 0, 2, 2]), (1, 44, [4, 1, 4, 5])]
    told = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 6, "width": 8} for n in range(3)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": box, "area": 4, "iscrowd": 0}
            for n, (image, kind, box) in enumerate(boxes, 1)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(told))
    coco = torchvision_sets.CocoDetection(str(tmp_path), str(tmp_path / "a.json"))
    for dataset in (coco, wrap(coco, target_keys=("boxes", "labels"))):
        images = open_images(dataset)
        assert labels(images) == ["dog", "bottle", None]
        assert images.entries[0].boxes == ((1, 2, 4, 4.5), (0, 0, 2, 2))
        assert images.entries[1].boxes == ((4, 1, 8, 6),)
        assert images.notes == ()
    assert labels(open_images(Subset(ConcatDataset([coco, coco]), [4, 0]))) == ["bottle", "dog"]


def test_boxes_in_other_forms() -> None:
    from torchvision.tv_tensors import BoundingBoxes

    origin = Origin(["cat", "dog"])
    for form, box in (("XYXY", [2, 1, 6, 5]), ("XYWH", [2, 1, 4, 4]), ("CXCYWH", [4, 3, 4, 4])):
        boxes = BoundingBoxes([box], format=form, canvas_size=(6, 8))
        item = read_item((PIXELS[0], {"boxes": boxes, "labels": torch.tensor([1])}), origin)
        assert (item.label, item.boxes) == ("dog", ((2, 1, 6, 5),))
    broken = {"boxes": torch.tensor([[6, 1, 2, 5]]), "labels": torch.tensor([1])}
    item = read_item((PIXELS[0], broken), origin)
    assert (item.boxes, item.left_out) == (None, "a dict")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_turned_with_their_picture(orientation: int) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[1:3, 2:7] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels)
    image.info["exif"] = exif.tobytes()
    target = {"boxes": torch.tensor([[2, 1, 7, 3]]), "labels": torch.tensor([0])}
    images = open_images([(image, target)])
    (box,) = images.entries[0].boxes or ()
    size = (8, 6) if orientation >= 5 else (6, 8)
    view = images.load(images.entries[0], Preprocessing(size, None)).view[:, :, 0]
    left, top, right, bottom = map(int, box)
    assert (view[top:bottom, left:right] == 255).all()
    assert view.sum() == 255 * 10


@pytest.mark.parametrize("size", [(6, 8), (4, 4)])
def test_a_set_of_tensors_is_treated_in_one_way_and_it_is_said(
    size: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "ant").mkdir()
    for index in range(3):
        Image.fromarray(PIXELS[index]).save(tmp_path / "ant" / f"{index}.png")
    images = open_images(ImageFolder(str(tmp_path), ToTensor()))
    images.settle(Preprocessing(size, None))
    (note,) = images.notes
    assert ("the model takes them as they are" in note) == (size == (6, 8))
    assert ("resized, cropped and normalised as files are" in note) == (size == (4, 4))


def spread(height: int, width: int, *, low: float = 0.0) -> torch.Tensor:
    return torch.linspace(low, 1, 3 * height * width).view(3, height, width)


@pytest.mark.parametrize(
    ("items", "note"),
    [
        ([spread(6, 8)] * 3, "the model takes them as they are, not normalised"),
        ([spread(6, 8), spread(9, 8)], "resized, cropped and normalised as files are"),
        (
            [spread(7, 9), spread(6, 8), spread(6, 9)],
            "resized, cropped and normalised as files are",
        ),
        ([spread(6, 8, low=-2), spread(6, 8)], "the model takes them as they are"),
        ([spread(6, 8).numpy(), spread(6, 9).numpy()], "resized, cropped and normalised as files"),
    ],
)
def test_all_items_of_a_set_are_treated_alike(items: list[Any], note: str) -> None:
    images = settled(items)
    assert note in images.notes[0]
    as_they_are = "as they are" in note
    for entry, item in zip(images.entries, items, strict=True):
        tensor = images.load(entry, STEPS).tensor
        assert (tensor is not None) == as_they_are
        if tensor is not None:
            assert np.array_equal(tensor, torch.as_tensor(item).numpy())


def test_a_set_of_tensors_for_the_model_and_pictures_is_refused() -> None:
    with pytest.raises(ImageSetError, match=r"mixes a float.*give one kind of item"):
        settled([spread(6, 8, low=-2), Image.fromarray(PIXELS[0])])


@pytest.mark.parametrize(
    ("item", "label"),
    [
        ({"jpg": PIXELS[0], "cls": b"1"}, "dog"),
        ({"__key__": "a", "png": PIXELS[0], "cls": 0}, "cat"),
        ({"img": PIXELS[0], "target": "fox"}, "fox"),
        ({"image": PIXELS[0], "label": -1}, None),
        ({"image": PIXELS[0], "label": torch.tensor(-1)}, None),
        ({"image": PIXELS[0], "label": []}, None),
        ((PIXELS[0], []), None),
    ],
)
def test_items_that_are_mappings(item: Any, label: str | None) -> None:
    given = read_item(item, Origin(["cat", "dog"]))
    assert given.image is PIXELS[0] or np.array_equal(given.image, PIXELS[0])
    assert (given.label, given.left_out) == (label, "")


def test_what_holds_no_images_is_one_sentence() -> None:
    with pytest.raises(ImageError, match="has no image, but x, y; call its image 'image'"):
        read_item({"x": 1, "y": 2}, Origin())
    pairs: Dataset[Any] = Subset([(PIXELS[0], 0)], [0])  # type: ignore[arg-type]
    with pytest.raises(ImageSetError, match=r"are a DataLoader; give its data set, \.dataset"):
        open_images(DataLoader(pairs))
    with pytest.raises(ImageSetError, match="are a dict of train, test; give one of its data sets"):
        open_images({"train": pairs, "test": pairs})


@pytest.fixture(scope="module")
def hugging() -> Any:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": names, "note": datasets.Value("string")}
    )
    columns = {
        "picture": [Image.fromarray(pixels) for pixels in PIXELS],
        "kind": [0, 1, 1, 0],
        "note": list("abcd"),
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_hugging_faces_features_say_which_column_is_what(hugging: Any) -> None:
    datasets = pytest.importorskip("datasets")
    raw = hugging.cast_column("picture", datasets.Image(decode=False))
    for dataset in (hugging, hugging.with_format("torch"), raw, hugging.select(range(4))):
        images = settled(dataset)
        assert labels(images) == ["cat", "dog", "dog", "cat"]
        assert images.notes == (
            "the items are pictures, resized, cropped and normalised as files are; the image is "
            "'picture'; the label is 'kind'",
        )
        for entry, pixels in zip(images.entries, PIXELS, strict=True):
            assert (images.load(entry, STEPS).view == pixels).all()
    assert labels(open_images(Subset(hugging, [2, 3]))) == ["dog", "cat"]
    assert labels(open_images(hugging.to_iterable_dataset(), limit=3)) == ["cat", "dog", "dog"]


def test_names_count_beside_features_of_another_kind() -> None:
    class Described(list[Any]):
        classes = ("cat", "dog")
        features = {"edges": 3}  # noqa: RUF012

    assert labels(open_images(Described([(PIXELS[0], 1)]))) == ["dog"]


def test_hugging_faces_sets_from_disk(hugging: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    shown = datasets.are_progress_bars_disabled()
    hugging.save_to_disk(str(tmp_path / "saved"))
    split = datasets.DatasetDict(train=hugging, test=hugging.select([1]))
    split.save_to_disk(str(tmp_path / "split"))
    datasets.DatasetDict(only=hugging).save_to_disk(str(tmp_path / "only"))
    for where, expected in (
        (f"hf:{tmp_path}/saved", ["cat", "dog", "dog", "cat"]),
        (f"hf:{tmp_path}/only", ["cat", "dog", "dog", "cat"]),
        (f"hf:{tmp_path}/split#test", ["dog"]),
    ):
        images = open_images(where)
        assert (images.kind, images.where) == ("Hugging Face", where)
        assert labels(images) == expected
    assert datasets.are_progress_bars_disabled() == shown
    with pytest.raises(ImageSetError, match="has the splits train, test; give one of them"):
        open_images(f"hf:{tmp_path}/split")
    with pytest.raises(ImageSetError, match="has the splits train, test; give one of them"):
        open_images(f"hf:{tmp_path}/split#validation")
    with pytest.raises(ImageSetError, match="give one of its data sets"):
        open_images(split)
    with pytest.raises(ImageSetError, match="give hf:FOLDER for a data set that Hugging Face"):
        open_images(tmp_path / "saved")


@pytest.mark.slow
def test_a_folder_or_a_name_is_loaded_as_datasets_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / "set" / name / "0.png")
    assert labels(open_images(f"hf:{tmp_path}/set")) == ["ant", "bee"]
    with pytest.raises(ImageSetError) as caught:
        open_images("hf:nobody/has-this-name")
    assert "the data set 'nobody/has-this-name' failed: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_its_package_hugging_face_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImageSetError, match=r"install exporter\[datasets\]"):
        open_images("hf:owner/name")
