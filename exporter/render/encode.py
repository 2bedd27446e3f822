"""Pictures to bytes and back, with OpenCV (it releases the GIL while it works)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from exporter.errors import ImageError

JPEG_QUALITY = 85


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Encode a picture as JPEG.

    Args:
        rgb: uint8 (H, W, 3) RGB, or (H, W) / (H, W, 1) grey.
        quality: 1 to 100.

    Raises:
        ImageError: if OpenCV cannot encode it.
    """
    return _encode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode a picture as PNG, without loss, RGBA too; otherwise as `encode_jpeg`."""
    return _encode(".png", rgb, [])


def encode_webp(rgba: NDArray[np.uint8]) -> bytes:
    """Encode a small picture with an opacity as WebP of quality 60; otherwise as `encode_jpeg`."""
    return _encode(".webp", rgba, [cv2.IMWRITE_WEBP_QUALITY, 60])


def decode_image(encoded: bytes, *, reduced: bool = False) -> NDArray[np.uint8]:
    """Decode a stored picture (JPEG, PNG, …) to uint8 (H, W, 3) RGB.

    Args:
        encoded: the bytes.
        reduced: at half the size, which is faster where a small copy is wanted.

    Raises:
        ImageError: if the bytes are not a picture.
    """
    buffer = np.frombuffer(encoded, dtype=np.uint8)
    how = cv2.IMREAD_REDUCED_COLOR_2 if reduced else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(buffer, how) if buffer.size else None
    if pixels is None:
        raise ImageError(
            f"{len(encoded)} stored bytes are not a picture; the run may be damaged: exporter check"
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def thumbnail(encoded: bytes, side: int = 64) -> bytes:
    """Return a small copy of a stored picture, JPEG, its longer side of so many pixels at most."""
    pixels = decode_image(encoded)
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(np.asarray(small, np.uint8), 60)


def _encode(extension: str, rgb: NDArray[np.uint8], flags: list[int]) -> bytes:
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(rgb.shape[-1])
    pixels = rgb if rgb.ndim < 3 or order is None else cv2.cvtColor(rgb, order)
    done, buffer = cv2.imencode(extension, pixels, flags)
    if not done:
        raise ImageError(f"a picture of shape {rgb.shape} cannot be encoded as {extension[1:]}")
    encoded: bytes = buffer.tobytes()
    return encoded
