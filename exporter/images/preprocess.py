"""From pixels to the model's view, and from a batch of views to the model's input.

The geometry is that of torchvision's and timm's evaluation transforms on Pillow images: shorter
side to a size, centre crop, zeros where the picture is smaller than the crop. Torch is imported
inside the functions, so that reading an image set does not need it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
from PIL import Image

from exporter.errors import ImageError
from exporter.images.bands import MAX_PIXELS, refuse_bands
from exporter.records import Geometry

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from exporter.records import Preprocessing

_T = TypeVar("_T", bound=np.generic)

# Torchvision resizes everything and then crops, Pillow only what the crop needs: for a picture
# resized to more than this many times the crop, Pillow is faster.
_MOSTLY_CUT = 4
# Half the width of the widest filter, bicubic, in pixels of the smaller picture, and one to spare.
_REACH = 3


class _Axis(NamedTuple):
    """One axis of a resize and crop, in pixels: from ``source`` to ``resized`` to ``view``.

    The view begins at ``start`` (negative where it is padded); ``first`` to ``last`` is the part
    of it that the resized picture covers, ``ends`` are the view's in source pixels.
    """

    source: int
    resized: int
    view: int

    @property
    def start(self) -> int:
        spare = self.resized - self.view
        return round(spare / 2) if spare >= 0 else -(-spare // 2)

    @property
    def first(self) -> int:
        return max(self.start, 0)

    @property
    def last(self) -> int:
        return min(self.start + self.view, self.resized)

    @property
    def scale(self) -> float:
        return self.source / self.resized

    @property
    def ends(self) -> tuple[float, float]:
        return self.start * self.scale, (self.start + self.view) * self.scale


def prepare(pixels: NDArray[_T], preprocessing: Preprocessing) -> tuple[NDArray[_T], Geometry]:
    """Resize and crop a photograph to the model's view.

    Args:
        pixels: uint8 (H, W, 3) RGB, or grey as (H, W) or (H, W, 1); or as many bands as the model
            takes, float32 in [0, 1].
        preprocessing: size, resize, crop, interpolation and number of channels.

    Returns:
        The view, uint8 (h, w, 3) RGB or (h, w, 1) grey (ITU-R 601 luma), within 2 of 255 of
        torchvision's transforms on a Pillow image, or float32 (h, w, C) in [0, 1]; and where it
        lies in the photograph.

    Raises:
        ImageError: if the view would not have the size that the model takes, or the picture has
            other bands than the model.
    """
    pixels = _with_channels(pixels, preprocessing)
    axes = rows, columns = geometry_axes(pixels.shape[0], pixels.shape[1], preprocessing)
    view = _resize(pixels, rows, columns, preprocessing)
    if view.shape[:2] != preprocessing.size:
        sides = [(axis.first - axis.start, axis.start + axis.view - axis.last) for axis in axes]
        view = np.pad(view, [*sides, (0, 0)])
    crop = (columns.ends[0], rows.ends[0], columns.ends[1], rows.ends[1])
    return view, Geometry(pixels.shape[1], pixels.shape[0], crop)


def geometry_axes(height: int, width: int, preprocessing: Preprocessing) -> tuple[_Axis, _Axis]:
    """Return what a resize and crop do to the rows and to the columns of a photograph.

    Where nothing is cropped and the resized picture is no view, it is an ``ImageError``.
    """
    resize, size = preprocessing.resize, preprocessing.size
    resized = resize if isinstance(resize, tuple) else (height, width)
    if isinstance(resize, int):
        # Truncated, not rounded: as torchvision does it.
        longer = int(resize * max(height, width) / min(height, width))
        resized = (longer, resize) if width <= height else (resize, longer)
    if preprocessing.crop != "center" and resized != size:
        raise ImageError(
            f"the {width} × {height} photograph becomes a view of {resized[1]} × {resized[0]}, but "
            f"the model takes {size[1]} × {size[0]} pixels; crop 'center' or resize to exactly that"
        )
    rows, columns = map(_Axis, (height, width), resized, size)
    return rows, columns


def normalise(views: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Scale a batch of views to [0, 1], subtract the mean and divide by the standard deviation.

    Two passes over the batch and no synchronisation; the constants are kept on each device. On the
    CPU an image at a time: the second pass finds it in the cache.

    Args:
        views: uint8 (N, h, w, C) on any device.
        preprocessing: mean and std per channel.

    Returns:
        float32 (N, C, h, w) on the same device, in channels_last memory format.
    """
    import torch

    count, height, width, channels = views.shape
    scale, shift = _constants(
        preprocessing.mean, preprocessing.std, width, str(views.device), channels
    )
    # Rows of w * C values instead of C at a time keep the CPU's vector units busy.
    rows = views.reshape(count, height, width * channels)
    normalised = torch.empty(rows.shape, dtype=torch.float32, device=views.device)
    together = 1 if views.device.type == "cpu" else max(1, count)
    for some, into in zip(
        torch.split(rows, together), torch.split(normalised, together), strict=True
    ):
        torch.addcmul(shift, some.float(), scale, out=into)
    return normalised.view(count, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: str, channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if len(mean) != channels or len(std) != channels:
        raise ImageError(
            f"the views have {channels} channels, mean has {len(mean)} values and std {len(std)}; "
            "give one per channel"
        )
    scale = [1 / (255 * deviation) for deviation in std]
    shift = [-centre / deviation for centre, deviation in zip(mean, std, strict=True)]
    # Kept for later calls, so never an inference tensor.
    with torch.inference_mode(False):
        return (
            torch.tensor(scale * width, dtype=torch.float32, device=device),
            torch.tensor(shift * width, dtype=torch.float32, device=device),
        )


def _with_channels(pixels: NDArray[_T], preprocessing: Preprocessing) -> NDArray[_T]:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    count, channels = pixels.shape[2], preprocessing.channels
    if count == channels:
        return np.ascontiguousarray(pixels)
    if (count, channels) == (1, 3):
        return np.repeat(pixels, 3, axis=2)
    refuse_bands(count, replace(preprocessing, bands=()))  # they were chosen before
    grey: Any = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return np.asarray(grey[:, :, None])


def _resize(
    pixels: NDArray[_T], rows: _Axis, columns: _Axis, preprocessing: Preprocessing
) -> NDArray[_T]:
    """Return the part of the resized picture that the view shows."""
    inside = (slice(rows.first, rows.last), slice(columns.first, columns.last))
    if (rows.resized, columns.resized) == pixels.shape[:2]:
        return np.ascontiguousarray(pixels[inside])
    if preprocessing.interpolation == "nearest":
        nearest = np.ix_(_nearest(rows)[inside[0]], _nearest(columns)[inside[1]])
        return np.ascontiguousarray(pixels[nearest])
    area = rows.resized * columns.resized
    partly = preprocessing.antialias and pixels.dtype == np.uint8
    if partly and area > _MOSTLY_CUT * rows.view * columns.view:
        return _resize_part(pixels, rows, columns, preprocessing.interpolation)
    if area * max(pixels.shape[2], 3) > 3 * MAX_PIXELS:
        raise ImageError(
            f"the {columns.source} × {rows.source} photograph would be resized to "
            f"{columns.resized:,} × {rows.resized:,} pixels; at most {MAX_PIXELS:,} are computed"
        )
    import torch

    # As torchvision does it, of which the import alone takes longer than that of torch.
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(np.require(pixels, requirements="W"))[None].permute(0, 3, 1, 2),
        size=(rows.resized, columns.resized),
        mode=preprocessing.interpolation,
        align_corners=False,
        antialias=preprocessing.antialias,
    )
    # Bicubic overshoots; only whole numbers are clipped there.
    whole = whole.clamp(0, 1) if whole.is_floating_point() else whole
    return np.ascontiguousarray(whole[0].permute(1, 2, 0).numpy()[inside])


