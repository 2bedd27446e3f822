from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from exporter.errors import ImageError
from exporter.render import decode_image, encode_jpeg, encode_png

PICTURE = np.random.default_rng(0).integers(0, 256, (13, 17, 3)).astype(np.uint8)


def test_png_is_lossless_and_rgb_for_another_reader() -> None:
    encoded = encode_png(PICTURE)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), PICTURE)
    assert np.array_equal(decode_image(encoded), PICTURE)


def test_jpeg_is_rgb_for_another_reader() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 220
    encoded = encode_jpeg(red)
    assert encoded[:2] == b"\xff\xd8"
    assert np.abs(np.asarray(Image.open(io.BytesIO(encoded))).astype(int) - red).max() <= 3
    assert len(encode_jpeg(PICTURE, 20)) < len(encode_jpeg(PICTURE, 95))


def test_grey_pictures_come_back_as_rgb() -> None:
    grey = PICTURE[..., :1]
    assert np.array_equal(decode_image(encode_png(grey)), np.repeat(grey, 3, axis=2))


def test_a_reduced_picture_is_half_as_large() -> None:
    assert decode_image(encode_jpeg(PICTURE), reduced=True).shape == (7, 9, 3)


@pytest.mark.parametrize("damaged", [b"", b"not a picture", encode_png(PICTURE)[:30]])
def test_damaged_bytes_are_one_sentence(damaged: bytes) -> None:
    with pytest.raises(ImageError, match=f"{len(damaged)} stored bytes are not a picture"):
        decode_image(damaged)
