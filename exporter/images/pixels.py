"""What a source gives for an image, as pixels or as the model takes it.

That is a file's bytes, a Pillow image, an array or a tensor. Nothing here imports torch: a tensor
is recognised by its methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from exporter.errors import ImageError, kind_of
from exporter.images.decode import decode, flatten
from exporter.images.preprocess import prepare
from exporter.records import Geometry, Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import Preprocessing

_COUNTS = (1, 3, 4)


def prepare_contents(contents: Any, preprocessing: Preprocessing) -> Prepared:
    """Prepare an image for the model.

    Args:
        contents: as a source gives them. Floating-point values of the model's input shape are
            model-ready: they are handed on as they are, and their view is recovered by undoing
            mean and std.
        preprocessing: from pixels to the model's input.

    Returns:
        The view, where it lies in the original, and the tensor if the image was model-ready.

    Raises:
        ImageError: if it is not an image, or its bytes cannot be decoded.
    """
    expected = (preprocessing.channels, *preprocessing.size)
    if not isinstance(contents, bytes | Image.Image):
        values = as_array(contents)
        if values.dtype.kind == "f" and values.shape == expected:
            return _model_ready(values.astype(np.float32), preprocessing)
    return Prepared(*prepare(to_pixels(contents, expected), preprocessing))


def to_pixels(contents: Any, expected: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """Return an image as uint8 (H, W, 3) RGB or (H, W, 1) grey.

    Args:
        contents: as a source gives them.
        expected: shape of a model-ready tensor, for the message.

    Raises:
        ImageError: if it is not an image, or its bytes cannot be decoded.
    """
    if isinstance(contents, bytes):
        return decode(contents)
    if isinstance(contents, Image.Image):
        return flatten(contents)
    values = as_array(contents)
    if values.dtype.kind == "f":
        values = _from_unit_interval(values, expected)
    elif values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype != np.uint8:
        raise ImageError(f"the item is an array of {values.dtype}; give uint8 or floating point")
    return _channels_last(values, tensor=not isinstance(contents, np.ndarray))


def as_array(image: Any) -> NDArray[Any]:
    """Return an array or a tensor as a contiguous array of two or three axes.

    Raises:
        ImageError: if it is neither, or has another number of axes.
    """
    if isinstance(image, np.ndarray):
        values = image
    elif hasattr(image, "detach") and hasattr(image, "numpy"):
        tensor = image.detach().cpu()
        # NumPy has no bfloat16.
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        raise ImageError(
            f"the item's image is {kind_of(image)}; give a PIL image, an array or a tensor"
        )
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ImageError(
            f"the item's image has the shape {values.shape}; give (H, W), (H, W, C) or (C, H, W)"
        )
    return np.ascontiguousarray(values)


def _channels_last(values: NDArray[np.uint8], *, tensor: bool) -> NDArray[np.uint8]:
    """Bring an array to (H, W, 1 or 3); where both ends could be channels, a tensor's are first."""
    if values.ndim == 2:
        return values[:, :, None]
    leading, trailing = values.shape[0] in _COUNTS, values.shape[2] in _COUNTS
    if leading and (tensor or not trailing):
        values = values.transpose(1, 2, 0)
    elif not trailing:
        raise ImageError(f"the item's image has the shape {values.shape}; give 1, 3 or 4 channels")
    if values.shape[2] == 4:
        return flatten(Image.fromarray(np.ascontiguousarray(values), "RGBA"))
    return np.ascontiguousarray(values)


def _from_unit_interval(values: NDArray[Any], expected: tuple[int, ...]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        ready = f", or a normalised tensor of shape {expected}" if expected else ""
        raise ImageError(
            f"the item is floating point, of shape {values.shape}, from {low:.3g} to {high:.3g}; "
            f"give values in [0, 1]{ready}"
        )
    levels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return levels


def _model_ready(tensor: NDArray[np.float32], preprocessing: Preprocessing) -> Prepared:
    # More than three channels have no colours: the first three are shown, or the first as grey.
    shown = 3 if len(tensor) >= 3 else 1
    mean = np.asarray(preprocessing.mean[:shown], np.float32)[:, None, None]
    std = np.asarray(preprocessing.std[:shown], np.float32)[:, None, None]
    levels = np.rint(np.nan_to_num(tensor[:shown] * std + mean).clip(0, 1) * 255)
    view = np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
    height, width = view.shape[:2]
    return Prepared(view, Geometry(width, height, (0.0, 0.0, float(width), float(height))), tensor)
