from __future__ import annotations

import re
import struct
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from exporter.errors import ImageError
from exporter.images.bands import MAX_PIXELS
from exporter.images.decode import decode, read_header

Encode = Callable[..., bytes]
PNG_START = b"\x89PNG\r\n\x1a\n"


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))


def difference(left: np.ndarray, right: np.ndarray) -> int:
    assert left.shape == right.shape
    return int(np.abs(left.astype(int) - right).max())


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return PNG_START + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


@pytest.mark.slow
def test_every_photograph_decodes_as_pillow_decodes_it(photos: Path, encode: Encode) -> None:
    for file in photos.glob("*.jpg"):
        data = file.read_bytes()
        assert read_header(data) is not None, "the fast path is taken"
        assert difference(decode(data), by_pillow(data)) <= 2
        whole = encode(Image.open(BytesIO(data)), "PNG", compress_level=1)
        assert read_header(whole) is not None
        assert difference(decode(whole), by_pillow(data)) == 0


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"progressive": True}, 2),
        ("JPEG", {"subsampling": 0}, 2),
        ("JPEG", {"restart_marker_blocks": 2}, 2),
        ("JPEG", {"keep_rgb": True}, 2),
        ("BMP", {}, 0),
        ("WEBP", {}, 1),
        ("WEBP", {"lossless": True}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("GIF", {}, 0),
        ("PPM", {}, 0),
        ("AVIF", {}, 0),
        ("JPEG2000", {}, 0),
    ],
)
def test_formats(
    kind: str, options: dict[str, Any], tolerance: int, small: Image.Image, encode: Encode
) -> None:
    data = encode(small, kind, **options)
    assert difference(decode(data), by_pillow(data)) <= tolerance


def test_png_gamma_and_profile_are_not_applied(small: Image.Image) -> None:
    plain = cv2.imencode(".png", np.asarray(small)[:, :, ::-1])[1].tobytes()
    chunk = b"gAMA" + struct.pack(">I", 20_000)
    gamma = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert (decode(plain[:33] + gamma + plain[33:]) == np.asarray(small)).all()


