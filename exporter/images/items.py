"""What an item of a data set holds: an image, a label, and the boxes of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from PIL import Image

from exporter.errors import ImageError, kind_of
from exporter.images.bands import upright_box
from exporter.images.decode import orientation_of
from exporter.images.files import is_image_name
from exporter.images.labels import Classes, Origin, class_name, label_text
from exporter.images.sources import Box

IMAGES = ("image", "img", "pixel_values")
LABELS = ("label", "labels", "target", "cls")
"""What items that are mappings call their image and their label."""


class Item(NamedTuple):
    """An item of a data set.

    Attributes:
        image: as the set gives it, or the bytes of a file.
        label: its class as text, or None.
        boxes: of its objects, in pixels, or None.
        left_out: the kind of a label that is left out; ``""`` where none is.
        unnamed: whether the label is an index that nothing gives a name.
        columns: what the item calls its image and its label, where it is a mapping.
    """

    image: Any
    label: str | None = None
    boxes: tuple[Box, ...] | None = None
    left_out: str = ""
    columns: tuple[str, ...] = ()
    unnamed: bool = False


def read_item(item: Any, origin: Origin) -> Item:
    """Take an item apart; raises ``ImageError`` where it is a mapping without an image."""
    image, label, classes = item, None, origin.classes
    columns: tuple[str, ...] = ()
    if isinstance(item, Mapping):
        columns = _columns(item, origin.features)
        image, label = item[columns[0]], item[columns[1]] if len(columns) > 1 else None
        feature = origin.features.get(columns[-1])
        # Of a list of labels, what each of them is.
        classes = getattr(getattr(feature, "feature", feature), "names", None) or classes
    elif isinstance(item, tuple | list) and item:
        image, label = item[0], item[1] if len(item) > 1 else None
    if isinstance(image, Mapping) and isinstance(image.get("bytes"), bytes):
        image = image["bytes"]  # Hugging Face's images that are not decoded
    text = None if label is None else label_text(label, classes)
    if text is not None or label is None or isinstance(label, str | bytes | float | int):
        known = tuple(classes.values() if isinstance(classes, Mapping) else classes)
        index = text is not None and text.isdecimal() and not isinstance(label, str)
        return Item(image, text, columns=columns, unnamed=index and text not in known)
    try:
        objects = list(_objects(label, classes))
    except (KeyError, TypeError, ValueError, AttributeError):  # of another form
        shape = getattr(label, "shape", None)
        kind = kind_of(label) + ("" if shape is None else f" of shape {tuple(shape)}")
        return Item(image, left_out="" if _is_number(label) else kind, columns=columns)
    if isinstance(image, Image.Image):  # which is turned upright, as torchvision does not
        turn = orientation_of(image)
        objects = [(name, upright_box(box, turn, image.size)) for name, box in objects]
    names = {name for name, _ in objects}
    boxes = tuple(box for _, box in objects) or None
    if len(names) > 1:
        return Item(image, None, boxes, "objects of several classes", columns)
    return Item(image, next(iter(names), None), boxes, columns=columns)


def _is_number(label: Any) -> bool:
    """Say whether a label is a number, also as an array: one that says that there is none."""
    return getattr(label, "shape", None) in ((), (1,))


def _columns(item: Mapping[str, Any], features: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an item calls its image, and its label if it has one."""
    pictures = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
    # WebDataset's items have the extensions of the files that they were.
    files = [name for name in item if isinstance(name, str) and is_image_name(f"x.{name}")]
    named = [name for name, kind in features.items() if getattr(kind, "names", None)]
    image = next((name for name in (*IMAGES, *pictures, *files) if name in item), None)
    label = next((name for name in (*LABELS, *named) if name in item), None)
    if image is None:
        names = ", ".join(map(str, item)) or "nothing"
        raise ImageError(f"the item has no image, but {names}; call its image 'image'")
    return (image,) if label is None else (image, label)


def _objects(target: Any, classes: Classes) -> Iterator[tuple[str, Box]]:
    """Yield the classes and boxes of the objects of a detection's target, as torchvision has it."""
    if isinstance(target, Mapping) and "annotation" in target:  # Pascal VOC, pixels from 1
        for told in target["annotation"].get("object", ()):
            corners = told["bndbox"]
            left, top, right, bottom = (
                float(corners[name]) for name in ("xmin", "ymin", "xmax", "ymax")
            )
            yield str(told["name"]), _box(left - 1, top - 1, right, bottom)
    elif isinstance(target, Mapping) and "boxes" in target:
        form = getattr(getattr(target["boxes"], "format", None), "value", "XYXY")
        for index, (a, b, c, d) in zip(
            target["labels"].tolist(), target["boxes"].tolist(), strict=True
        ):
            corner = {"XYXY": (a, b, c, d), "XYWH": (a, b, a + c, b + d)}
            middle = {"CXCYWH": (a - c / 2, b - d / 2, a + c / 2, b + d / 2)}
            yield class_name(index, classes), _box(*(corner | middle)[form])
    elif isinstance(target, list | tuple):  # COCO
        for told in target:
            left, top, width, height = map(float, told["bbox"])
            name = class_name(int(told["category_id"]), classes)
            yield name, _box(left, top, left + width, top + height)
    elif target.keys() - {"image_id"}:  # what torchvision leaves of a picture without objects
        raise TypeError("it holds no objects")


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    if not (left <= right and top <= bottom):
        raise ValueError("the box has no area")
    return left, top, right, bottom
