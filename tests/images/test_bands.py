"""Files and items of other bands and numbers than photographs have."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exporter.errors import ImageError, ImageSetError
from exporter.images import open_images
from exporter.images.decode import decode, decode_bands
from exporter.images.pixels import prepare_contents
from exporter.records import Preprocessing

tifffile = pytest.importorskip("tifffile")
Encode = Callable[..., bytes]

REFLECTANCE = np.random.default_rng(0).integers(0, 4001, (6, 8, 13), dtype=np.uint16)
RANGE = (0.0, 4000.0)


def steps(channels: int = 3, **settings: Any) -> Preprocessing:
    return Preprocessing(
        (6, 8), None, channels=channels, mean=(0.25,) * channels, std=(0.5,) * channels, **settings
    )


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def many(values: np.ndarray, **options: Any) -> bytes:
    return tiff(values, photometric="minisblack", planarconfig="contig", **options)


def moved(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, 2, 0))


LAID_OUT = {
    "bands beside one another": many(REFLECTANCE),
    "a band after the other": tiff(
        moved(REFLECTANCE), photometric="minisblack", planarconfig="separate"
    ),
    "a page per band": tiff(moved(REFLECTANCE)),
    "BigTIFF": many(REFLECTANCE, bigtiff=True),
    "big-endian": many(REFLECTANCE, byteorder=">"),
    "LZW": many(REFLECTANCE, compression="lzw", predictor=True),
    "Deflate in tiles": many(REFLECTANCE, compression="zlib", tile=(16, 16)),
}


@pytest.mark.parametrize("how", LAID_OUT)
def test_a_model_of_13_channels_is_given_13_bands_in_their_own_precision(how: str) -> None:
    taken = steps(13, range=RANGE, bands=(4, 3, 2))
    prepared = prepare_contents(LAID_OUT[how], taken, ready=False)
    unit = REFLECTANCE.astype(np.float64) / 4000
    assert prepared.tensor is not None
    assert np.allclose(prepared.tensor, moved((unit - 0.25) / 0.5), atol=1e-6)
    assert np.abs(prepared.view.astype(float) - 255 * unit[:, :, [3, 2, 1]]).max() <= 0.5001


def test_bands_are_chosen_in_the_order_given_and_cut_off_beyond_the_range() -> None:
    taken = steps(3, range=(1000.0, 3000.0), bands=(13, 1, 1))
    prepared = prepare_contents(LAID_OUT["LZW"], taken, ready=False)
    unit = ((REFLECTANCE[:, :, [12, 0, 0]].astype(float) - 1000) / 2000).clip(0, 1)
    assert prepared.tensor is not None
    assert np.allclose(prepared.tensor, moved((unit - 0.25) / 0.5), atol=1e-6)
    assert (prepared.view == np.rint(unit.astype(np.float32) * 255)).all()


def test_thirteen_bands_can_be_given_in_another_order() -> None:
    order = tuple(range(13, 0, -1))
    taken = steps(13, range=RANGE, bands=order)
    prepared = prepare_contents(LAID_OUT["BigTIFF"], taken, ready=False)
    assert prepared.tensor is not None
    assert np.allclose(
        prepared.tensor, moved((REFLECTANCE[:, :, ::-1] / 4000 - 0.25) / 0.5), atol=1e-6
    )
    assert taken.shown_as == "bands 13, 12, 11 from 0 to 4000"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bands", [(9,), (3, 2, 1)])
def test_one_band_is_grey_and_three_are_colours(channels: int, bands: tuple[int, ...]) -> None:
    prepared = prepare_contents(
        LAID_OUT["LZW"], steps(channels, range=RANGE, bands=bands), ready=False
    )
    unit = REFLECTANCE[:, :, [number - 1 for number in bands]] / 4000
    if channels == 1 and len(bands) == 3:
        unit = unit @ np.array([[0.299], [0.587], [0.114]])
    assert prepared.view.shape == (6, 8, channels)
    assert np.abs(prepared.view - 255 * unit).max() <= 0.51


def test_four_bands_of_8_bits_are_four_and_not_a_transparent_picture() -> None:
    values = np.random.default_rng(1).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    rgb = tiff(values, photometric="rgb", extrasamples=["unspecified"])
    png = cv2.imencode(".png", values[:, :, [2, 1, 0, 3]])[1].tobytes()
    for content in (many(values), rgb, png):
        assert np.allclose(decode_bands(content, steps(4)), values / 255, atol=1e-6)
        false_colour = decode_bands(content, steps(3, bands=(4, 1, 2)))
        assert np.allclose(false_colour, values[:, :, [3, 0, 1]] / 255, atol=1e-6)
    # Nobody asked for its fourth: the picture is what it is elsewhere.
    assert (decode(rgb) == values[:, :, :3]).all()


def test_floating_point_needs_a_range_and_says_which_numbers_there_are() -> None:
    height = np.linspace(-12.5, 870, 48, dtype=np.float32).reshape(6, 8)
    height[0, 1] = np.nan
    for compression in (None, "zlib"):
        content = tiff(height, compression=compression)
        with pytest.raises(ImageError, match=r"range = \[black, white\]"):
            decode(content)
        with pytest.raises(ImageError, match=r"32-bit floating-point numbers from -12\.5 to 870"):
            decode_bands(content, steps(3, bands=(1,)))
        unit = decode_bands(content, steps(3, range=(0.0, 1000.0)))
        expected = np.nan_to_num(height / 1000).clip(0, 1)
        assert np.allclose(unit, expected[:, :, None], atol=1e-6)


def test_signed_numbers_are_kept() -> None:
    values = np.array([[-100, 0, 100]], np.int16)
    unit = decode_bands(tiff(values), steps(3, range=(-100.0, 100.0)))
    assert np.allclose(unit[0, :, 0], [0, 0.5, 1])


def test_numbers_of_12_bits_and_those_whose_lowest_is_white() -> None:
    pytest.importorskip("imagecodecs")
    values = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
    packed = tiff(np.repeat(values, 2, axis=1).astype(np.uint16), bitspersample=12)
    chosen = steps(1, bands=(1,))
    assert np.allclose(decode_bands(packed, chosen)[:, ::2, 0], values / 4095, atol=1e-6)
    white = tiff(values, photometric="miniswhite")
    unit = decode_bands(white, steps(1, range=(0.0, 4095.0)))
    assert np.allclose(unit[:, :, 0], 1 - values / 4095, atol=1e-6)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_16_bits_are_read_whole_where_a_range_is_given(kind: str) -> None:
    values = np.random.default_rng(2).integers(0, 4096, (6, 8, 3), dtype=np.uint16)
    content = cv2.imencode(kind, values[:, :, ::-1])[1].tobytes()
    unit = decode_bands(content, steps(3, range=(0.0, 4095.0)))
    assert np.allclose(unit, values / 4095, atol=1e-6)
    twelve = decode_bands(content, steps(3, bands=(1, 2, 3), bits=12))
    assert np.allclose(twelve, values / 4095, atol=1e-6)


def test_orientation_holds_for_bands(encode: Encode) -> None:
    content = many(REFLECTANCE, extratags=[(274, 3, 1, 6, True)])
    turned = decode_bands(content, steps(13, range=RANGE))
    assert np.allclose(turned, np.rot90(REFLECTANCE, -1) / 4000, atol=1e-6)


def test_a_photograph_of_8_bits_goes_through_bands_as_it_is(encode: Encode) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for kind in ("PNG", "TIFF"):
        content = encode(Image.fromarray(pixels), kind)
        unit = decode_bands(content, steps(3, bands=(3, 2, 1)))
        assert np.allclose(unit, pixels[:, :, ::-1] / 255, atol=1e-6)
    grey = encode(Image.fromarray(pixels[:, :, 0]), "PNG")
    assert decode_bands(grey, steps(1, range=(0.0, 255.0))).shape == (6, 8, 1)


@pytest.mark.parametrize(
    ("content", "taken", "said"),
    [
        (many(REFLECTANCE), steps(3), r"13 bands of 16-bit numbers; .*bands = \[3, 2, 1\]"),
        (many(REFLECTANCE), steps(3, range=RANGE), r"13 bands and the model takes 3 channels; say"),
        (many(REFLECTANCE), steps(3, bands=(14, 2, 1)), "13 bands, and .* bands asks for 14"),
        (many(REFLECTANCE[:, :, :5]), steps(13), "5 bands and the model takes 13 channels; give"),
        (many(REFLECTANCE[:, :, :5]), steps(4), r"bands = \[3, 2, 1, …\]"),
        (tiff(np.zeros((2, 5, 6, 8), np.uint8)), steps(6), "has the axes QQYX of"),
        (many(REFLECTANCE.astype(np.complex64)), steps(13), "complex64 numbers"),
        (many(REFLECTANCE)[:-40], steps(13), "damaged or truncated"),
        (LAID_OUT["a page per band"][:-40], steps(13), "damaged or truncated"),
    ],
    ids=range(9),
)
def test_what_cannot_be_taken_is_one_sentence(
    content: bytes, taken: Preprocessing, said: str
) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        prepare_contents(content, taken, ready=False)
    assert "\n" not in str(caught.value)


def test_without_its_packages_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = steps(13, range=RANGE)
    monkeypatch.setattr("exporter.images.tiff.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"compressed \(LZW\); install exporter\[tiff\]"):
        decode_bands(LAID_OUT["LZW"], taken)
    assert decode_bands(LAID_OUT["BigTIFF"], taken).shape == (6, 8, 13)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageError, match=r"13 bands of 16-bit numbers; install exporter\[tiff\]"):
        decode_bands(LAID_OUT["BigTIFF"], taken)
    # Pillow and OpenCV read one band and three.
    height = np.linspace(0, 1000, 48, dtype=np.float32).reshape(6, 8)
    grey = decode_bands(tiff(height), steps(3, range=(0.0, 1000.0)))
    assert np.allclose(grey[:, :, 0], height / 1000, atol=1e-6)


def test_what_claims_to_be_large_is_refused_before_it_is_unpacked() -> None:
    def claims(content: bytes, side: int) -> bytes:
        changed = bytearray(content)
        with tifffile.TiffFile(BytesIO(content)) as file:
            for name in ("ImageWidth", "ImageLength"):
                tag = file.pages.first.tags[name]
                changed[tag.offset + 2 : tag.offset + 4] = (4).to_bytes(2, "little")
                changed[tag.offset + 8 : tag.offset + 12] = side.to_bytes(4, "little")
        return bytes(changed)

    with pytest.raises(ImageError, match="60,000 × 60,000 pixels of 13 bands; at most"):
        decode_bands(claims(many(REFLECTANCE), 60_000), steps(13))
    with pytest.raises(ImageError, match=r"15,000 × 15,000 pixels of 13 bands; .*750,000,000 num"):
        decode_bands(claims(many(REFLECTANCE), 15_000), steps(13))
    tiled = claims(many(REFLECTANCE, tile=(16, 16)), 60_000)
    with pytest.raises(ImageError, match="as whole slides and maps are; cut it up"):
        decode(tiled)


def test_a_strip_that_unpacks_to_more_than_it_claims_is_damaged() -> None:
    content = bytearray(many(REFLECTANCE, compression="zlib"))
    with tifffile.TiffFile(BytesIO(bytes(content))) as file:
        tags = file.pages.first.tags
        places = [tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")]
    bomb = zlib.compress(bytes(20_000_000))
    for place, value in zip(places, (len(content), len(bomb)), strict=True):
        content[place : place + 4] = value.to_bytes(4, "little")
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode_bands(bytes(content) + bomb, steps(13))


@pytest.mark.parametrize("tag", [322, 323])
def test_a_tile_that_claims_to_be_huge_is_damage_and_no_lack_of_memory(tag: int) -> None:
    content = bytearray(LAID_OUT["Deflate in tiles"])
    entry = content.index(tag.to_bytes(2, "little"), 8)
    content[entry + 8 : entry + 12] = (1 << 26).to_bytes(4, "little")
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode_bands(bytes(content), steps(13))


@pytest.mark.parametrize("how", LAID_OUT)
@given(changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
@settings(max_examples=40)
def test_any_change_of_bytes_gives_bands_or_one_sentence(
    how: str, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(LAID_OUT[how])
    for place, value in changes:
        content[int(place**3 * len(content))] = value  # in its header, mostly
    try:
        unit = decode_bands(bytes(content), steps(13, range=RANGE))
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert unit.shape[2] == 13
        assert ((unit >= 0) & (unit <= 1)).all()


@pytest.mark.parametrize(
    "item",
    [
        moved(REFLECTANCE),
        REFLECTANCE,
        REFLECTANCE.astype(np.float32),
        torch.from_numpy(moved(REFLECTANCE).astype(np.int32)),
        torch.from_numpy(moved(REFLECTANCE).astype(np.float64)),
    ],
    ids=["CHW", "HWC", "float", "tensor", "float64 tensor"],
)
def test_items_of_many_bands_are_read_as_files_are(item: Any) -> None:
    taken = replace(steps(13, range=RANGE, bands=(4, 3, 2)), size=(4, 6))
    images = open_images([item])
    images.settle(taken)
    assert images.notes[1:] == ("shown: bands 4, 3, 2 from 0 to 4000",)
    prepared = images.load(images.entries[0], taken)
    wanted = prepare_contents(LAID_OUT["LZW"], taken, ready=False)
    assert prepared.tensor is not None
    assert wanted.tensor is not None
    assert np.allclose(prepared.tensor, wanted.tensor, atol=1e-6)
    assert (prepared.view == wanted.view).all()


def test_model_ready_tensors_are_shown_as_stated_and_given_as_they_are() -> None:
    tensor = torch.from_numpy(moved(REFLECTANCE).astype(np.float32))
    taken = replace(steps(13, range=RANGE, bands=(4, 3, 2)), mean=(0.0,) * 13, std=(1.0,) * 13)
    images = open_images([tensor])
    images.settle(taken)
    assert images.ready
    assert images.notes[-1] == "shown: bands 4, 3, 2 from 0 to 4000"
    prepared = images.load(images.entries[0], taken)
    assert np.array_equal(prepared.tensor, tensor)  # type: ignore[arg-type]
    shown = REFLECTANCE[:, :, [3, 2, 1]] / 4000 * 255
    assert np.abs(prepared.view - shown).max() <= 0.51
    with pytest.raises(ImageSetError, match="the items go to the model as they are"):
        open_images([tensor]).settle(replace(taken, bands=tuple(range(1, 14))))


def test_pillow_items_of_32_bits_are_read_between_the_stated_numbers() -> None:
    image = Image.fromarray(np.array([[0, 100, 200]], np.int32))
    taken = replace(steps(1, range=(0.0, 200.0)), size=(1, 3))
    assert prepare_contents(image, taken, ready=False).view.ravel().tolist() == [0, 128, 255]


def test_a_range_that_shows_nothing_is_noted(tmp_path: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", REFLECTANCE[:, :, 0])
    images = open_images(tmp_path)
    images.load_first(steps(1, range=(0.0, 1e6)))
    assert "nearly black" in images.notes[-1]
    assert "another [preprocessing] range" in images.notes[-1]
    images = open_images(tmp_path)
    images.load_first(steps(1, range=(-2.0, -1.0)))
    assert "nearly white, with values from 255 of 255; state another" in images.notes[-1]
    images = open_images(tmp_path)
    images.load_first(steps(1, range=RANGE))
    assert images.notes == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": 13}, "bands 1, 2, 3"),
        ({"channels": 2}, "band 1"),
        ({"bands": (3, 2, 1)}, "bands 3, 2, 1"),
        ({"bands": (8,)}, "band 8"),
        ({"range": (0.0, 4000.0)}, "from 0 to 4000"),
        ({"channels": 1, "bands": (3, 2, 1), "range": (-1.0, 0.5)}, "bands 3, 2, 1 from -1 to 0.5"),
        ({"channels": 4, "bands": (4, 3, 2, 1)}, "bands 4, 3, 2"),
        ({}, ""),
    ],
)
def test_what_is_shown_is_said(settings: dict[str, Any], said: str) -> None:
    assert Preprocessing((6, 8), None, **settings).shown_as == said