def test_a_bitmap_stored_from_the_top(small: Image.Image, encode: Encode) -> None:
    data = bytearray(encode(small, "BMP"))
    data[22:26] = struct.pack("<i", -60)
    assert (decode(bytes(data)) == np.asarray(small)[::-1]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(
    kind: str, orientation: int, small: Image.Image, encode: Encode
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(small, kind, exif=exif)
    pixels = decode(data)
    assert pixels.shape == ((90, 60, 3) if orientation >= 5 else (60, 90, 3))
    assert difference(pixels, by_pillow(data)) <= 2
    assert pixels.flags.c_contiguous


def test_rotated_jpeg_stays_on_the_fast_path(small: Image.Image, encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = read_header(encode(small, "JPEG", exif=exif))
    assert plain is not None
    assert plain[2] == 6


def test_rotation_in_xmp_is_applied(small: Image.Image, encode: Encode) -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    assert decode(encode(small, "JPEG", xmp=packet)).shape == (90, 60, 3)


def test_damaged_exif_does_not_make_a_picture_unreadable(
    small: Image.Image, encode: Encode
) -> None:
    broken = encode(small, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert difference(decode(broken), decode(encode(small, "JPEG"))) == 0


def test_cmyk_jpeg(small: Image.Image, encode: Encode) -> None:
    data = encode(small.convert("CMYK"), "JPEG", quality=100)
    assert read_header(data) is None
    assert difference(decode(data), np.asarray(small)) <= 12


def test_16_bit_grey_keeps_the_high_byte(encode: Encode) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    for data in (
        encode(Image.fromarray(values), "PNG"),
        encode(Image.fromarray(values), "TIFF"),
        cv2.imencode(".png", values)[1].tobytes(),
    ):
        pixels = decode(data)
        assert (pixels == (values >> 8).astype(np.uint8)[:, :, None]).all()


def test_16_bit_colour_keeps_the_high_byte() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (7, 5, 3), dtype=np.uint16)
    data = cv2.imencode(".png", values[:, :, ::-1])[1].tobytes()
    assert (decode(data) == values >> 8).all()


def test_transparent_pixels_are_laid_on_white(encode: Encode) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 255, 102)
    expected = [[255, 255, 255], [200, 0, 0], [233, 153, 153]]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert decode(encode(Image.fromarray(rgba), kind, **options)).tolist() == [expected]
    grey = Image.fromarray(np.array([[[100, 0], [100, 255]]], np.uint8), "LA")
    assert decode(encode(grey, "PNG")).tolist() == [[[255] * 3, [100] * 3]]


def test_transparent_colour_and_palette_entry_are_laid_on_white(encode: Encode) -> None:
    colour = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    data = encode(colour, "PNG", transparency=(1, 2, 3))
    assert decode(data).tolist() == [[[9, 8, 7], [255, 255, 255]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert decode(encode(palette, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    data = encode(palette, "PNG", transparency=1)
    assert decode(data).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_one_bit_grey_and_one_pixel(encode: Encode) -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert decode(encode(bits, "PNG")).tolist() == [[[255] * 3, [0] * 3]]
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF"):
        assert decode(encode(Image.new("L", (1, 1), 77), kind)).tolist() == [[[77] * 3]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_picture_of_many(kind: str, encode: Encode) -> None:
    pages = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(pages[0], kind, save_all=True, append_images=pages[1:], **options)
    assert (decode(data) == [255, 0, 0]).all()


def _variants(small: Image.Image, encode: Encode) -> dict[str, bytes]:
    return {
        "jpeg": encode(small, "JPEG"),
        "progressive": encode(small, "JPEG", progressive=True),
        "grey": encode(small.convert("L"), "JPEG"),
        "png": encode(small, "PNG"),
        "rgba": encode(small.convert("RGBA"), "PNG"),
        "bmp": encode(small, "BMP"),
        "webp": encode(small, "WEBP"),
        "gif": encode(small, "GIF"),
        "lzw": encode(small, "TIFF", compression="tiff_lzw"),
        "jp2": encode(small, "JPEG2000"),
        "avif": encode(small, "AVIF"),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_truncated_file_is_an_error_or_whole_but_never_half_grey(
    small: Image.Image, encode: Encode
) -> None:
    for name, data in _variants(small, encode).items():
        whole = decode(data)
        refused = 0
        for end in {*range(0, len(data), 23), *range(len(data) - 40, len(data))}:
            try:
                pixels = decode(data[:end])
            except ImageError:
                refused += 1
            else:
                assert difference(pixels, whole) == 0, (name, end)
        assert refused > len(data) / 23 - 3, name


def test_a_truncated_jpeg_padded_with_zeros_is_an_error(small: Image.Image, encode: Encode) -> None:
    data = encode(small, "JPEG")
    for end in range(len(data) // 2, len(data) - 3, 37):
        with pytest.raises(ImageError, match="truncated"):
            decode(data[:end] + bytes(len(data) - end))


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "TIFF"])
def test_what_a_decoder_had_left_is_not_told(kind: str, small: Image.Image, encode: Encode) -> None:
    data = encode(small, kind)
    with pytest.raises(ImageError, match=r"damaged or truncated: image file is truncated$"):
        decode(data[: len(data) // 2])


def test_a_jpeg_cut_after_its_thumbnail_is_an_error(small: Image.Image, encode: Encode) -> None:
    thumbnail = encode(small.resize((16, 12)), "JPEG")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail + bytes(500)
    data = encode(small, "JPEG", exif=exif)
    cut = data[: data.index(thumbnail) + len(thumbnail)]
    assert cut.endswith(b"\xff\xd9")
    with pytest.raises(ImageError):
        decode(cut)


def test_what_follows_the_end_of_a_jpeg_is_ignored(small: Image.Image, encode: Encode) -> None:
    data = encode(small, "JPEG")
    for trailer in (bytes(1000), b"trailer", data):
        assert difference(decode(data + trailer), decode(data)) == 0


def test_a_damaged_png_is_an_error(small: Image.Image, encode: Encode) -> None:
    data = bytearray(encode(small, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError):
        decode(bytes(data))


@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html><p>404", b"BM", b"\xff\xd8\xff", b"GIF89a", b"\0"]
)
def test_what_is_no_image_is_an_error_of_one_sentence(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_a_web_page_are_named() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode(b"")
    with pytest.raises(ImageError, match="is a web page, as a failed download"):
        decode(b"<!DOCTYPE html><p>404")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(
    small: Image.Image, encode: Encode
) -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    plain = png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b""))
    with pytest.raises(ImageError, match=f"at most {MAX_PIXELS:,}"):
        decode(plain)
    special = png(
        (b"IHDR", header), (b"tRNS", bytes(6)), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")
    )
    with pytest.raises(ImageError, match="too large"):
        decode(special)
    jpeg = bytearray(encode(small, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(ImageError, match=r"60,000 × 60,000"):
        decode(bytes(jpeg))


def test_32_bit_pixels_have_no_known_range(encode: Encode) -> None:
    for values in (np.ones((2, 2), np.float32), np.ones((2, 2), np.int32)):
        with pytest.raises(ImageError, match=r"32-bit .* range = \[black, white\]"):
            decode(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_pictures_of_fewer_bits_in_16_are_as_bright_as_stated(bits: int) -> None:
    grey = np.random.default_rng(bits).integers(0, 1 << bits, (20, 30), dtype=np.uint16)
    colour = np.random.default_rng(bits).integers(0, 1 << bits, (20, 30, 3), dtype=np.uint16)
    alpha = np.dstack([colour, np.full((20, 30), (1 << bits) - 1, np.uint16)])
    expected = (colour >> (bits - 8)).astype(np.uint8)
    for kind in (".png", ".tiff"):
        content = cv2.imencode(kind, grey)[1].tobytes()
        assert (decode(content, bits) == (grey >> (bits - 8))[:, :, None]).all()
    for kind in (".png",):
        assert (decode(cv2.imencode(kind, colour[:, :, ::-1])[1].tobytes(), bits) == expected).all()
    content = cv2.imencode(".png", cv2.cvtColor(alpha, cv2.COLOR_RGBA2BGRA))[1].tobytes()
    assert difference(decode(content, bits), expected) <= 1
    # What has 8 bits is not changed.
    plain = cv2.imencode(".png", expected)[1].tobytes()
    assert (decode(plain, bits) == decode(plain)).all()


def test_a_tiff_without_all_its_strips_is_damaged(encode: Encode) -> None:
    content = encode(Image.new("L", (8, 64)), "TIFF")
    rows = content.index(b"\x16\x01", content.index(b"\x11\x01"))  # tag 278, after tag 273
    fewer = content[:rows] + struct.pack("<HHII", 278, 4, 1, 16) + content[rows + 12 :]
    assert decode(content).shape == (64, 8, 3)
    with pytest.raises(ImageError, match="some of its strips are not there"):
        decode(fewer)


def _tiff(bands: int, bits: int, form: int) -> bytes:
    """Return a TIFF of 2 × 2 pixels, all zero."""
    entries = [
        (256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 200), (277, 3, 1, bands), (278, 3, 1, 2), (279, 4, 1, bands * bits // 2),
        (339, 3, 1, form),
    ]  # fmt: skip
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    return head.ljust(200, b"\0") + bytes(bands * bits // 2)


@pytest.mark.parametrize(
    ("bands", "bits", "form", "said"),
    [
        (13, 16, 1, "13 bands of 16-bit numbers"),
        (5, 8, 1, "5 bands of 8-bit numbers"),
        (2, 32, 3, "2 bands of 32-bit floating-point numbers"),
        (1, 64, 3, "1 band of 64-bit floating-point numbers"),
    ],
)
def test_a_tiff_that_is_no_photograph_is_named(bands: int, bits: int, form: int, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        decode(_tiff(bands, bits, form))


def test_heic_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\0\0\0\x18ftypheic" + bytes(40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"HEIC; install exporter\[heic\]"):
        decode(content)


def test_heic_is_read_where_its_package_is(small: Image.Image) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = BytesIO()
    pillow_heif.from_pillow(small).save(file, quality=95)
    content = file.getvalue()
    assert np.abs(decode(content).astype(int) - np.asarray(small)).mean() < 3
    with pytest.raises(ImageError):
        decode(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (bytes(344) + b"n+1\0", "a NIfTI volume"),
        (b"\0\0\0\x18ftypcrx ", "a camera's raw photograph"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"\x89HDF\r\n", "HDF5"),
        (b'<?xml version="1.0"?><svg>', "SVG or other XML"),
        (b"\x1f\x8b\x08", "compressed or an archive; unpack it"),
    ],
)
def test_other_files_are_named_for_what_they_are(start: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=f"^the file is {re.escape(said)}"):
        decode(start + bytes(600))


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", PNG_START, b"BM", b"RIFF", b""]))
def test_any_bytes_give_a_picture_or_an_image_error(tail: bytes, start: bytes) -> None:
    try:
        pixels = decode(start + tail)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
