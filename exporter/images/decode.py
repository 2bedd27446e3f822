"""From a file's bytes to upright 8-bit RGB pixels, or one sentence that says why not.

OpenCV decodes faster than Pillow (docs/decisions/013-decoding-and-resizing.md), but some versions
return a truncated JPEG as a half grey picture, and it has its own ideas of transparency and CMYK.
Only what its header proves ordinary goes to OpenCV; Pillow decodes everything else and says what is
wrong. What neither notices is looked for in ``exporter.images.damage``. DICOM files are pydicom's;
TIFF files of more bands or other numbers than a photograph's are tifffile's.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile

from exporter.errors import ImageError, one_line
from exporter.guard import is_shortage
from exporter.images.bands import Bands, refuse_size, takes, unit_values, upright
from exporter.images.damage import check_strips, check_webp, png_chunks, refuse_zeros
from exporter.images.dicom import is_dicom, read_dicom
from exporter.images.signatures import HEIF, describe_unread
from exporter.images.tiff import is_tiff, read_tiff, tiff_tags
from exporter.records import Preprocessing

# OpenCV before 4.11 has no RGB flag; there the channels are swapped afterwards.
_RGB_FLAG: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
_READ = (cv2.IMREAD_COLOR if _RGB_FLAG is None else _RGB_FLAG) | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG, _JPEG_END, _PNG = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
# Other chunks of a PNG may mean transparency, animation or rotation.
_PLAIN = {b"IHDR", b"sRGB", b"gAMA", b"pHYs", b"tIME", b"IDAT", b"IEND"}
# Formats whose pictures may have 16 bits, which Pillow reads only if they are grey.
_DEEP = ("PNG", "TIFF", "PPM", "JPEG2000")
_PLAIN_STEPS = Preprocessing((1, 1), None)


def decode(content: bytes, bits: int = 16) -> NDArray[np.uint8]:
    """Decode an image file.

    EXIF rotation is applied; transparent pixels are laid on white; of 16-bit channels the highest
    eight of ``bits`` are kept (``>> bits - 8``); of an animation or a file of several pages the
    first picture is taken; grey, palette, one-bit and CMYK pictures become RGB; colour profiles are
    not applied, as in torchvision's loaders.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ImageError: if the bytes are not an image, are truncated or damaged, or hold more than
            ``MAX_PIXELS`` pixels.
        MemoryError: if there is too little memory for it.
    """
    with _one_sentence(content):
        if is_dicom(content):
            levels = to_levels(unit_values(read_dicom(content), _PLAIN_STEPS))
            return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels
        header = read_header(content)
        pixels = None if header is None else _decode_ordinary(content, *header)
        return _decode_any(content, bits) if pixels is None else pixels


def decode_bands(content: bytes, steps: Preprocessing) -> NDArray[np.float32]:
    """Decode the bands of an image file that the model is given, in the file's own precision.

    EXIF rotation is applied; of several pages the first is taken, or all where the model takes
    several bands and each page is one; transparent pixels are laid on white unless four bands are
    wanted. CMYK and palette pictures become RGB.

    Returns:
        float32 (H, W, C) in [0, 1], from black to white (`unit_values`).

    Raises:
        ImageError: as `decode`, and where the file has other bands than the model takes, or nothing
            says which of its numbers are black and white.
        MemoryError: if there is too little memory for it.
    """
    with _one_sentence(content):
        return unit_values(_read_bands(content, steps), steps)


def to_levels(unit: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return values in [0, 1] as uint8 levels of 255."""
    levels: NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
    return levels


_SAID = 200
"""Characters of what a library says that are passed on."""

_REST = re.compile(r" \(\d+ bytes not processed\)")
"""What Pillow adds of a file's end; it says how much its decoder had left, not what is missing."""


@contextmanager
def _one_sentence(content: bytes) -> Iterator[None]:
    """Say in one sentence what keeps a file from being decoded."""
    if not content:
        raise ImageError("the file is empty (0 bytes)")
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(describe_unread(content)) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture is too large: {error}".rstrip(".")) from None
    except Exception as error:  # decoders raise anything on damaged bytes
        if is_shortage(error):
            raise MemoryError(one_line(error)) from error
        said = _REST.sub("", " ".join(str(error).split())) or type(error).__name__
        said = said if len(said) < _SAID else f"{said[:_SAID]}…"
        raise ImageError(
            f"the image of {len(content):,} bytes is damaged or truncated: "
            f"{said[:1].lower()}{said[1:].rstrip('.')}"
        ) from None


