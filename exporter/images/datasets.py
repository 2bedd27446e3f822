"""Images from a torch Dataset, or anything with a length and items: Pillow images, arrays, tensors.

Nothing here imports torch: a tensor is recognised by its methods.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from exporter.errors import ImageError, ImageSetError, choices
from exporter.images.decode import flatten
from exporter.images.keys import hash_bytes
from exporter.images.preprocess import prepare
from exporter.records import Geometry, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import Preprocessing

_COUNTS = (1, 3, 4)
_IMAGE_NAMES = ("image", "img", "pixel_values")
_LABEL_NAMES = ("label", "labels", "target")
# Few data sets promise that two threads may read them at once.
_READING = threading.Lock()


def load_dataset(spec: str) -> Any:
    """Import ``module:factory`` and call it.

    Args:
        spec: an importable module (the current folder counts), and the name in it of a data set
            or of a function without arguments that gives one.

    Returns:
        An object with ``__len__`` and ``__getitem__``.

    Raises:
        ImageSetError: if there is no such name, the factory fails, or it gives no data set.
    """
    module_name, _, name = spec.partition(":")
    module = _import(module_name, spec)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [known for known in dir(found) if not known.startswith("_")]
            raise ImageSetError(f"{module_name!r} has no {part!r}; {choices(part, names)}")
        found = getattr(found, part)
    if isinstance(found, type) or not is_dataset(found):
        if not callable(found):
            raise ImageSetError(
                f"{spec!r} is a {type(found).__name__}; name a function or a data set"
            )
        try:
            found = found()
        except Exception as error:  # the user's own function
            raise ImageSetError(
                f"{spec!r} failed with {type(error).__name__}: {_line(error)}"
            ) from error
    if not is_dataset(found):
        raise ImageSetError(
            f"{spec!r} gave a {type(found).__name__}; it has to give a data set with "
            "__len__ and __getitem__"
        )
    return found


def is_dataset(value: object) -> bool:
    """Say whether an object has a length and items."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def item_path(index: int) -> str:
    """Name an item where a file has a path.

    >>> item_path(7)
    'item-000007'
    """
    return f"item-{index:06d}"


def item_index(path: str) -> int:
    """Invert ``item_path``."""
    return int(path.rpartition("-")[2])


def read_key(dataset: Any, index: int) -> tuple[str | None, str | None, str | None]:
    """Read an item while planning.

    Args:
        dataset: the data set.
        index: which item.

    Returns:
        The key (a hash of its pixels), its label, and why it cannot be read; each may be None.
    """
    try:
        image, label = _item(dataset, index)
        name = _label(dataset, label)
        if isinstance(image, Image.Image):
            head, content = f"{image.mode} {image.size}", image.tobytes()
        else:
            values = _array(image)
            head, content = f"{values.dtype.str} {values.shape}", values.tobytes()
    except ImageError as error:
        return None, None, str(error)
    return hash_bytes(head.encode(), content), name, None


def prepare_item(dataset: Any, index: int, preprocessing: Preprocessing) -> Prepared:
    """Prepare an item for the model.

    Args:
        dataset: the data set; read by one thread at a time.
        index: which item.
        preprocessing: from pixels to the model's input. A floating-point item of shape
            (channels, *size) is taken as model-ready: it is handed on as it is, and its view is
            recovered by undoing mean and std.

    Returns:
        The view, with the tensor where the item was model-ready.

    Raises:
        ImageError: if the item cannot be read or is no image.
    """
    image, _ = _item(dataset, index)
    if isinstance(image, Image.Image):
        return Prepared(*prepare(flatten(image), preprocessing))
    values = _array(image)
    if values.dtype.kind == "f":
        if values.shape == (preprocessing.channels, *preprocessing.size):
            return _model_ready(values, preprocessing)
        values = _from_unit_interval(values, preprocessing)
    elif values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype != np.uint8:
        raise ImageError(f"the item is an array of {values.dtype}; give uint8 or floating point")
    pixels = _channels_last(values, first=not isinstance(image, np.ndarray))
    return Prepared(*prepare(pixels, preprocessing))


def _import(name: str, spec: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except Exception as error:  # the user's own module
        raise ImageSetError(
            f"the module of {spec!r} cannot be imported: {_line(error)}; "
            "give a folder, a glob, a list or an importable module:factory"
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _item(dataset: Any, index: int) -> tuple[Any, Any]:
    try:
        with _READING:
            item = dataset[index]
    except Exception as error:  # the user's own code
        raise ImageError(
            f"item {index} of the data set failed with {type(error).__name__}: {_line(error)}"
        ) from error
    if isinstance(item, Mapping):
        image = next((item[name] for name in _IMAGE_NAMES if name in item), None)
        return image, next((item[name] for name in _LABEL_NAMES if name in item), None)
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _label(dataset: Any, label: Any) -> str | None:
    shape = getattr(label, "shape", None)
    if shape is not None and hasattr(label, "item") and math.prod(shape) == 1:
        label = label.item()
    if isinstance(label, str):
        return label or None
    if not isinstance(label, int):
        return None
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and 0 <= label < len(names):
        return str(names[label])
    return str(label)


def _array(image: Any) -> NDArray[Any]:
    if isinstance(image, np.ndarray):
        values = image
    elif hasattr(image, "detach") and hasattr(image, "numpy"):
        tensor = image.detach().cpu()
        # NumPy has no bfloat16.
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        raise ImageError(
            f"the item's image is a {type(image).__name__}; give a PIL image, an array or a tensor"
        )
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ImageError(
            f"the item's image has the shape {values.shape}; give (H, W), (H, W, C) or (C, H, W)"
        )
    return np.ascontiguousarray(values)


def _channels_last(values: NDArray[np.uint8], *, first: bool) -> NDArray[np.uint8]:
    """Bring an array to (H, W, 1 or 3); ``first`` decides where both ends could be channels."""
    if values.ndim == 2:
        return values[:, :, None]
    leading, trailing = values.shape[0] in _COUNTS, values.shape[2] in _COUNTS
    if leading and (first or not trailing):
        values = values.transpose(1, 2, 0)
    elif not trailing:
        raise ImageError(f"the item's image has the shape {values.shape}; give 1, 3 or 4 channels")
    if values.shape[2] == 4:
        return flatten(Image.fromarray(np.ascontiguousarray(values), "RGBA"))
    return np.ascontiguousarray(values)


def _from_unit_interval(values: NDArray[Any], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        expected = (preprocessing.channels, *preprocessing.size)
        raise ImageError(
            f"the item is floating point, of shape {values.shape}, from {low:.3g} to {high:.3g}; "
            f"give values in [0, 1], or a normalised tensor of shape {expected}"
        )
    levels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return levels


def _model_ready(values: NDArray[Any], preprocessing: Preprocessing) -> Prepared:
    tensor = values.astype(np.float32)
    # More than three channels have no colours: the first three are shown, or the first as grey.
    shown = 3 if len(tensor) >= 3 else 1
    mean = np.asarray(preprocessing.mean[:shown], np.float32)[:, None, None]
    std = np.asarray(preprocessing.std[:shown], np.float32)[:, None, None]
    levels = np.rint(np.nan_to_num(tensor[:shown] * std + mean).clip(0, 1) * 255)
    view = np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
    height, width = view.shape[:2]
    return Prepared(view, Geometry(width, height, (0.0, 0.0, float(width), float(height))), tensor)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
