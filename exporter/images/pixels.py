"""What a source gives for an image, as pixels or as the model takes it.

That is a file's bytes, a Pillow image, an array or a tensor. Nothing here imports torch: a tensor
is recognised by its methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exporter.errors import ImageError, ImageSetError, kind_of
from exporter.images.bands import Bands, takes, unit_values
from exporter.images.decode import bands_of, decode, decode_bands, flatten, to_levels
from exporter.images.preprocess import prepare
from exporter.records import Geometry, Prepared, Preprocessing

_COUNTS = (1, 3, 4)


class Form(NamedTuple):
    """What kind of item a data set gives.

    Attributes:
        shape: of a floating-point array or tensor; None for anything else, which is a picture.
        unit: whether its values lie in [0, 1].
    """

    shape: tuple[int, ...] | None = None
    unit: bool = True

    def __str__(self) -> str:
        """Say it in words."""
        return "a picture" if self.shape is None else f"a floating-point tensor of {self.shape}"


def form_of(contents: Any) -> Form:
    """Return the form of what a source gives for an image."""
    if isinstance(contents, bytes | Image.Image):
        return Form()
    values = as_array(contents)
    if values.dtype.kind != "f":
        return Form()
    return Form(values.shape, bool(values.min() >= 0 and values.max() <= 1))


def is_model_ready(forms: Mapping[Form, str], preprocessing: Preprocessing) -> bool:
    """Say how all items of a set are taken: as model-ready tensors, or as pictures.

    They are model-ready if they are floating-point tensors of the model's input shape. Where only
    some have that shape and all lie in [0, 1], they are pictures of different sizes. A set of both
    kinds is an ``ImageSetError``. ``forms`` has the first item of each form that occurs.
    """
    expected = (preprocessing.channels, *preprocessing.size)
    fitting = [form for form in forms if form.shape == expected]
    picture = forms.get(Form())
    if fitting and picture is not None:
        raise ImageSetError(
            f"the data set mixes {fitting[0]}, which the model would take as it is "
            f"({forms[fitting[0]]!r}), with pictures ({picture!r}); give one kind of item"
        )
    return bool(fitting) and (len(fitting) == len(forms) or not all(form.unit for form in fitting))


def prepare_contents(contents: Any, preprocessing: Preprocessing, *, ready: bool) -> Prepared:
    """Prepare what a source gives for an image; raises ``ImageError`` where it is none.

    Of a set of model-ready tensors (`is_model_ready`) an item is handed on as it is, and its view
    recovered by undoing mean and std. Where the preprocessing names bands or a range, or the model
    takes other than 1 or 3 channels, the model is given the picture's numbers, normalised.
    """
    expected = (preprocessing.channels, *preprocessing.size)
    if ready:
        form = form_of(contents)
        if form.shape != expected:
            raise ImageError(
                f"the item is {form}, and the others are model-ready tensors of {expected}"
            )
        return _lay_ready(as_array(contents).astype(np.float32), preprocessing)
    if not preprocessing.in_bands:
        pixels = to_pixels(contents, expected, preprocessing.bits)
        return Prepared(*prepare(pixels, preprocessing))
    view, geometry = prepare(_to_bands(contents, preprocessing), preprocessing)
    mean, std = (np.asarray(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    tensor = np.ascontiguousarray(((view - mean) / std).transpose(2, 0, 1))
    return Prepared(to_levels(view[:, :, list(preprocessing.shown)]), geometry, tensor)


def _to_bands(contents: Any, steps: Preprocessing) -> NDArray[np.float32]:
    """Return the bands that the model is given of an image, float32 (H, W, C) in [0, 1]."""
    if isinstance(contents, bytes):
        return decode_bands(contents, steps)
    if isinstance(contents, Image.Image):
        return unit_values(bands_of(contents, steps), steps)
    values = as_array(contents)
    unit = values.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1
    values = _bands_last(values, steps, tensor=not isinstance(contents, np.ndarray))
    return unit_values(Bands(values, (0.0, 1.0) if unit else None), steps)


def _bands_last(values: NDArray[Any], steps: Preprocessing, *, tensor: bool) -> NDArray[Any]:
    """Bring an array to (H, W, B); where both ends could be bands, a tensor's are first.

    Those of an array are last, or at the shorter end.
    """
    if values.ndim == 2:
        return values[:, :, None]
    leading, trailing = (takes(values.shape[end], steps) for end in (0, 2))
    if leading and trailing:
        leading = tensor or values.shape[0] < values.shape[2]
    first = leading if leading or trailing else values.shape[0] < values.shape[2]
    return np.moveaxis(values, 0, 2) if first else values


def to_pixels(contents: Any, expected: tuple[int, ...] = (), bits: int = 16) -> NDArray[np.uint8]:
    """Return an image as uint8 (H, W, 3) RGB or (H, W, 1) grey, or raise ``ImageError``.

    ``expected`` is the shape of a model-ready tensor, for the message.
    """
    if isinstance(contents, bytes):
        return decode(contents, bits)
    if isinstance(contents, Image.Image):
        return flatten(contents)
    values = as_array(contents)
    if values.dtype.kind == "f":
        values = _from_unit_interval(values, expected)
    elif values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype != np.uint8:
        raise ImageError(
            f"the item is an array of {values.dtype}; give uint8 or floating point, or state its "
            "numbers as [preprocessing] range = [black, white]"
        )
    return _channels_last(values, tensor=not isinstance(contents, np.ndarray))


def read_pixels(contents: Any) -> None:
    """Have an image read whose pixels come only when they are asked for; raises what that raises.

    So does Pillow with the file that it has opened.
    """
    if isinstance(contents, Image.Image):
        contents.load()
    elif not isinstance(contents, bytes):
        as_array(contents)


def as_array(image: Any) -> NDArray[Any]:
    """Return an array or a tensor as a contiguous array of two or three axes."""
    values = image
    if not isinstance(image, np.ndarray):
        if not (hasattr(image, "detach") and hasattr(image, "numpy")):
            raise ImageError(
                f"the item's image is {kind_of(image)}; give a PIL image, an array or a tensor"
            )
        tensor = image.detach().cpu()
        # NumPy has no bfloat16.
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
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
        raise ImageError(
            f"the item's image has the shape {values.shape}; give 1, 3 or 4 channels, or "
            "say which with [preprocessing] bands"
        )
    if values.shape[2] == 4:
        return flatten(Image.fromarray(np.ascontiguousarray(values), "RGBA"))
    return np.ascontiguousarray(values)


def _from_unit_interval(values: NDArray[Any], expected: tuple[int, ...]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        ready = f", or a normalised tensor of shape {expected}" if expected else ""
        raise ImageError(
            f"the item is floating point, of shape {values.shape}, from {low:.3g} to {high:.3g}; "
            f"give values in [0, 1]{ready}, or state [preprocessing] range = [black, white]"
        )
    return to_levels(values)


def _lay_ready(tensor: NDArray[np.float32], preprocessing: Preprocessing) -> Prepared:
    shown = list(preprocessing.shown)
    mean, std = (np.asarray(v, np.float32)[shown] for v in (preprocessing.mean, preprocessing.std))
    low, high = preprocessing.range or (0, 1)
    unit = (tensor[shown].transpose(1, 2, 0) * std + mean - low) / (high - low)
    view = to_levels(np.nan_to_num(unit).clip(0, 1))
    height, width = view.shape[:2]
    return Prepared(view, Geometry(width, height, (0.0, 0.0, float(width), float(height))), tensor)