def read_header(content: bytes) -> tuple[int, int, int] | None:
    """Return stored width, height and EXIF orientation of an ordinary JPEG, PNG or WebP, or None.

    Ordinary is whole, 8 bits, opaque and unanimated; a PNG or WebP known to be damaged is an
    ``OSError``.
    """
    # Only a file that ends in the end-of-image marker is surely whole.
    if content.startswith(_JPEG) and content.endswith(_JPEG_END):
        try:
            with JpegImageFile(BytesIO(content)) as image:
                ordinary = image.mode in ("L", "RGB")
                return (*image.size, orientation_of(image)) if ordinary else None
        except Exception:  # Pillow's plugins raise anything on damaged bytes
            return None
    if content.startswith(_PNG):
        kinds = png_chunks(content)
        width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
        ordinary = _PLAIN.issuperset(kinds) and len(set(kinds)) == len(kinds)
        ordinary = ordinary and bits == 8 and colour in (0, 2) and not interlaced
        return (width, height, 1) if ordinary else None
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        check_webp(content)
        if content[12:16] == b"VP8 " and content[23:26] == b"\x9d\x01\x2a" and len(content) > 29:
            width, height = struct.unpack_from("<HH", content, 26)
            return width & 0x3FFF, height & 0x3FFF, 1
    return None


def flatten(image: Image.Image) -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode into upright uint8 (H, W, 3) RGB pixels.

    Transparent pixels are laid on white and 16 bits reduced to their high byte; 32-bit pixels,
    whose range nothing states, are an ``ImageError``.
    """
    # Pillow before 10.3 opens a 16-bit grey PNG as mode "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return upright(np.repeat(grey[:, :, None], 3, axis=2), orientation_of(image))
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floating-point numbers"
        raise ImageError(
            f"the pixels are 32-bit {kind}, whose black and white are not known; "
            "state them as [preprocessing] range = [black, white]"
        )
    orientation = orientation_of(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return upright(np.array(image if image.mode == "RGB" else image.convert("RGB")), orientation)


def _decode_ordinary(
    content: bytes, width: int, height: int, orientation: int
) -> NDArray[np.uint8] | None:
    refuse_size(width, height)
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), _READ)
    except cv2.error:
        return None
    if pixels is None or pixels.shape != (height, width, 3):
        return None
    if _RGB_FLAG is None:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return upright(pixels, orientation)


def _decode_any(content: bytes, bits: int) -> NDArray[np.uint8]:
    with _open(content) as image:
        deep = None if bits == 16 else _read_deep(content, image)
        if deep is None:
            return flatten(image)
        levels = (deep >> (bits - 8)).clip(0, 255).astype(np.uint8)
        if levels.shape[2] == 4:
            return upright(flatten(Image.fromarray(levels, "RGBA")), orientation_of(image))
        return upright(np.repeat(levels, 3 // levels.shape[2], axis=2), orientation_of(image))


def _read_bands(content: bytes, steps: Preprocessing) -> Bands:
    if is_dicom(content):
        return read_dicom(content, windowed=steps.range is None)
    bands = read_tiff(content, steps) if is_tiff(content) else None
    if bands is not None:
        return bands
    with _open(content) as image:
        deep = _read_deep(content, image)
        return (
            bands_of(image, steps) if deep is None else Bands(upright(deep, orientation_of(image)))
        )


def bands_of(image: Image.Image, steps: Preprocessing) -> Bands:
    """Return the bands of a Pillow image, upright.

    Grey is one, RGBA four where the model takes four; other modes are `flatten`ed to RGB.
    """
    grey = image.mode in ("L", "I", "F") or image.mode.startswith("I;16")
    if grey or (image.mode == "RGBA" and takes(4, steps)):
        values = np.asarray(image)
        return Bands(upright(values[:, :, None] if grey else values, orientation_of(image)))
    return Bands(flatten(image))


@contextmanager
def _open(content: bytes) -> Iterator[Image.Image]:
    """Open an image with Pillow and load it; one that is too large or damaged is refused."""
    # A download cut short is often padded with zeros, which a JPEG decoder takes for pixels.
    jpeg = content.startswith(_JPEG)
    if content[8:12] in HEIF:
        with suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
    if is_tiff(content):
        tiff_tags(content)  # refuses what is too large in more words than Pillow
    with Image.open(BytesIO(content.rstrip(b"\0") if jpeg else content)) as image:
        refuse_size(*image.size)
        # The one format that Pillow reads as black where the tile's pixels are missing.
        if image.format == "JPEG2000" and content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\x93"):
            raise OSError("the JPEG 2000 code stream has no end")
        if image.format == "AVIF":
            refuse_zeros(content)
        check_strips(content, getattr(image, "tag_v2", {}))
        image.load()
        yield image


def _read_deep(content: bytes, image: Image.Image) -> NDArray[np.uint16] | None:
    """Decode a picture of 16 bits: uint16 (H, W, 1, 3 or 4), not turned; None for any other."""
    if image.format not in _DEEP:
        return None
    deep: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16:
        return None
    if deep.ndim == 2:
        return np.asarray(deep[:, :, None])
    order = cv2.COLOR_BGRA2RGBA if deep.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(deep, order))


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of a Pillow image, 1 to 8."""
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # a damaged EXIF block does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
