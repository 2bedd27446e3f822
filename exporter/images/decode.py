"""From a file's bytes to upright 8-bit RGB pixels, or one sentence that says why not.

OpenCV decodes faster than Pillow (docs/decisions/013-decoding-and-resizing.md), but some versions
return a truncated JPEG as a half grey picture, and it has its own ideas of transparency and CMYK.
Only what its header proves ordinary goes to OpenCV; Pillow decodes everything else and says what is
wrong. What neither notices, a wrong checksum or a download padded with zeros, is looked for here.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    ImageFileDirectory_v2,
)

from exporter.errors import ImageError, one_line
from exporter.guard import is_shortage

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 250_000_000
"""A picture of more pixels is refused: a few kilobytes can claim to be gigabytes."""

# OpenCV before 4.11 has no RGB flag; there the channels are swapped afterwards.
_RGB_FLAG: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
_READ = (cv2.IMREAD_COLOR if _RGB_FLAG is None else _RGB_FLAG) | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG, _JPEG_END, _PNG = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
_HEIF = (b"heic", b"heix", b"hevc", b"mif1")
# Other chunks of a PNG may mean transparency, animation or rotation.
_PLAIN = {b"IHDR", b"sRGB", b"gAMA", b"pHYs", b"tIME", b"IDAT", b"IEND"}
# Tags of a TIFF: how its strips or tiles are packed, where they lie, how long they are.
_PACKED, _CODED, _PLACES = 259, (5, 7, 8, 32946), ((273, 324), (279, 325))
# Coded pixels hardly ever end in so many zeros; a download that was padded with them does.
_ZEROS = 64


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
    if not content:
        raise ImageError("the file is empty (0 bytes)")
    try:
        header = read_header(content)
        pixels = None if header is None else _decode_ordinary(content, *header)
        return _decode_any(content, bits) if pixels is None else pixels
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_unknown(content)) from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"the picture is too large: {error}".rstrip(".")) from None
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        if is_shortage(error):
            raise MemoryError(one_line(error)) from error
        said = " ".join(str(error).split()) or type(error).__name__
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
                return (*image.size, _orientation(image)) if ordinary else None
        except Exception:  # Pillow's plugins raise anything on damaged bytes
            return None
    if content.startswith(_PNG):
        kinds = _png_chunks(content)
        width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
        ordinary = _PLAIN.issuperset(kinds) and len(set(kinds)) == len(kinds)
        ordinary = ordinary and bits == 8 and colour in (0, 2) and not interlaced
        return (width, height, 1) if ordinary else None
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        _check_webp(content)
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
        return _upright(np.repeat(grey[:, :, None], 3, axis=2), _orientation(image))
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floating-point numbers"
        raise ImageError(
            f"the pixels are 32-bit {kind}, whose black and white are not known; "
            "save the image with 8 or 16 bits per channel"
        )
    orientation = _orientation(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return _upright(np.array(image if image.mode == "RGB" else image.convert("RGB")), orientation)


def _decode_ordinary(
    content: bytes, width: int, height: int, orientation: int
) -> NDArray[np.uint8] | None:
    _refuse_bomb(width, height)
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), _READ)
    except cv2.error:
        return None
    if pixels is None or pixels.shape != (height, width, 3):
        return None
    if _RGB_FLAG is None:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return _upright(pixels, orientation)


def _decode_any(content: bytes, bits: int) -> NDArray[np.uint8]:
    # A download cut short is often padded with zeros, which a JPEG decoder takes for pixels.
    jpeg = content.startswith(_JPEG)
    _register_heif(content)
    with Image.open(BytesIO(content.rstrip(b"\0") if jpeg else content)) as image:
        _refuse_bomb(*image.size)
        # The one format that Pillow reads as black where the tile's pixels are missing.
        if image.format == "JPEG2000" and content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\x93"):
            raise OSError("the JPEG 2000 code stream has no end")
        if image.format == "AVIF":
            _refuse_zeros(content)
        _check_strips(content, getattr(image, "tag_v2", {}))
        image.load()
        deep = None if bits == 16 else _decode_deep(content, bits)
        return flatten(image) if deep is None else _upright(deep, _orientation(image))


def _decode_deep(content: bytes, bits: int) -> NDArray[np.uint8] | None:
    """Decode a picture of 16 bits that uses fewer, which Pillow reads only if it is grey."""
    deep: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16:
        return None
    levels = (deep >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if levels.ndim == 2:
        return np.repeat(levels[:, :, None], 3, axis=2)
    if levels.shape[2] == 4:
        return flatten(Image.fromarray(cv2.cvtColor(levels, cv2.COLOR_BGRA2RGBA)))
    return np.ascontiguousarray(levels[:, :, ::-1])


def _register_heif(content: bytes) -> None:
    if content[8:12] in _HEIF:
        with suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()


def _png_chunks(content: bytes) -> list[bytes]:
    """Return the kinds of chunk of a PNG in order, once each; every checksum has to be right."""
    kinds, view, end = list[bytes](), memoryview(content), 8
    while kinds[-1:] != [b"IEND"]:
        start = end + 4
        end = start + 8 + int.from_bytes(view[end:start])
        kind, checksum = content[start : start + 4], int.from_bytes(view[end - 4 : end])
        if end > len(content) or end < start + 8:
            raise OSError(f"it ends in its chunk {_name(kind)}")
        if zlib.crc32(view[start : end - 4]) != checksum:
            raise OSError(f"the checksum of its chunk {_name(kind)} is wrong")
        kinds += [] if kind == b"IDAT" and kinds[-1:] == [kind] else [kind]
    return kinds


def _check_webp(content: bytes) -> None:
    end, stop = 12, struct.unpack_from("<I", content, 4)[0] + 8
    while end + 8 <= stop:
        if end + 8 > len(content):
            raise OSError("it ends where a chunk should begin")
        kind, length = struct.unpack_from("<4sI", content, end)
        start, end = end + 8, end + 8 + length + length % 2
        if start + length > len(content):
            raise OSError(f"it ends in its chunk {_name(kind)}")
        if kind in (b"VP8 ", b"VP8L"):
            # A lossy picture of one colour does end in zeros, about a twentieth of it.
            _refuse_zeros(content[start : start + length], length // 8 if kind == b"VP8 " else 0)


def _check_strips(content: bytes, tags: Any) -> None:
    if tags.get(_PACKED) not in _CODED:
        return
    offsets, counts = (tags.get(strips) or tags.get(tiles) or () for strips, tiles in _PLACES)
    for offset, count in zip(offsets, counts, strict=False):
        _refuse_zeros(content[max(offset, offset + count - _ZEROS) : offset + count])


def _refuse_zeros(coded: bytes, least: int = 0) -> None:
    zeros = max(least, _ZEROS)
    if coded.endswith(bytes(zeros)):
        raise OSError(f"it ends in {zeros:,} zeros or more, as a broken download does")


def _unknown(content: bytes) -> str:
    """Say what a file is that Pillow does not open, where that can be known."""
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF:
        return "the image is HEIC; install pillow-heif to read it, or save it as JPEG or PNG"
    if content[:4] in (b"II*\0", b"MM\0*"):
        with suppress(Exception):  # a damaged TIFF is one that is not known
            tags = ImageFileDirectory_v2(content[:8])
            stream = BytesIO(content)
            stream.seek(tags.next)
            tags.load(stream)
            bits, bands = tags.get(BITSPERSAMPLE, (1,))[0], tags.get(SAMPLESPERPIXEL, 1)
            kind = {2: "signed ", 3: "floating-point "}.get(tags.get(SAMPLEFORMAT, (1,))[0], "")
            many = "1 band" if bands == 1 else f"{bands} bands"
            return (
                f"the TIFF has {many} of {bits}-bit {kind}numbers, which is no photograph; save 1, "
                "3 or 4 bands of 8 bits, or hand over a data set that gives tensors"
            )
    return f"the file is not an image that can be read; it begins with {content[:16]!r}"


def _name(kind: bytes) -> str:
    return repr(kind.decode("latin-1").strip())


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(Base.Orientation, 1)
    except Exception:  # a damaged EXIF block does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the picture claims {width:,} × {height:,} pixels; at most {MAX_PIXELS:,} are read"
        )
