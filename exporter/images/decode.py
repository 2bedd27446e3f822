"""From a file's bytes to upright 8-bit RGB pixels, or one sentence that says why not."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from exporter.errors import ImageError
from exporter.images.headers import read_plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.images.headers import Plain

MAX_PIXELS = 250_000_000
"""A picture of more pixels is refused: a few kilobytes can claim to be gigabytes."""

# OpenCV before 4.11 has no RGB flag; there the channels are swapped afterwards.
_RGB_FLAG: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
_READ = (cv2.IMREAD_COLOR if _RGB_FLAG is None else _RGB_FLAG) | cv2.IMREAD_IGNORE_ORIENTATION


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file.

    EXIF rotation is applied; transparent pixels are laid on white; 16-bit channels keep their high
    byte (``>> 8``); of an animation or a file of several pages the first picture is taken; grey,
    palette, one-bit and CMYK pictures become RGB; colour profiles are not applied, as in
    torchvision's loaders.

    Args:
        data: the file's bytes.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ImageError: if the bytes are not an image, are truncated or damaged, or hold more than
            ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    plain = read_plain(data)
    if plain is not None:
        _refuse_bomb(plain.width, plain.height)
        pixels = _decode_plain(data, plain)
        if pixels is not None:
            return pixels
    return _decode_any(data)


def flatten(image: Image.Image) -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode into 8-bit RGB pixels.

    Args:
        image: the image; it is loaded, not changed.

    Returns:
        uint8 (H, W, 3) RGB, transparent pixels laid on white, 16 bits reduced to their high byte.

    Raises:
        ImageError: if its pixels are 32-bit numbers, whose range nothing states.
    """
    # Pillow before 10.3 opens a 16-bit grey PNG as mode "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floating-point numbers"
        raise ImageError(
            f"the pixels are 32-bit {kind}, whose black and white are not known; "
            "save the image with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_plain(data: bytes, plain: Plain) -> NDArray[np.uint8] | None:
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), _READ)
    except cv2.error:
        return None
    if pixels is None or pixels.shape != (plain.height, plain.width, 3):
        return None
    if _RGB_FLAG is None:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return _upright(pixels, plain.orientation)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_any(data: bytes) -> NDArray[np.uint8]:
    # A download cut short is often padded with zeros, which a JPEG decoder takes for pixels.
    jpeg = data.startswith(b"\xff\xd8\xff")
    try:
        with Image.open(BytesIO(data.rstrip(b"\0") if jpeg else data)) as image:
            _refuse_bomb(*image.size)
            # The one format that Pillow reads as black where the tile's pixels are missing.
            if image.format == "JPEG2000" and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\x93"):
                raise OSError("the JPEG 2000 code stream has no end")
            image.load()
            upright = _transpose(image)
            upright.format = image.format
            return flatten(upright)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(data)) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture is too large: {error}".rstrip(".")) from None
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        raise ImageError(
            f"the image of {len(data):,} bytes is damaged or truncated: {_clause(error)}"
        ) from None


def _transpose(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block does not make the picture unreadable
        return image


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the picture claims {width:,} × {height:,} pixels; at most {MAX_PIXELS:,} are read"
        )


def _unidentified(data: bytes) -> str:
    return f"the file is not an image that can be read; it begins with {data[:16]!r}"


def _clause(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:1].lower() + text[1:].rstrip(".")