def _resize_part(
    pixels: NDArray[Any], rows: _Axis, columns: _Axis, interpolation: str
) -> NDArray[Any]:
    # Two calls fix the order, columns then rows, that the whole resize has: a bicubic overshoot is
    # clipped in between, and Pillow would choose by the cost of the part.
    kernel = Image.Resampling[interpolation.upper()]
    top, bottom = rows.first * rows.scale, min(rows.last * rows.scale, rows.source)
    left, right = columns.first * columns.scale, min(columns.last * columns.scale, columns.source)
    reach = int(np.ceil(_REACH * max(rows.scale, 1)))
    above = max(int(top) - reach, 0)
    needed = pixels[above : int(np.ceil(bottom)) + reach]
    picture = Image.fromarray(needed[:, :, 0] if pixels.shape[2] == 1 else needed)
    width, height = columns.last - columns.first, rows.last - rows.first
    narrow = picture.resize((width, picture.height), kernel, box=(left, 0, right, picture.height))
    part = narrow.resize((width, height), kernel, box=(0, top - above, width, bottom - above))
    return np.array(part).reshape(height, width, pixels.shape[2])


def _nearest(axis: _Axis) -> NDArray[np.intp]:
    # Pillow adds up the step instead of multiplying it, which decides ties.
    steps = np.full(axis.resized, axis.scale)
    steps[0] = axis.scale * 0.5
    return np.minimum(np.cumsum(steps).astype(np.intp), axis.source - 1)
